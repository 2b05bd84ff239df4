"""The layouts of nodes: where the channels are, and the positions in the image.

All that depends on the layout is here. Work on positions is done on maps (B, C, H, W); a
permutation leads there and back, and copies nothing.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import isqrt
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from timm.layers.norm import RmsNorm2dFp32, RmsNormFp32, SimpleNorm2dFp32, SimpleNormFp32
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core.errors import UserError

# which scale the channels of each position by themselves
LAYER_NORMS = (
    nn.LayerNorm, nn.RMSNorm, RmsNorm, RmsNorm2d, RmsNormFp32, RmsNorm2dFp32, SimpleNorm,
    SimpleNorm2d, SimpleNormFp32, SimpleNorm2dFp32,
)  # fmt: skip
Layout = Literal["nchw", "nhwc", "tokens"]
Shape = tuple[int, ...]
Stride = int | Fraction
Windows = tuple[int, int]
Places = tuple[Stride, Layout, int, Windows | None]


class NodeSpec(NamedTuple):
    """A node's channels, its stride in input pixels per position, and how it lies in memory.

    stride: such that ceil(S / stride) is its side for images of side S, as `pool` has it.
    layout: "nchw": (B, C, H, W). "nhwc": (B, H, W, C). "tokens": (B, prefix + H·W, C).
    prefix: tokens before those of the positions, such as a class token and registers.
    windows: H and W of positions that are no map of the image, such as windows and the positions
    in each; the stride is that of a map with as many.
    """

    channels: int
    stride: Stride
    layout: Layout = "nchw"
    prefix: int = 0
    windows: Windows | None = None

    @property
    def places(self) -> Places:
        """All but the channels: nodes that agree in it have their positions in common."""
        return self[1:]

    def leads_to(self, target: "NodeSpec") -> bool:
        """Whether `bring` has a meaning.

        Positions can be pooled and not be made finer; prefix tokens can go and not come.
        """
        if self.windows or target.windows:
            return self.places == target.places
        return target.stride % self.stride == 0 and target.prefix in (0, self.prefix)

    def fits(self, shape: Shape, side: int) -> bool:
        """Whether a node (B, …) of images of this side has the positions that are told here."""
        positions = _positions(shape, self.layout, self.prefix)
        map_side = -(-side // self.stride)
        return positions == (self.windows or (map_side, map_side))


def pool(x: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))."""
    if stride == 1:
        return x
    if stride % 2 and 1 in (x.shape[2] % stride, x.shape[3] % stride):
        x = F.pad(x, (0, 1, 0, 1), value=-torch.inf)  # the last row or column has no window else
    return F.max_pool2d(x, stride + 1, stride, stride // 2)


def bring(x: Tensor, source: NodeSpec, target: NodeSpec) -> Tensor:
    """x_source at the positions of x_target and in its layout, max-pooled; the channels stay."""
    if source.places == target.places:
        return x
    maps = x
    if source.layout == "tokens":
        positions = x[:, source.prefix :].transpose(1, 2)
        side = isqrt(positions.shape[2])
        maps = positions.reshape(*positions.shape[:2], side, side)
    elif source.layout == "nhwc":
        maps = x.permute(0, 3, 1, 2)
    maps = pool(maps, target.stride // source.stride)
    if target.layout == "nchw":
        return maps
    if target.layout == "nhwc":
        return maps.permute(0, 2, 3, 1)
    tokens = maps.flatten(2).transpose(1, 2)
    return torch.cat([x[:, : source.prefix], tokens], dim=1) if target.prefix else tokens


class Brought(nn.Module):
    """`bring` as a module."""

    def __init__(self, source: NodeSpec, target: NodeSpec) -> None:
        super().__init__()
        self.source, self.target = source, target

    def forward(self, x: Tensor) -> Tensor:
        return bring(x, self.source, self.target)


def as_maps(x: Tensor, layout: Layout) -> Tensor:
    """A view (B, C, …, …) with all positions; of tokens (B, C, N, 1), prefix tokens included."""
    if layout == "nchw":
        return x
    return x.permute(0, 3, 1, 2) if layout == "nhwc" else x.transpose(1, 2).unsqueeze(3)


def from_maps(maps: Tensor, layout: Layout) -> Tensor:
    """The inverse of `as_maps`."""
    if layout == "nchw":
        return maps
    return maps.permute(0, 2, 3, 1) if layout == "nhwc" else maps.squeeze(3).transpose(1, 2)


def widen(x: Tensor, missing: int, layout: Layout) -> Tensor:
    """The same with so many channels of zeros after its own."""
    if not missing:
        return x
    return F.pad(x, (0, 0, 0, 0, 0, missing) if layout == "nchw" else (0, missing))


def features_of(x: Tensor, layout: Layout, prefix: int) -> Tensor:
    """(B, C): the mean of a node's positions, without its prefix tokens."""
    positions = x[:, prefix:] if prefix else x
    return positions.mean(dim={"nchw": (2, 3), "nhwc": (1, 2), "tokens": (1,)}[layout])


def channel_axis_of(module: nn.Module) -> int:
    """The axis that a layer takes for the channels of what it reads: 1, -1, or 0 if it has none."""
    if isinstance(module, (nn.Linear, nn.MultiheadAttention, *LAYER_NORMS)):
        # layer norms of (B, C, H, W) are called such as LayerNorm2d in timm and torchvision
        return 1 if "2d" in type(module).__name__ else -1
    return int(isinstance(module, nn.Conv2d | nn.GroupNorm | _BatchNorm))


class Seen(NamedTuple):
    """What a pass showed of a node.

    shape: (B, …). reader: the axis that the first layer which reads the node takes for its
    channels, such as 2 of a layer norm on tokens; None: it is not known.
    """

    shape: Shape
    reader: int | None


def specs_of(
    side: int, nodes: Sequence[Seen], at_twice: Callable[[], Sequence[Seen] | None]
) -> tuple[NodeSpec, ...]:
    """What the shapes of the nodes x_0 … x_L say.

    Args:
        side: of the square images that were seen, in pixels.
        nodes: what was seen.
        at_twice: gives the same for images of twice the side, or None where the network does not
            take them; asked where shapes alone do not tell.

    Raises:
        UserError: it cannot be told where the channels are, or how many tokens have no position.
    """
    readers = {shape: reader for shape, reader in nodes if reader is not None}
    twice = None if all(_plain_axis(node.shape) for node in nodes) else at_twice()
    grown = [None] * len(nodes) if twice is None else [node.shape for node in twice]
    found: list[NodeSpec] = []
    before: tuple[int, Stride] = side, 1  # side and stride of the last map, at first the image
    for number, ((shape, reader), other) in enumerate(zip(nodes, grown, strict=True)):
        name = f"block {number}" if number else "the stem"
        seen = Seen(shape, readers.get(shape) if reader is None else reader)
        layout, axis, prefix = _layout_of(name, seen, other)
        height, width = _positions(shape, layout, prefix)
        if height == width:
            before = height, _stride_of(side, height, *before)
            found.append(NodeSpec(shape[axis], before[1], layout, prefix))
        else:
            stride = -(-side // isqrt(height * width))
            found.append(NodeSpec(shape[axis], stride, layout, prefix, (height, width)))
    return tuple(found)


def _stride_of(image: int, side: int, before: int, stride: Stride) -> Stride:
    """The stride of a map: image / side where that and the one before are whole.

    Else a multiple of the stride before, where pooling leads there.
    """
    times = -(-before // side)
    if (image % side or stride != image // before) and -(-before // times) == side:
        return stride * times
    return Fraction(image, side) if image % side else image // side


def _positions(shape: Shape, layout: Layout, prefix: int) -> tuple[int, int]:
    """Height and width of a node (B, …)."""
    if layout == "tokens":
        side = isqrt(shape[1] - prefix)
        return side, side
    height, width = shape[2:] if layout == "nchw" else shape[1:3]
    return height, width


def _layout_of(name: str, seen: Seen, twice: Shape | None) -> tuple[Layout, int, int]:
    """Layout, axis of the channels and prefix tokens of a node."""
    shape = seen.shape
    axis = _plain_axis(shape) or _grown_axis(shape, twice, seen.reader)
    layouts: dict[tuple[int, int | None], Layout]
    layouts = {(4, 1): "nchw", (4, 3): "nhwc", (3, 2): "tokens"}
    layout = layouts.get((len(shape), axis))
    if layout is None or axis is None:
        found = "it cannot be told which axis" if axis is None else f"axis {axis}"
        raise UserError(
            f"Backbone: {name} gives {shape}, where {found} holds the channels: expected "
            "(B, C, H, W), (B, H, W, C) or (B, N, C), read by a norm, a convolution or a linear "
            "layer; cut the blocks elsewhere"
        )
    prefix = 0
    if layout == "tokens":
        told = _prefix(shape[1], None if twice is None else twice[1])
        if told is None:
            raise UserError(
                f"Backbone: {name} gives {shape[1]} tokens, and {twice and twice[1]} for images of "
                "twice the side: expected prefix tokens and a square of positions"
            )
        prefix = told
    return layout, axis, prefix


def _plain_axis(shape: Shape) -> int | None:
    """The axis of the channels where it is seen at once: the two others are a square."""
    if len(shape) == 4:
        _, one, other, last = shape
        if one != other == last:
            return 1
        if one == other != last:
            return 3
    return None


def _grown_axis(shape: Shape, twice: Shape | None, reader: int | None) -> int | None:
    """The axis that does not grow with the image; where it is not the only one, the reader's."""
    if twice is not None and len(twice) == len(shape):
        still = [axis for axis in range(1, len(shape)) if shape[axis] == twice[axis]]
        if len(still) <= 1:
            return still[0] if still else None
    return reader


def _prefix(tokens: int, twice: int | None) -> int | None:
    """How many tokens stand before a square, as few as fit images of both sizes."""
    for side in range(isqrt(tokens), 0, -1):
        prefix = tokens - side**2
        if twice is None or twice == tokens:
            return prefix
        others = isqrt(max(0, twice - prefix))
        if others // 2 == side and others**2 == twice - prefix:
            return prefix
    return None
