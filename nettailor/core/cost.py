"""What a network costs: multiply-adds, parameters and layers.

FLOPs are multiply-adds, as in the paper, of the convolutions, matrix products and attention on
one image. Element-wise work, pooling and norms count as zero. Costs are those of the network as it
is deployed, its branches fused (`fuse_branches`). They are counted on the meta device,
where attention is made of its two matrix products: of a CPU's or GPU's own kernels for attention
some would not be counted.
"""

from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nettailor.core.backbone import Backbone, meta_copy, node_specs
from nettailor.core.branches import fuse_branches
from nettailor.core.errors import REFUSALS, UserError
from nettailor.core.meta import Module


class Cost(NamedTuple):
    """flops: multiply-adds on one image. parameters: how many numbers, frozen ones included."""

    flops: int
    parameters: int


class ChainCosts(NamedTuple):
    """The cost of each part of a chain on one image; blocks[l - 1] is that of G_l.

    nodes: x_0 … x_L of that image, shapes without values.
    """

    stem: Cost
    blocks: tuple[Cost, ...]
    neck: Cost
    classifier: Cost
    nodes: tuple[Tensor, ...]

    @property
    def total(self) -> Cost:
        """The cost of the whole chain."""
        parts = (self.stem, *self.blocks, self.neck, self.classifier)
        return Cost(sum(part.flops for part in parts), sum(part.parameters for part in parts))


def module_flops(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-adds of a module on one input of this shape, given without the batch axis.

    The module must take one tensor; it is counted on a meta copy and is neither run nor changed.
    """
    return module_cost(module, input_shape).flops


def module_cost(module: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """The cost of a module on one input, as `module_flops` takes it."""
    return _measure(_deployed(module), torch.empty(1, *input_shape, device="meta"), set())[1]


def parameters(module: nn.Module) -> int:
    """How many numbers the parameters hold: each parameter once, frozen ones too, no buffers.

    They are those of the module as it is, branches included.
    """
    return sum(parameter.numel() for parameter in module.parameters())


def layers(module: nn.Module) -> int:
    """How many layers there are: modules with parameters of their own or without children.

    timm's batch norm holds its activation as a child, so that counting childless modules alone
    would miss it. Identities and empty containers do nothing and do not count.
    """
    return sum(
        not isinstance(part, nn.Identity | nn.Sequential | nn.ModuleList)
        and (not any(part.children()) or any(True for _ in part.parameters(recurse=False)))
        for part in module.modules()
    )


def chain_costs(chain: Backbone, image_size: int) -> ChainCosts:
    """The cost of each part of a chain on one image of image_size × image_size pixels.

    A parameter that parts have in common is counted with the first of them.

    Raises UserError for an image that the backbone does not take.
    """
    if image_size < 1:
        raise UserError(f"image size {image_size}: expected a number of pixels, at least 1")
    copy = _deployed(chain)
    image = torch.empty(1, chain.example[0], image_size, image_size, device="meta")
    counted: set[nn.Parameter] = set()
    try:
        node, stem = _measure(copy.stem, image, counted)
        nodes, blocks = [node], []
        for block in copy.blocks:
            node, cost = _measure(block, node, counted)
            blocks.append(cost)
            nodes.append(node)
        features, neck = _measure(copy.neck, node, counted)
        _, classifier = _measure(copy.classifier, features, counted)
    except REFUSALS as error:
        stride = ceil(max(spec.stride for spec in node_specs(chain)))
        if image_size >= stride:
            side = chain.example[1]
            raise UserError(
                f"image size {image_size}: this backbone, measured with images of {side}×{side}, "
                f"does not take it: {error}; use {side} pixels"
            ) from error
        raise UserError(
            f"image size {image_size} is too small for this backbone, whose nodes are up to "
            f"{stride} times smaller than the image: use at least {stride} pixels"
        ) from error
    return ChainCosts(stem, tuple(blocks), neck, classifier, tuple(nodes))


def check_image_size(chain: Backbone, image_size: int) -> None:
    """Raise UserError where a backbone, or proxies beside it, cannot work at this image size.

    A proxy pools to ceil(size / stride); a backbone that rounds down instead fits only sizes that
    its strides divide, and where none does, the size that it was measured with.
    """
    nodes, specs = chain_costs(chain, image_size).nodes, node_specs(chain)
    if not all(
        spec.fits(tuple(node.shape), image_size) for node, spec in zip(nodes, specs, strict=True)
    ):
        side = chain.example[1]
        if any(spec.windows or side % spec.stride for spec in specs):
            raise UserError(
                f"image size {image_size}: this backbone was measured with images of "
                f"{side}×{side}: use {side} pixels, or give an example of {image_size}×{image_size}"
            )
        stride = ceil(max(spec.stride for spec in specs))
        nearest = max(stride, round(image_size / stride) * stride)
        raise UserError(
            f"image size {image_size}: this backbone needs a multiple of {stride} pixels, such as "
            f"{nearest}"
        )


def _deployed(module: Module) -> Module:
    return fuse_branches(meta_copy(module))


def _measure(part: nn.Module, sample: Tensor, counted: set[nn.Parameter]) -> tuple[Tensor, Cost]:
    """A part's output and cost; a parameter of several parts is counted with the first of them."""
    output, flops = _run(part, sample)
    own = set(part.parameters()) - counted
    counted |= own
    return output, Cost(flops, sum(parameter.numel() for parameter in own))


def _run(part: nn.Module, sample: Tensor) -> tuple[Tensor, int]:
    """A meta module's output and its multiply-adds: torch counts each of them as two."""
    part.requires_grad_(False)  # the counter follows gradients, and fails on a parameter as input
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output: Tensor = part(sample)
    return output, counter.get_total_flops() // 2
