"""A network as a graph of calls: of its own modules, and of torch's functions between them.

The network runs on the meta device while every call is written down. Python sees tensors and plain
numbers, so that control flow on shapes and optional inputs work as they do in a run. The batch is
of a prime number of images: a number that is a multiple of it was computed from the batch.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from inspect import signature
from types import MethodDescriptorType, WrapperDescriptorType
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from nettailor.core.errors import UserError
from nettailor.core.meta import MultiplyAdds, Quick

# No network has a multiple of these for a number of channels or tokens.
BATCHES = (1009, 1013)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Value(NamedTuple):
    """What is known of a node of the graph (`value_of`).

    shape: of the tensor, with the batch of the trace; None where the value is no tensor.
    of_image: whether it depends on the images. intact: whether nothing wrote into it afterwards.
    flops: multiply-adds on one image since the node before. owners: the opened modules that were
    running, by name, the outermost first.
    """

    shape: tuple[int, ...] | None
    of_image: bool
    intact: bool
    flops: int
    owners: tuple[str, ...]


class _OpaqueError(Exception):
    """A call that cannot be written down; the module that makes it can be called as a whole."""


def value_of(node: fx.Node) -> Value:
    """What the trace found out about a node."""
    return cast(Value, node.meta["value"])


def trace(
    network: nn.Module, example: Sequence[int], batch: int, is_leaf: Callable[[str], bool]
) -> fx.Graph:
    """The calls of a network on the meta device, for a batch of images of `example` (C, H, W).

    is_leaf: whether a module, by name, is called as a whole. So are those of torch.nn, those
    without children, and all of a class of which one makes calls that cannot be written down.

    Raises UserError where that is the network itself.
    """
    closed: set[type] = set()
    while True:
        recorder = _Recorder(network, batch, closed, is_leaf)
        images = torch.empty(batch, *example, device="meta")
        try:
            return recorder.run(images)
        # what a network does, and how it fails on what is no tensor of values, is its own
        except Exception as error:
            if not recorder.owners:
                reason = " ".join(str(error).split())[:200]
                raise UserError(
                    f"{type(network).__name__} cannot be traced: {type(error).__name__}: {reason}; "
                    "give its parts by hand as Backbone(stem, blocks, head)"
                ) from error
            closed.add(type(network.get_submodule(recorder.owners[-1])))


class _Recorder(Quick):
    """Writes down the calls of one run."""

    def __init__(
        self, network: nn.Module, batch: int, closed: set[type], is_leaf: Callable[[str], bool]
    ) -> None:
        super().__init__()
        self.network, self.batch, self.closed, self.is_leaf = network, batch, closed, is_leaf
        self.graph = fx.Graph()
        self.owners: list[str] = []
        self.names = {id(module): name for name, module in network.named_modules()}
        self.tensors = {
            id(tensor): name
            for named in (network.named_parameters(), network.named_buffers())
            for name, tensor in named
        }
        # the tensors are kept, or their ids would be given to others
        self.nodes: dict[int, tuple[Tensor, fx.Node]] = {}
        self.results: dict[fx.Node, tuple[Tensor, int]] = {}
        self.scalars: dict[object, fx.Node] = {}
        self.depth = 0  # of calls inside one that is written down as a whole
        self.counted = 0

    def run(self, images: Tensor) -> fx.Graph:
        """The graph of a run on images (B, C, H, W) of the meta device."""
        self.images = self._node("placeholder", "images")
        self._bind(images, self.images)
        self.counter = MultiplyAdds()  # type: ignore[no-untyped-call]
        _, *modules = self.network.modules()
        hooks = [one.register_forward_pre_hook(self._enter, with_kwargs=True) for one in modules]
        hooks += [one.register_forward_hook(self._leave, with_kwargs=True) for one in modules]
        try:
            with torch.no_grad(), self.counter, self:
                output = self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        self._node("output", "output", (self._argument(output),))
        for node, (tensor, version) in self.results.items():
            value = value_of(node)
            node.meta["value"] = value._replace(intact=tensor._version == version)
        return self.graph

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self.depth:
            return super().__torch_function__(func, types, args, kwargs)
        if func is torch._C._set_grad_enabled:
            raise _OpaqueError("it switches gradients")
        before = [(t, t._version) for t in _tensors((args, kwargs))]
        output = super().__torch_function__(func, types, args, kwargs)
        written = any(tensor._version != version for tensor, version in before)
        if not written and not _tensors(output):
            return output
        kind, target, given = _call_of(func, args)
        given, named = self._argument(given), self._argument(kwargs)
        node = self._node(kind, target, *self._with_mode(func, given, named))
        node.meta["writes"] = written
        if not written:
            output = self._apart(output, [tensor for tensor, _ in before])
        self._bind(output, node)
        return output

    def _with_mode(
        self, func: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a function is told of the mode, such as dropout, it is told in every run anew."""
        position, mode = _place_of_mode(func), self.network.training
        if position is not None and given[position : position + 1] == (mode,):
            given = (*given[:position], self._scalar("training"), *given[position + 1 :])
        elif position is not None and named.get("training") is mode:
            named = {**named, "training": self._scalar("training")}
        return given, named

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.depth:
            self.depth += 1
            return
        name = self.names[id(module)]
        bare = type(module).__module__.startswith("torch.nn.") or not any(module.children())
        bare = bare and not isinstance(module, _CONTAINERS)
        if bare or self.is_leaf(name) or type(module) in self.closed:
            self.depth = 1
            self.given = self._argument(args), self._argument(kwargs)
        else:
            self.owners.append(name)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if not self.depth:
            self.owners.pop()
            return output
        if self.depth > 1:
            self.depth -= 1
            return output
        node = self._node("call_module", self.names[id(module)], *self.given)
        output = self._apart(output, _tensors((args, kwargs)))
        self._bind(output, node)
        self.depth = 0
        return output

    def _apart(self, output: Any, inputs: list[Tensor]) -> Any:
        """The output, which may be an input itself, as an object of its own."""
        if isinstance(output, Tensor) and any(output is one for one in inputs):
            self.depth += 1
            output = output.view_as(output)
            self.depth -= 1
        return output

    def _node(
        self, kind: str, target: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> fx.Node:
        node = self.graph.create_node(kind, target, args, kwargs or {})
        of_image = kind == "placeholder" or any(
            value_of(one).of_image and "batch" not in one.meta for one in node.all_input_nodes
        )
        flops = 0
        if kind != "placeholder":
            total = self.counter.total
            flops, self.counted = (total - self.counted) // self.batch, total
        node.meta["value"] = Value(None, of_image, True, flops, tuple(self.owners))
        return node

    def _bind(self, output: Any, node: fx.Node) -> None:
        if isinstance(output, Tensor):
            self.nodes[id(output)] = output, node
            self.results[node] = output, output._version
            node.meta["value"] = value_of(node)._replace(shape=tuple(output.shape))
        elif isinstance(output, list | tuple):
            for position, item in enumerate(output):
                if _tensors(item):
                    self._bind(
                        item, self._node("call_function", operator.getitem, (node, position))
                    )
        elif isinstance(output, dict):
            for key, item in output.items():
                if _tensors(item):
                    self._bind(item, self._node("call_function", operator.getitem, (node, key)))
        elif output is not None and not isinstance(output, int | float | str):
            raise _OpaqueError(f"it gives a {type(output).__name__}")

    def _argument(self, value: Any) -> Any:
        """What stands for a value in the graph."""
        if isinstance(value, Tensor):
            return self._node_of(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(self._argument(item) for item in value))
        if isinstance(value, list | tuple):
            kind = list if isinstance(value, list) else tuple
            return kind(self._argument(item) for item in value)
        if isinstance(value, dict):
            return {key: self._argument(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(*(self._argument(x) for x in (value.start, value.stop, value.step)))
        if type(value) is int and value and value % self.batch == 0:
            return self._scalar(value // self.batch)
        if isinstance(value, torch.device) and value.type == "meta":
            return self._scalar("device")
        plain = (int, float, complex, str, torch.dtype, torch.device, torch.layout)
        if value is None or value is ... or isinstance(value, (*plain, torch.memory_format)):
            return value
        raise _OpaqueError(f"it passes a {type(value).__name__}")

    def _scalar(self, what: int | str) -> fx.Node:
        """A multiple of the number of images, their device, or the mode: no tensor."""
        if what not in self.scalars:
            if what == "training":
                node = self._node("get_attr", "training")
            elif what == "device":
                node = self._node("call_function", getattr, (self.images, "device"))
            elif what == 1:
                node = self._node("call_method", "size", (self.images, 0))
            else:
                node = self._node("call_function", operator.mul, (self._scalar(1), what))
            node.meta["batch"] = True
            self.scalars[what] = node
        return self.scalars[what]

    def _node_of(self, tensor: Tensor) -> fx.Node:
        if id(tensor) not in self.nodes:
            if id(tensor) not in self.tensors:
                raise _OpaqueError("it reads a tensor of unknown origin")
            self._bind(tensor, self._node("get_attr", self.tensors[id(tensor)]))
        return self.nodes[id(tensor)][1]


@cache
def _place_of_mode(func: Callable[..., Any]) -> int | None:
    """The position of the argument `training` of a function of torch's."""
    if getattr(func, "__module__", None) != F.__name__:
        return None
    names = list(signature(func).parameters)
    return names.index("training") if "training" in names else None


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _call_of(func: Callable[..., Any], args: tuple[Any, ...]) -> tuple[str, Any, tuple[Any, ...]]:
    """How a graph calls what torch was asked for: kind of node, target, arguments."""
    name = func.__name__
    if name == "__get__":  # a property, such as x.T
        return "call_function", getattr, (args[0], cast(Any, func).__self__.__name__)
    if name in ("__getitem__", "__setitem__"):
        return "call_function", getattr(operator, name.strip("_")), args
    written_in_python = getattr(func, "__module__", None) == "torch._tensor"  # such as **, `pow`
    if written_in_python or isinstance(func, MethodDescriptorType | WrapperDescriptorType):
        return "call_method", name, args
    return "call_function", func, args


def image_nodes(graph: fx.Graph) -> Iterator[fx.Node]:
    """The nodes whose values depend on the images, in the order of the calls."""
    return (node for node in graph.nodes if value_of(node).of_image and "batch" not in node.meta)
