"""Which channels of a network go together: found in one traced pass, exact or refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.module_tracker import ModuleTracker

from nettailor.core.backbone import meta_copy
from nettailor.core.errors import UserError

Ints = NDArray[np.int64]
FIXED = -1  # the item of a channel that has to stay

_IMAGES = 2  # in the traced batch: 1 could be mistaken for a channel
# each value of the result depends on the values at its own channel only, in all operands
_BY_CHANNEL = frozenset({
    "add", "sub", "mul", "div", "relu", "hardtanh", "silu", "sigmoid", "hardswish", "hardsigmoid",
    "gelu", "elu", "leaky_relu", "tanh", "clamp", "clamp_min", "clamp_max", "mish", "softplus",
    "exp", "clone", "detach", "alias", "copy", "_to_copy", "avg_pool2d", "_adaptive_avg_pool2d",
    "max_pool2d_with_indices", "adaptive_max_pool2d", "native_batch_norm", "cudnn_batch_norm",
    "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_batch_norm_no_update",
})  # fmt: skip
_RESHAPES = frozenset({"mean", "view", "_unsafe_view", "reshape", "flatten"})


class Layer(NamedTuple):
    """A convolution or a linear layer as the pass saw it.

    name: of the module. out: the item of each output channel. read: the item of each input
    channel; None where the input's channels are not chosen apart from the outputs': in a grouped
    convolution, and where the layer reads the images. weights: numbers that each output channel
    takes of each input channel, or, where `read` is None, of all. positions: outputs per channel.
    sides: height and width of its input; nothing for a linear layer.
    """

    name: str
    out: Ints
    read: Ints | None
    weights: int
    positions: int
    sides: tuple[int, ...]


class Family(NamedTuple):
    """Items that are in the same places of a network, so that only their number has a cost.

    items: sorted. places: for each place (a tensor's dimension), how many channels an item has.
    """

    items: Ints
    places: Mapping[int, int]


@dataclass(frozen=True)
class Channels:
    """The channels of a network as items: those of one item stay or go together.

    Attributes:
        places: for each (tensor name, dimension) of the network's state that has channels, the
            item of each of its channels, `FIXED` for those that have to stay.
        layers: the convolutions and linear layers, in the order of the pass.
        nodes: the item of each channel of each node; None where there is no such node.
        count: how many items there are; they are numbered from 0.
    """

    places: Mapping[tuple[str, int], Ints]
    layers: tuple[Layer, ...]
    nodes: tuple[Ints | None, ...]
    count: int

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The items by the places that they are in."""
        of_item: list[dict[int, int]] = [{} for _ in range(self.count)]
        for place, items in enumerate(self.places.values()):
            for item, channels in zip(*np.unique(items, return_counts=True), strict=True):
                if item != FIXED:
                    of_item[item][place] = int(channels)
        members: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for item, places in enumerate(of_item):
            members.setdefault(tuple(places.items()), []).append(item)
        return tuple(Family(np.array(items), dict(places)) for places, items in members.items())


def trace_channels(network: nn.Module, image_size: int) -> Channels:
    """Find the channels of a network that go together.

    One pass over a meta copy follows every operator: channels that meet in a sum, a product (as in
    squeeze-and-excitation), a batch norm or a depthwise convolution are one item, and so are all
    that enter and leave a group of a grouped convolution. The images' channels, and what linear
    layers called `classifier` give, have to stay.

    Args:
        network: a `Backbone` or a `Student`, for its logits and nodes; neither run nor changed.
        image_size: side of the input in pixels.

    Raises:
        UserError: names the layer whose operator cannot be followed.
    """
    copy = meta_copy(network)
    dtype = next(copy.parameters()).dtype
    images = torch.empty(_IMAGES, 3, image_size, image_size, dtype=dtype, device="meta")
    trace = _Trace(copy)
    with torch.no_grad(), trace.tracker, trace:
        output = copy(images)
    return trace.solve(output.nodes)


class _Trace(TorchDispatchMode):
    """Follows channels through operators.

    Every channel of every parameter has a number, its slot; slot 0 is what has to stay. A tensor
    in the pass carries the slots of its channels; where two meet, an edge ties them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tracker = ModuleTracker()
        self._root = type(network).__name__
        self._slots = 1
        self._places: dict[tuple[str, int], Ints] = {}
        self._edges: list[tuple[Ints, Ints]] = []
        self._layers: list[Layer] = []  # with slots for items
        self._channels: dict[Tensor, Ints] = {}
        self._weights: dict[Tensor, tuple[str, Tensor]] = {}  # names; also of what transposes them
        for name, module in network.named_modules():
            if not isinstance(module, nn.Conv2d | nn.Linear | _BatchNorm):
                continue
            for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers()):
                if tensor.ndim == 1:
                    self._channels[tensor] = self._place(f"{name}.{key}", 0, len(tensor))
                elif tensor.ndim > 1:
                    self._weights[tensor] = f"{name}.{key}", tensor
                    fixed = name.rpartition(".")[2] == "classifier"
                    self._place(f"{name}.{key}", 0, 0 if fixed else len(tensor))

    def _place(self, name: str, dim: int, channels: int) -> Ints:
        slots = np.arange(self._slots, self._slots + channels)
        self._slots += channels
        if channels:
            self._places[name, dim] = slots
        return slots

    def _stop(self, operator: str) -> UserError:
        # the deepest of the modules that are at work has the longest name
        name = max(self.tracker.parents - {"Global"}, key=len, default=self._root)
        layer = name.partition(".")[2] or "the network itself"
        return UserError(
            f"the channels of this network cannot be grouped: its layer {layer} does "
            f"{operator!r}, which is not followed; give a ResNet, an EfficientNet or a MobileNet "
            "of plain convolutions and batch norms"
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        operator = func._schema.name.removeprefix("aten::").removesuffix("_")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(one in self._channels or one in self._weights for one in tensors):
            return result
        first = result[0] if isinstance(result, list | tuple) else result
        if operator == "convolution":
            self._convolution(args, first)
        elif operator in ("addmm", "mm"):
            self._linear(operator, args, first)
        elif operator == "t" and args[0] in self._weights:
            self._weights[first] = self._weights[args[0]]
        elif any(one in self._weights for one in tensors):
            raise self._stop(operator)
        elif operator in _BY_CHANNEL:
            self._by_channel(operator, tensors, first)
        elif operator in _RESHAPES:
            self._reshape(operator, args[0], first)
        elif operator == "constant_pad_nd":
            self._pad(operator, args, first)
        elif operator == "cat" and first.ndim == 1:
            # the weights of several norms in a row, to be scaled together
            self._channels[first] = np.concatenate([self._channels[one] for one in args[0]])
        elif operator == "split_with_sizes" and args[0].ndim == 1:
            slots = np.split(self._channels[args[0]], np.cumsum(args[1])[:-1])
            self._channels.update(zip(result, slots, strict=True))
        else:
            raise self._stop(operator)
        return result

    def _convolution(self, args: tuple[Any, ...], out: Tensor) -> None:
        x, weight, bias, *_, transposed, _, groups = args
        if weight not in self._weights or transposed or (groups > 1 and x not in self._channels):
            raise self._stop("convolution")
        if groups > 1:
            # a group goes as a whole: all that enters it and leaves it is tied to its first output
            made = self._places[self._weights[weight][0], 0]
            firsts = rearrange(made, "(g c) -> g c", g=groups)[:, 0]
            for tied in (self._channels[x], made):
                self._edges.append((repeat(firsts, "g -> (g c)", c=len(tied) // groups), tied))
        known = self._channels.get(x) if groups == 1 else None
        self._layer(weight, known, bias, out, out[0, 0].numel(), tuple(x.shape[2:]))

    def _linear(self, operator: str, args: tuple[Any, ...], out: Tensor) -> None:
        *bias, x, transposed = args
        if transposed not in self._weights or x in self._weights:
            raise self._stop(operator)
        known = self._channels.get(x)
        self._layer(transposed, known, bias[0] if bias else None, out, 1, ())

    def _layer(
        self,
        tensor: Tensor,
        known: Ints | None,
        bias: Tensor | None,
        out: Tensor,
        positions: int,
        sides: tuple[int, ...],
    ) -> None:
        """Note a layer; `known`: the slots of its input where these are chosen by themselves."""
        name, weight = self._weights[tensor]
        fixed = (name, 0) not in self._places
        made = np.zeros(len(weight), np.int64) if fixed else self._places[name, 0]
        read, weights = None, weight[0].numel()
        if known is not None:
            if (name, 1) not in self._places:
                self._place(name, 1, weight.shape[1])
            read, weights = self._places[name, 1], weight[0, 0].numel()
            self._edges.append((read, known))
        if bias is not None:
            self._edges.append((self._channels[bias], made))
        owner = name.rpartition(".")[0]
        self._layers.append(Layer(owner, made, read, weights, positions, sides))
        if not fixed:
            self._channels[out] = made

    def _by_channel(self, operator: str, tensors: Sequence[Tensor], out: Tensor) -> None:
        known = [self._channels.get(one) for one in tensors]
        slots = next(one for one in known if one is not None)
        for tensor, other in zip(tensors, known, strict=True):
            if other is not None and len(other) == len(slots):
                self._edges.append((slots, other))
            elif other is not None or (tensor.numel() > 1 and out.ndim > 1):
                raise self._stop(operator)
        self._channels[out] = slots

    def _reshape(self, operator: str, x: Tensor, out: Tensor) -> None:
        slots = self._channels[x]
        if x.ndim < 2 or out.ndim < 2 or out.shape[0] != x.shape[0]:
            raise self._stop(operator)
        if out.shape[1] != x.shape[1]:
            if out.ndim > 2 or out.numel() != x.numel():
                raise self._stop(operator)
            # flattened: each channel's positions come one after the other
            slots = np.repeat(slots, x[0, 0].numel())
        self._channels[out] = slots

    def _pad(self, operator: str, args: tuple[Any, ...], out: Tensor) -> None:
        x, widths, *_ = args
        slots = self._channels[x]
        before, after = (*widths, 0, 0, 0, 0, 0, 0)[4:6]
        if before or after:
            # channels of zeros, such as follow an identity; only the student itself can have fewer
            if before or x.ndim != 4 or self.tracker.parents - {"Global", self._root}:
                raise self._stop(operator)
            zeros = self._place(f"zeros {len(self._places)}", 0, after)
            slots = np.concatenate([slots, zeros])
        self._channels[out] = slots

    def solve(self, nodes: Sequence[Tensor | None]) -> Channels:
        """The items: what the edges tie together."""
        ends = [np.concatenate(side) for side in zip(*self._edges, strict=True)]
        graph = coo_array((np.ones(len(ends[0]), bool), tuple(ends)), (self._slots, self._slots))
        _, component = connected_components(graph, directed=False)
        # numbered as they come, so that the numbers do not depend on the library
        named = [slots for (name, _), slots in self._places.items() if not name.startswith("zeros")]
        order: dict[int, int] = {int(component[0]): FIXED}
        for one in component[np.concatenate([*named, *self._places.values()])]:
            order.setdefault(int(one), len(order) - 1)
        item = np.array([order.get(int(one), FIXED) for one in component])
        return Channels(
            places={place: item[slots] for place, slots in self._places.items()},
            layers=tuple(
                one._replace(out=item[one.out], read=None if one.read is None else item[one.read])
                for one in self._layers
            ),
            nodes=tuple(None if node is None else item[self._channels[node]] for node in nodes),
            count=len(order) - 1,
        )
