"""A network as a chain of blocks between a stem and a head, whose every node can be read."""

from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from copy import deepcopy
from functools import partial
from io import StringIO
from itertools import accumulate, pairwise
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nettailor.core.classification import logits_of
from nettailor.core.errors import REFUSALS, UserError
from nettailor.core.families import data_defaults, make_network
from nettailor.core.layout import NodeSpec, Seen, channel_axis_of, specs_of
from nettailor.core.meta import copy_with
from nettailor.core.meta import meta_copy as meta_copy
from nettailor.core.parts import Family, Parts, own_parts, take_apart

# A power of two that every supported stride (2 to 32) divides.
_PROBE = (3, 256, 256)


class NetOutput(NamedTuple):
    """What a network computes for B images.

    logits: (B, classes).
    nodes: x_0 … x_L, each in its layout; None where a cut network has no such node any more.
    """

    logits: Tensor
    nodes: list[Tensor | None]


class Backbone(nn.Module):
    """A network as stem, blocks G_1 … G_L, neck and classifier.

    Node x_0 is the stem's output and x_l = act_l(G_l(x_{l-1})). The neck is what is universal
    after the last block, global pooling included; it gives the classifier (B, features).
    The activations never work in place, so that a node's sum can be read after them.

        Backbone(network)                # any, see `parts.take_apart`
        Backbone(stem, blocks, head)     # anybody's: images -> stem -> blocks -> head -> logits

    Attributes:
        family: the kind of network. stages: for each block, the stage it belongs to, from 0.
        example: channels, height and width of the images that it is measured with.
        channels_last: whether it works in that memory order, see `device.place`.
    """

    def __init__(
        self,
        network: nn.Module | Parts,
        blocks: Sequence[nn.Module] | None = None,
        head: nn.Module | None = None,
        *,
        example: Tensor | None = None,
    ) -> None:
        """Copies the network: it stays as it is. Of `Parts` the modules themselves are taken.

        Args:
            network: a whole one; or the stem, where blocks and head are given.
            blocks: from node to node, each (B, C, H, W), (B, H, W, C) or (B, N, C).
            head: from the last node to logits (B, classes).
            example: images (B, C, S, S) as it reads them; None: as a whole network's own
                configuration says, else (1, 3, 256, 256).

        Raises:
            UserError: the network cannot be taken apart, see `chain.chain_of`, or the parts do not
                fit the example's images.
        """
        super().__init__()
        checked = not isinstance(network, Parts)
        told = None if example is None else tuple(example.shape[1:])
        if isinstance(network, Parts):
            parts = network
        elif blocks is None or head is None:
            if blocks is not None or head is not None:
                raise UserError("Backbone: give a network, or all of stem, blocks and head")
            parts = take_apart(deepcopy(network), told)
        else:
            parts = own_parts(*deepcopy((network, list(blocks), head)))
        self.example = told or parts.example or _PROBE
        self.family: Family = parts.family
        self.stem = parts.stem
        self.blocks = nn.ModuleList(parts.blocks)
        self.activations = nn.ModuleList(parts.activations)
        self.neck = parts.neck
        self.classifier = parts.classifier
        self.stages = parts.stages
        self._resting: tuple[nn.Module, ...] = ()
        self.channels_last = True
        if checked:
            _out_of_place(self)
            specs = _require_chain(self)
            if blocks is not None:
                self.stages = _stages(specs)
        if self.family == "own":
            self.channels_last = _takes_channels_last(self)

    def freeze(self, parts: Sequence[nn.Module], *, statistics: bool) -> None:
        """Stop parts of the chain from training; what stays of all parameters belongs to the task.

        Args:
            parts: such as the stem and the blocks.
            statistics: the running statistics of their batch norms stay as well; otherwise they
                follow the task.
        """
        for part in parts:
            part.requires_grad_(False)
        if statistics:
            self._resting = tuple(parts)

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for parts whose statistics stay."""
        super().train(mode)
        for part in self._resting:
            part.eval()
        return self

    def nodes(self, images: Tensor) -> list[Tensor]:
        """x_0 … x_L, each in its layout, for images (B, 3, S, S)."""
        nodes: list[Tensor] = [self.stem(images if self.channels_last else images.contiguous())]
        for block, activation in zip(self.blocks, self.activations, strict=True):
            nodes.append(activation(block(nodes[-1])))
        return nodes

    def forward(self, images: Tensor) -> NetOutput:
        """The logits (B, classes) and every node for images (B, 3, S, S)."""
        nodes = self.nodes(images)
        return NetOutput(logits_of(self.classifier, self.neck(nodes[-1])), [*nodes])

    @property
    def classes(self) -> int:
        """How many logits an image has."""
        if isinstance(self.classifier, nn.Linear):
            return self.classifier.out_features
        with torch.no_grad():
            return int(meta_copy(self)(_empty(self)).logits.shape[1])


def head_activation(chain: Backbone) -> nn.Module:
    """The activation after the head's convolution; the chain is one of inverted residuals.

    ReLU6 where the backbone has no such convolution.
    """
    named: dict[str, nn.Module] = dict(chain.neck.named_modules())
    for name in ("bn2.act", "norm_head.act", "act2"):
        if not isinstance(named.get(name, nn.Identity()), nn.Identity):
            return named[name]
    return nn.ReLU6()


def backbone_of(network: nn.Module, image_size: int | None = None) -> Backbone:
    """The network's own modules as a backbone, not copied: do not use the network afterwards.

    image_size: the side of its images in pixels; None: as its configuration says.

    Raises UserError as `Backbone` does.
    """
    return Backbone(take_apart(network, (3, image_size, image_size) if image_size else None))


def create_backbone(name: str, classes: int, image_size: int | None = None) -> Backbone:
    """The network of this name with random weights; UserError as in `make_network`, `Backbone`."""
    try:
        return backbone_of(make_network(name, classes, image_size), image_size)
    except UserError as error:
        usual = data_defaults(name).image_size
        if image_size in (None, usual):
            raise
        backbone_of(make_network(name, classes))  # what is refused there is refused at any size
        raise UserError(
            f"backbone {name!r} does not work on images of {image_size}×{image_size} pixels, those "
            f"of its weights have {usual}×{usual}: give that image size"
        ) from error


def node_specs(chain: Backbone) -> tuple[NodeSpec, ...]:
    """Channels, stride and layout of the L + 1 nodes x_0 … x_L; UserError as in `specs_of`."""
    side = chain.example[1]

    def at_twice() -> list[Seen] | None:
        with suppress(UserError, *REFUSALS), redirect_stderr(StringIO()):  # traced modules print
            return _seen(chain, 2 * side)
        return None

    return specs_of(side, _seen(chain, side), at_twice)


def _seen(chain: Backbone, side: int) -> list[Seen]:
    """The nodes of two images of this side, and which axis their readers take for the channels."""
    copy = meta_copy(chain)
    read: list[tuple[Tensor, int]] = []  # the tensors are kept, so that none is taken for another

    def note(axis: int, module: nn.Module, args: tuple[object, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            read.append((args[0], axis % args[0].ndim))

    for module in copy.modules():
        if axis := channel_axis_of(module):
            module.register_forward_pre_hook(partial(note, axis))
    with torch.no_grad():
        nodes = copy.nodes(torch.empty(2, chain.example[0], side, side, device="meta"))
        copy.classifier(copy.neck(nodes[-1]))
    for number, node in enumerate(nodes):
        if len(node) != 2:
            raise UserError(
                f"Backbone: node {number} is {tuple(node.shape)} for two images: expected one "
                "row of the first axis for each image"
            )
    readers = [next((axis for x, axis in read if x is node), None) for node in nodes]
    if readers[-1] is None and isinstance(chain.classifier, nn.Linear):
        features = chain.classifier.in_features
        alike = [axis for axis in range(1, node.ndim) if node.shape[axis] == features]
        readers[-1] = alike[0] if len(alike) == 1 else None
    return [Seen(tuple(node.shape), axis) for node, axis in zip(nodes, readers, strict=True)]


def _empty(chain: Backbone) -> Tensor:
    return torch.empty(1, *chain.example, device="meta")


def _takes_channels_last(chain: Backbone) -> bool:
    """Whether no `view` of the network's own asks for the other order; nothing is computed."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def ordered(tensor: Tensor) -> Tensor:
        copied = fake.from_tensor(tensor)
        return copied.to(memory_format=torch.channels_last) if copied.ndim == 4 else copied

    copy = copy_with(chain, ordered)
    with fake, torch.no_grad(), suppress(*REFUSALS), redirect_stderr(StringIO()):
        images = torch.empty(2, *chain.example, device=next(copy.parameters()).device)
        copy(images.contiguous(memory_format=torch.channels_last))
        return True
    return False


