"""Any network as a chain: stem, blocks, neck and classifier, found by tracing.

The parts are made of the network's own modules, which keep their tensors and what they do in
training. A part that is more than one module calls them in a `torch.fx.GraphModule`.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from nettailor.core.errors import UserError
from nettailor.core.meta import Quick, meta_copy
from nettailor.core.segments import Segment, Tangle, segments, tangles
from nettailor.core.trace import BATCHES, trace, value_of

_BY_HAND = "give its parts by hand as Backbone(stem, blocks, head)"
_OUTPUT = "its output"
# Sides of square images, tried in turn where nobody says which a network takes.
_SIDES = (256, 224, 288, 384, 448, 128, 64, 32, 28)


class Chain(NamedTuple):
    """A network in parts. stages: of each block; a new one begins where its output's shape changes.

    example: channels, height and width of its images. shapes: of the nodes before, between and
    behind the blocks, without the batch. flops: multiply-adds of each block on one image; total:
    of all.
    """

    stem: nn.Module
    blocks: list[nn.Module]
    neck: nn.Module
    classifier: nn.Module
    stages: tuple[int, ...]
    example: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    flops: tuple[int, ...]
    total: int

    @property
    def skippable(self) -> tuple[bool, ...]:
        """Of each block, whether its input and output have one shape."""
        return tuple(one == other for one, other in pairwise(self.shapes))


def chain_of(network: nn.Module, example: Sequence[int] | None = None) -> Chain:
    """Takes a network apart; its modules are moved, not copied.

    example: channels, height and width of its images; None: as its own configuration says.

    Raises UserError where the network takes no such images, gives no logits (B, classes), cannot
    be traced, or is no chain of at least two blocks.
    """
    for module in network.modules():
        if getattr(module, "inplace", False) is True:  # several paths read a node
            module.inplace = False  # type: ignore[assignment]
    copy = _bare_copy(network)
    shape = _example(copy, example)
    try:
        graph, found = _graph(copy, shape)
    except UserError as error:
        raise _refusal(copy.eval(), shape) or error from error
    blocks = _blocks(found)
    if len(blocks) < 2:
        why = "it is one block"
        if tangled := tangles_of(network, shape):
            most = max(tangled, key=lambda one: one.flops)
            why = f"from {most.first} to {most.last} it needs several values at once"
        raise UserError(f"{type(network).__name__} is no chain of blocks: {why}; {_BY_HAND}")
    nodes, result = list(graph.nodes), _result(graph)
    images, first, last = nodes[0], blocks[0].source, blocks[-1].target
    classifier, features = _classifier(copy, result)
    between = nodes[nodes.index(last) + 1 : nodes.index(features) + 1]
    behind = nodes[nodes.index(features) + 1 : nodes.index(result) + 1]
    neck: nn.Module = nn.Identity()
    if classifier is None:
        behind = [*between, *behind]
    elif between:
        neck = _module(network, last, between)
    ends = [first, *(block.target for block in blocks)]
    shapes = tuple((value_of(node).shape or ())[1:] for node in ends)
    return Chain(
        _module(network, images, nodes[1 : nodes.index(first) + 1]),
        [_module(network, block.source, block.nodes) for block in blocks],
        neck,
        network.get_submodule(classifier) if classifier else _module(network, last, behind),
        tuple(accumulate((one != other for one, other in pairwise(shapes[1:])), initial=0)),
        shape,
        shapes,
        tuple(block.flops for block in blocks),
        sum(value_of(node).flops for node in nodes[:-1]),
    )


def tangles_of(network: nn.Module, example: Sequence[int]) -> list[Tangle]:
    """Where a network needs several values of its images (C, H, W) at once; it stays as it is."""
    copy = _bare_copy(network)
    return tangles(trace(copy, example, BATCHES[0], lambda name: False), copy)


def _bare_copy(network: nn.Module) -> nn.Module:
    """A copy on the meta device, without gradients and work in place."""
    copy = meta_copy(network).requires_grad_(False)
    for module in copy.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):  # neither a parameter nor a buffer
                setattr(module, name, value.to("meta"))
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    return copy


def _example(copy: nn.Module, given: Sequence[int] | None) -> tuple[int, ...]:
    """The images (C, H, W) that a meta copy takes: given, its own or the first that it runs on."""
    if given is not None:
        return tuple(given)
    sizes = _sizes(copy)
    if getattr(copy, "pretrained_cfg", None):
        return sizes[0]
    return next((size for size in sizes if _failure(copy, size) is None), (3, _SIDES[0], _SIDES[0]))


def _sizes(copy: nn.Module) -> list[tuple[int, ...]]:
    """Images that a network may take: those that it was made for, of its configuration, others."""
    config = getattr(copy, "pretrained_cfg", None)
    first = next((part.in_channels for part in copy.modules() if isinstance(part, nn.Conv2d)), 3)
    channels, *sides = config["input_size"] if config else (first,)
    found = [(channels, *sides)] if config else []
    for part in copy.modules():
        size = getattr(part, "img_size", None) or getattr(part, "image_size", None)
        made_for = (size, size) if isinstance(size, int) else size
        if isinstance(made_for, tuple | list) and len(made_for) == 2:
            found.insert(0, (channels, *made_for))
            break
    found += [(channels, side, side) for side in _SIDES]
    return found if channels == 3 else found + [(3, side, side) for side in _SIDES]


def _refusal(copy: nn.Module, shape: Sequence[int]) -> UserError | None:
    """What is wrong where a network does not even run on these images."""
    failure = _failure(copy, shape)
    if failure is None:
        return None
    name = type(copy).__name__
    for size in _sizes(copy):
        other = _failure(copy, size)
        if other is None:
            return UserError(
                f"{name} does not take images of {tuple(shape)} (channels, height, width): "
                f"{failure}; it takes {size}: give an example of that size"
            )
        if other.startswith(_OUTPUT):  # no size helps
            shape, failure = size, other
            break
    return UserError(f"{name}: for images {tuple(shape)} {failure}; {_BY_HAND}")


def _failure(copy: nn.Module, shape: Sequence[int]) -> str | None:
    """Why a network gives no logits for images of a shape, or None."""
    try:
        with torch.no_grad(), Quick():
            logits = copy(torch.empty(2, *shape, device="meta"))
    # a network fails in any way on what it does not take
    except Exception as error:
        return f"it fails with {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        return f"{_OUTPUT} is {found}, expected logits (B, classes)"
    return None


def _graph(copy: nn.Module, shape: Sequence[int]) -> tuple[fx.Graph, list[Segment]]:
    """The calls that hold in both modes and for any number of images, and the segments in them."""
    closed: set[str] = set()
    whole = trace(copy, shape, BATCHES[0], closed.__contains__)
    _, opened = segments(whole, copy)
    # the task has a linear layer of its own in the place of the last one
    opened.update(value_of(_result(whole)).owners if _classifier(copy, _result(whole))[0] else ())
    while True:

        def is_leaf(name: str) -> bool:
            return name not in opened or name in closed

        graph = trace(copy.eval(), shape, BATCHES[0], is_leaf)
        training = trace(copy.train(), shape, BATCHES[1], is_leaf)
        owner = _difference(graph, training)
        copy.eval()
        if owner is None:
            return graph, segments(graph, copy)[0]
        if not owner:
            same = _difference(graph, trace(copy, shape, BATCHES[1], is_leaf)) is None
            when = "in training mode" if same else "for another number of images"
            raise UserError(
                f"{type(copy).__name__} makes other calls {when}, outside its layers; {_BY_HAND}"
            )
        closed.add(owner)


def _difference(one: fx.Graph, other: fx.Graph) -> str | None:
    """The module that makes the first call in which two graphs differ; "": the network itself."""
    pairs = zip(one.nodes, other.nodes, strict=False)
    for mine, theirs in pairs:
        calls = [(node.op, node.target, node.args, node.kwargs) for node in (mine, theirs)]
        if repr(calls[0]) != repr(calls[1]):
            owners = [value_of(node).owners for node in (mine, theirs) if node.op != "output"]
            return next((names[-1] for names in owners if names), "")
    return None


def _result(graph: fx.Graph) -> fx.Node:
    """The logits (B, classes); UserError where the output is something else."""
    (result,) = graph.output_node().args
    shape = value_of(result).shape if isinstance(result, fx.Node) else None
    if not isinstance(result, fx.Node) or shape is None or len(shape) != 2:
        raise UserError(f"the output is {shape or type(result)}, expected logits (B, classes)")
    return result


def _blocks(found: Sequence[Segment]) -> list[Segment]:
    """The segments between stem and neck.

    The stem ends before the first segment of several layers that can be skipped or that follows
    the first layer; where there is none, after the first layer. After the last block come single
    layers that cannot be skipped.
    """
    costly = [number for number, one in enumerate(found) if one.flops]
    if not costly:
        return []
    start = costly[0] + 1
    if any(one.compound and one.skippable for one in found):
        while not found[start].compound:
            start += 1
    ends = [
        number + 1
        for number, one in enumerate(found)
        if one.flops and (one.compound or one.skippable)
    ]
    return list(found[start : ends[-1]]) if ends else []


def _classifier(copy: nn.Module, result: fx.Node) -> tuple[str | None, fx.Node]:
    """The name of the linear layer that gives the logits, and the features that it reads.

    Without one the logits in the place of the features.
    """
    node = result
    while node.op == "call_module" and len(node.args) == 1 and not node.kwargs:
        module = copy.get_submodule(str(node.target))
        (source,) = node.args
        if not isinstance(source, fx.Node):
            break
        if isinstance(module, nn.Linear):
            return str(node.target), source
        if not isinstance(module, nn.Identity):
            break
        node = source
    return None, result


def _module(network: nn.Module, source: fx.Node, nodes: Sequence[fx.Node]) -> nn.Module:
    """What computes the last node from the source: the one module that is called, or a graph."""
    nodes = [node for node in nodes if value_of(node).of_image and "batch" not in node.meta]
    match nodes:
        case []:
            return nn.Identity()
        case [fx.Node(op="call_module", args=(only,), kwargs={}) as node] if (
            only is source and not node.kwargs
        ):
            return network.get_submodule(str(node.target))
    graph = fx.Graph()
    images = next(iter(source.graph.nodes))
    placeholder = graph.placeholder("x")
    made = {images: placeholder, source: placeholder}
    for node in _with_constants(source, nodes):
        made[node] = graph.node_copy(node, made.__getitem__)
        made[node].meta.clear()
    graph.output(made[nodes[-1]])
    return fx.GraphModule(network, graph, class_name="Segment")


def _with_constants(source: fx.Node, nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """The nodes and all that they need which does not depend on the images, in order."""
    images = next(iter(source.graph.nodes))
    wanted = set(nodes)
    pending = list(nodes)
    writers = [node for node in source.graph.nodes if node.meta.get("writes")]
    while pending:
        needed = {one for node in pending for one in node.all_input_nodes}
        needed |= {
            node
            for node in writers
            if not value_of(node).of_image and any(one in wanted for one in node.all_input_nodes)
        }
        pending = list(needed - wanted - {source, images})
        wanted.update(pending)
    return [node for node in source.graph.nodes if node in wanted]
