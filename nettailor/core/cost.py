"""What a network costs: multiply-adds, parameters and layers.

FLOPs are multiply-adds, as in the paper, of the convolutions, matrix products and attention on
one image. Element-wise work, pooling and batch norm count as zero.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nettailor.core.backbone import Backbone, meta_copy, node_specs
from nettailor.core.errors import UserError


class Cost(NamedTuple):
    """flops: multiply-adds on one image. parameters: how many numbers, frozen ones included."""

    flops: int
    parameters: int


class ChainCosts(NamedTuple):
    """The cost of each part of a chain on one image; blocks[l - 1] is that of G_l."""

    stem: Cost
    blocks: tuple[Cost, ...]
    neck: Cost
    classifier: Cost

    @property
    def total(self) -> Cost:
        """The cost of the whole chain."""
        parts = (self.stem, *self.blocks, self.neck, self.classifier)
        return Cost(sum(part.flops for part in parts), sum(part.parameters for part in parts))


def module_flops(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-adds of a module on one input of this shape, given without the batch axis.

    The module must take one tensor; it is counted on a meta copy and is neither run nor changed.
    """
    return _run(meta_copy(module), torch.empty(1, *input_shape, device="meta"))[1]


def parameters(module: nn.Module) -> int:
    """How many numbers the parameters hold: each parameter once, frozen ones too, no buffers."""
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

    Raises UserError for an image that is too small for the backbone.
    """
    if image_size < 1:
        raise UserError(f"image size {image_size}: expected a number of pixels, at least 1")
    copy = meta_copy(chain)
    node = torch.empty(1, chain.example[0], image_size, image_size, device="meta")
    try:
        node, stem = _measure(copy.stem, node)
        blocks = []
        for block in copy.blocks:
            node, cost = _measure(block, node)
            blocks.append(cost)
        features, neck = _measure(copy.neck, node)
        _, classifier = _measure(copy.classifier, features)
    except RuntimeError as error:
        stride = max(spec.stride for spec in node_specs(chain))
        if image_size >= stride:
            raise
        raise UserError(
            f"image size {image_size} is too small for this backbone, whose nodes are up to "
            f"{stride} times smaller than the image: use at least {stride} pixels"
        ) from error
    return ChainCosts(stem, tuple(blocks), neck, classifier)


def check_image_size(chain: Backbone, image_size: int) -> None:
    """Raise UserError where a backbone, or proxies beside it, cannot work at this image size.

    A proxy pools to ceil(size / stride); a backbone that rounds down instead fits only sizes that
    its strides divide.
    """
    chain_costs(chain, image_size)
    specs = node_specs(chain)
    with torch.no_grad():
        nodes = meta_copy(chain).nodes(torch.empty(1, 3, image_size, image_size, device="meta"))
    if any(
        node.shape[2] != -(-image_size // spec.stride)
        for node, spec in zip(nodes, specs, strict=True)
    ):
        stride = max(spec.stride for spec in specs)
        nearest = max(stride, round(image_size / stride) * stride)
        raise UserError(
            f"image size {image_size}: this backbone needs a multiple of {stride} pixels, such as "
            f"{nearest}"
        )


def _measure(part: nn.Module, sample: Tensor) -> tuple[Tensor, Cost]:
    output, flops = _run(part, sample)
    return output, Cost(flops, parameters(part))


def _run(part: nn.Module, sample: Tensor) -> tuple[Tensor, int]:
    """A meta module's output and its multiply-adds: torch counts each of them as two."""
    part.requires_grad_(False)  # the counter follows gradients, and fails on a parameter as input
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output: Tensor = part(sample)
    return output, counter.get_total_flops() // 2