def _stages(specs: Sequence[NodeSpec]) -> tuple[int, ...]:
    """The stage of each block: a new one begins where a block changes channels or resolution."""
    changes = (one != other for one, other in pairwise(specs[1:]))
    return tuple(accumulate(changes, initial=0))


def _out_of_place(network: nn.Module) -> None:
    """Activations give new tensors: several paths read a node."""
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]


def _require_chain(chain: Backbone) -> tuple[NodeSpec, ...]:
    """The nodes; UserError where the parts do not follow each other from images to logits."""
    copy, where = meta_copy(chain), "the stem"
    _, height, width = chain.example
    if height != width:
        raise UserError(
            f"Backbone: the example's images are {height}×{width}: expected square images; "
            "give another example"
        )
    try:
        with torch.no_grad():
            node = copy.stem(_empty(chain))
            for number, block in enumerate(copy.blocks, 1):
                _require_node(node, where)
                where = f"block {number}"
                node = block(node)
            _require_node(node, where)
            where = "the head"
            logits = copy.classifier(copy.neck(node))
    except REFUSALS as error:
        raise UserError(
            f"Backbone: {where} does not take what comes before it, for images of "
            f"{tuple(chain.example)}: {error}"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        raise UserError(f"Backbone: the head gives {_shape(logits)}, expected logits (B, classes)")
    return node_specs(chain)


def _require_node(node: object, where: str) -> None:
    if not isinstance(node, Tensor) or node.ndim not in (3, 4) or len(node) != 1:
        raise UserError(
            f"Backbone: {where} gives {_shape(node)}, expected a tensor (B, C, H, W), "
            "(B, H, W, C) or (B, N, C)"
        )


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"
