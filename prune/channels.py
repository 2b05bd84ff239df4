"""Which channels of a network go together: one traced pass; what it cannot follow stays."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from timm.layers import GluMlp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.module_tracker import ModuleTracker

from nettailor.core.backbone import NetOutput, meta_copy
from nettailor.core.cost import module_flops
from nettailor.core.errors import UserError
from nettailor.prune.attention import TABLE, head_tensors, heads_of
from nettailor.prune.items import ATTENTION, FIXED, Channels, Ints, Layer
from nettailor.prune.operators import Seen, passed

_IMAGES = 2  # in the traced batch: 1 could be mistaken for a channel


def trace_channels(network: nn.Module, image_size: int) -> Channels:
    """Find the channels of a network that go together.

    One pass over a meta copy follows every operator: channels that meet in a sum, a product (as in
    squeeze-and-excitation), a batch norm or a depthwise convolution are one item, and so are all
    that enter and leave a group of a grouped convolution, and those of a head of an attention layer
    of a known class. What meets an operator that is not followed has to stay, and so have the
    images' channels and what linear layers called `classifier` give.

    Args:
        network: a `Backbone` or a `Student`, for its logits and nodes; neither run nor changed.
        image_size: side of the input in pixels.

    Raises:
        UserError: nothing can go; it names the first layer that is not followed.
    """
    flops = module_flops(meta_copy(network).float(), (3, image_size, image_size))
    copy = meta_copy(network).eval()
    dtype = next(copy.parameters()).dtype
    images = torch.empty(_IMAGES, 3, image_size, image_size, dtype=dtype, device="meta")
    trace = _Trace(copy, images)
    with torch.no_grad(), trace.tracker, trace:
        output = copy(images)
    channels = trace.solve(output, flops)
    if not channels.count:
        seen = channels.stays.items()
        why = [f"its layer {one} does {what!r}, which is not followed, and " for one, what in seen]
        raise UserError(
            f"the channels of this network cannot be grouped: {''.join(why[:1])}none are left that "
            "can go; give a ResNet, an EfficientNet, a MobileNet or a vision transformer of timm"
        )
    return channels


class _Trace(TorchDispatchMode):
    """Follows channels through operators.

    Every channel of every parameter has a number, its slot, and so has every head; slot 0 is what
    has to stay. A tensor in the pass carries the slots of its channels; where two meet, an edge
    ties them.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tracker = ModuleTracker()
        self._network = network
        self._root = type(network).__name__
        self._slots = 1
        self._places: dict[tuple[str, int], Ints] = {}
        self._edges: list[tuple[Ints, Ints]] = []
        self._layers: list[Layer] = []  # with slots for items
        self._seen: dict[Tensor, Seen] = {}
        self._of_images = {images}  # every tensor that depends on them
        self._weights: dict[Tensor, tuple[str, Tensor]] = {}  # names; also of what transposes them
        self._heads: dict[str, Ints] = {}  # slots, by attention layer
        self._products: dict[str, Layer] = {}  # by attention layer
        self._stays: dict[str, str] = {}
        for name, module in network.named_modules():
            if heads := heads_of(module):
                self._attention(name, module, heads)
            if not isinstance(module, nn.Conv2d | nn.Linear | _BatchNorm):
                continue
            for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers()):
                if tensor.ndim == 1:
                    self._seen[tensor] = Seen(self._place(f"{name}.{key}", 0, len(tensor)), 0)
                elif tensor.ndim > 1:
                    self._weights[tensor] = f"{name}.{key}", tensor
                    fixed = name.rpartition(".")[2] == "classifier"
                    self._place(f"{name}.{key}", 0, 0 if fixed else len(tensor))

    def _attention(self, name: str, module: nn.Module, heads: int) -> None:
        """One slot for each head, in all tensors that hold it."""
        self._heads[name] = slots = np.arange(self._slots, self._slots + heads)
        self._slots += heads
        for key, (dim, of_head) in head_tensors(module).items():
            if key != TABLE:  # a column for each head, which says nothing of its width
                self._places[f"{name}.{key}", dim] = slots[of_head]
        module.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True)

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
        """Heads stay where another module gives the layer a tensor that has a part for each."""
        heads, given = self._heads[name], tree_leaves((args[1:], kwargs))
        windows = hasattr(module, "window_area")  # their masks are (windows, tokens, tokens)
        parts = [one.shape[-3] for one in given if isinstance(one, Tensor) and one.ndim > 2]
        if len(heads) in parts and len(heads) > 1 and not windows:
            self._edges.append((heads, np.zeros_like(heads)))
            self._stays[name] = "addition of a tensor for each head"

    def _place(self, name: str, dim: int, channels: int) -> Ints:
        if (name, dim) in self._places:
            return self._places[name, dim]
        slots = np.arange(self._slots, self._slots + channels)
        self._slots += channels
        if channels:
            self._places[name, dim] = slots
        return slots

    def _stay(self, operator: str, tensors: Sequence[Tensor]) -> None:
        """All channels of these tensors have to stay."""
        for tensor in tensors:
            tied = [self._seen[tensor].slots] if tensor in self._seen else []
            if tensor in self._weights:
                name, weight = self._weights[tensor]
                tied = [self._place(name, dim, weight.shape[dim]) for dim in (0, 1)]
            self._edges += [(slots, np.zeros_like(slots)) for slots in tied]
        self._stays.setdefault(self._at_work or "the network itself", operator)

    @property
    def _halves(self) -> bool:
        """Whether what splits asks for halves; elsewhere it may ask for a number of channels."""
        return isinstance(self._network.get_submodule(self._at_work), GluMlp)

    @property
    def _at_work(self) -> str:
        # the deepest of the modules that are at work has the longest name
        name = max(self.tracker.parents - {"Global"}, key=len, default=self._root)
        return name.partition(".")[2]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        operator = func._schema.name.removeprefix("aten::").removesuffix("_")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if any(one in self._of_images for one in tensors):
            self._of_images.update(results)
        if operator == "bmm":
            self._product(*args)
        if not any(one in self._seen or one in self._weights for one in tensors):
            return result
        if operator == "t" and args[0] in self._weights:
            self._weights[result] = self._weights[args[0]]
        elif not self._follow(operator, args, tensors, results):
            self._stay(operator, tensors)
        return result

    def _follow(
        self,
        operator: str,
        args: tuple[Any, ...],
        tensors: Sequence[Tensor],
        results: Sequence[Tensor],
    ) -> bool:
        """Note what an operator does to the channels; False where that is not known."""
        out = results[0]
        if operator == "convolution":
            return self._convolution(args, out)
        if operator in ("addmm", "mm"):
            *bias, x, weight = args
            rows = len(x) // _IMAGES
            sides = (rows,) if rows > 1 else ()
            return self._layer(x, weight, bias[0] if bias else None, out, sides)
        if any(one in self._weights for one in tensors):
            return False
        if operator == "constant_pad_nd" and args[0] in self._seen:
            return self._pad(args, out)
        if operator.startswith("split") and out.ndim > 1 and not self._halves:
            return False
        found = passed(operator, args, tensors, results, self._seen)
        if found is None:
            return False
        self._edges += found.ties
        self._seen.update(zip(results, found.results, strict=False))  # of a norm only the first
        return True

    def _product(self, one: Tensor, other: Tensor) -> None:
        """Count a matrix product of an attention layer: that of all its heads."""
        working = {name.partition(".")[2] for name in self.tracker.parents}
        if not working & self._heads.keys():
            self._stays[self._at_work or "the network itself"] = ATTENTION
        for name in working & self._heads.keys():
            slots = self._heads[name]
            windows = len(one) // (_IMAGES * len(slots))
            before = self._products.get(name, Layer(name, slots, None, 0, 1, ()))
            flops = before.weights + windows * one[0].numel() * other.shape[2]
            # the last product is AV
            sides = (windows, *other.shape[1:])
            self._products[name] = before._replace(weights=flops, sides=sides)

    def _convolution(self, args: tuple[Any, ...], out: Tensor) -> bool:
        x, weight, bias, *_, transposed, _, groups = args
        seen = self._seen.get(x)
        if weight not in self._weights or transposed or (groups > 1 and seen is None):
            return False
        if groups > 1 and seen:
            # a group goes as a whole: all that enters it and leaves it is tied to its first output
            made = self._places[self._weights[weight][0], 0]
            firsts = rearrange(made, "(g c) -> g c", g=groups)[:, 0]
            for tied in (seen.slots, made):
                self._edges.append((repeat(firsts, "g -> (g c)", c=len(tied) // groups), tied))
        return self._layer(x, weight, bias, out, tuple(x.shape[2:]), grouped=groups > 1)

    def _layer(
        self,
        x: Tensor,
        tensor: Tensor,
        bias: Tensor | None,
        out: Tensor,
        sides: tuple[int, ...],
        *,
        grouped: bool = False,
    ) -> bool:
        """Note a layer; grouped: its inputs are not chosen by themselves."""
        seen = self._seen.get(x)
        if tensor not in self._weights or x not in self._of_images or (seen and seen.axis != 1):
            return False
        name, weight = self._weights[tensor]
        owner = name.rpartition(".")[0]
        attention = owner.rpartition(".")[0] in self._heads
        gives_heads = attention and not owner.endswith(".proj")
        if seen and f"{self._root}.{owner}" not in self.tracker.parents:
            return False  # what a channel is worth is measured where its own module reads it
        if not (bias is None or bias in self._seen or gives_heads):
            return False
        fixed = (name, 0) not in self._places
        made = np.zeros(len(weight), np.int64) if fixed else self._places[name, 0]
        read, weights = None, weight[0].numel()
        if not grouped:
            read, weights = self._place(name, 1, weight.shape[1]), weight[0, 0].numel()
            if seen or not attention or gives_heads:
                self._edges.append((read, seen.slots if seen else np.zeros_like(read)))
        if bias in self._seen:
            self._edges.append((self._seen[bias].slots, made))
        positions = out.numel() // (_IMAGES * out.shape[1])
        self._layers.append(Layer(owner, made, read, weights, positions, sides))
        if not fixed and not gives_heads:
            self._seen[out] = Seen(made, 1)
        return True

    def _pad(self, args: tuple[Any, ...], out: Tensor) -> bool:
        x, widths, *_ = args
        slots, axis = self._seen[x]
        before, after = (*widths, 0, 0, 0, 0, 0, 0)[4:6]
        if axis != 1 or x.ndim != 4:
            return False
        if before or after:
            # channels of zeros, such as follow an identity; only the student itself can have fewer
            if before or self.tracker.parents - {"Global", self._root}:
                return False
            zeros = self._place(f"zeros {len(self._places)}", 0, after)
            slots = np.concatenate([slots, zeros])
        self._seen[out] = Seen(slots, axis)
        return True

    def solve(self, output: NetOutput, flops: int) -> Channels:
        """The items: what the edges tie together."""
        nodes = [None if node is None else self._seen.get(node) for node in output.nodes]
        if logits := self._seen.get(output.logits):
            self._edges.append((logits.slots, np.zeros_like(logits.slots)))
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
                for one in (*self._layers, *self._products.values())
            ),
            nodes=tuple(None if one is None else item[one.slots] for one in nodes),
            count=len(order) - 1,
            heads={name: item[slots] for name, slots in self._heads.items()},
            stays=self._stays,
            flops=flops,
        )
