"""Where a traced network can be cut: the values alone through which the images reach the logits.

A *cut point* is a value after which no other value that depends on the images is still needed.
Between two of them lies a segment; where its ends have one shape, the identity can stand in for it.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise
from math import prod
from typing import NamedTuple

from torch import fx, nn

from nettailor.core.trace import image_nodes, value_of

# Segments with less of the multiply-adds are a part of a neighbour.
_CHEAP = 0.001
# A module is opened for segments that hold so much of its multiply-adds and can be skipped: those
# of several layers, or all together. Where it can be skipped as a whole, there are two of several
# layers, the second so large beside the first. A `Sequential` is also opened for two of several
# layers that cannot be skipped, and for any that can be where it holds half of what the network
# does before it pools.
_WORTH, _WORTH_SINGLE, _SECOND = 0.25, 0.5, 0.1
_SUMS = ("add", "iadd", "radd")


Span = tuple[int, int]  # numbers of the cut points before and at the end


class Segment(NamedTuple):
    """Calls from one cut point to the next.

    nodes: of the graph, the last of them the segment's output. source: its input. flops:
    multiply-adds on one image. skippable: whether input and output have one shape. compound:
    whether it holds several layers with weights.
    """

    source: fx.Node
    nodes: tuple[fx.Node, ...]
    flops: int
    skippable: bool
    compound: bool

    @property
    def target(self) -> fx.Node:
        """The segment's output."""
        return self.nodes[-1]


def segments(graph: fx.Graph, network: nn.Module) -> tuple[list[Segment], set[str]]:
    """The segments of a traced network up to its last cut point, and the modules to look into.

    A module is one segment, or a part of one, unless what can be skipped within is worth it.
    """
    search = _Search(graph, network)
    bounds = search.within(0, 0, len(search.nodes) - 1)
    found = []
    for start, end in pairwise([0, *bounds]):
        nodes = tuple(search.nodes[start + 1 : end + 1])
        found.append(
            Segment(
                search.nodes[start],
                nodes,
                search.flops(start, end),
                search.skippable(start, end),
                search.compound(start, end),
            )
        )
    return found, search.opened


class Tangle(NamedTuple):
    """A stretch of calls during which several values of the images are needed at once.

    first, last: the layer from which on a second value is needed, and the one that ends it.
    sums: how often values are added or concatenated, once in a residual block. flops:
    multiply-adds on one image.
    """

    first: str
    last: str
    sums: int
    flops: int


def tangles(graph: fx.Graph, network: nn.Module) -> list[Tangle]:
    """The stretches between neighbouring cut points in which there is a second value."""
    search = _Search(graph, network)
    found = []
    for start, end in pairwise(sorted({0, *search.cuts, len(search.nodes) - 1})):
        several = [number for number in range(start, end) if search.alive[number] > 1]
        if several:
            sums = sum(_joins(node) for node in search.nodes[start + 1 : end + 1])
            first, last = (_layer(search.nodes[number]) for number in (several[0], end))
            found.append(Tangle(first, last, sums, search.flops(start, end)))
    return found


def _joins(node: fx.Node) -> bool:
    """Whether a call adds or concatenates values of the images."""
    terms = sum(value_of(one).of_image for one in node.all_input_nodes)
    return terms > 1 and _name_of(node) in (*_SUMS, "cat", "concat")


def _layer(node: fx.Node) -> str:
    """The module that a call is, or that makes it."""
    if node.op == "output":
        return "the logits"
    owners = value_of(node).owners
    return str(node.target) if node.op == "call_module" else (owners[-1] if owners else node.name)


def _name_of(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).strip("_")


def _weighty(node: fx.Node, network: nn.Module) -> int:
    """How many layers with weights a call makes use of; a sum of values counts as one."""
    if max((value_of(node).shape or (0, 0, 0))[2:], default=0) == 1:
        return 0  # of pooled values, such as squeeze-and-excitation
    if node.op != "call_module":
        weights = sum(one.op == "get_attr" for one in node.all_input_nodes)
        return int(_joins(node)) if _name_of(node) in _SUMS else weights
    return sum(
        any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
        for module in network.get_submodule(str(node.target)).modules()
    )


def _relays(before: fx.Node, node: fx.Node) -> bool:
    """Whether a node has its input's numbers in another shape, such as tokens for an image."""
    one, other = value_of(before).shape, value_of(node).shape
    return bool(one and other and one != other and prod(one) == prod(other)) and (
        before in node.all_input_nodes and value_of(node).flops == 0
    )


class _Search:
    """The values of the images in order, which of them are cut points, and what lies between."""

    def __init__(self, graph: fx.Graph, network: nn.Module) -> None:
        self.nodes = nodes = list(image_nodes(graph))
        self.network = network
        self.opened: set[str] = set()
        place = {node: number for number, node in enumerate(nodes)}
        last = [max((place.get(user, 0) for user in node.users), default=0) for node in nodes]
        ends = [0] * (len(nodes) + 1)
        self.alive: list[int] = []  # values still needed after each node
        self.cuts: set[int] = set()
        needed = 0
        batch = (value_of(nodes[0]).shape or (0,))[0]
        for number, node in enumerate(nodes):
            needed -= ends[number]
            if last[number] > number:
                needed += 1
                ends[last[number]] += 1
            self.alive.append(needed)
            value = value_of(node)
            if needed == 1 and last[number] > number and value.intact and number:
                shape = value.shape or ()
                if 2 < len(shape) < 5 and shape[0] == batch and max(shape[1:]) < prod(shape[1:]):
                    self.cuts.add(number)
        # of several changes of the layout in a row only the last gives a node
        changes = [False, *(_relays(*pair) for pair in pairwise(nodes))]
        between = {n for n, (one, other) in enumerate(pairwise(changes)) if one and other}
        self.cuts -= {number for number in between if len(nodes[number].users) == 1}
        self.sums, self.layers = [0], [0]
        for node in nodes:
            self.sums.append(self.sums[-1] + value_of(node).flops)
            self.layers.append(self.layers[-1] + _weighty(node, network))
        self.cheap = _CHEAP * self.sums[-1]
        values = map(value_of, nodes)
        self.placed = sum(value.flops for value in values if len(value.shape or ()) > 2)

    def flops(self, start: int, end: int) -> int:
        """Multiply-adds after one node up to another, that one included."""
        return self.sums[end + 1] - self.sums[start + 1]

    def compound(self, start: int, end: int) -> bool:
        """Whether several layers with weights lie after one node up to another."""
        return self.layers[end + 1] - self.layers[start + 1] > 1

    def skippable(self, start: int, end: int) -> bool:
        """Whether two cut points have one shape."""
        return value_of(self.nodes[start]).shape == value_of(self.nodes[end]).shape

    def within(self, depth: int, first: int, last: int) -> list[int]:
        """The cut points to be used from node `first` to `last`, all of which an owner made."""
        bounds: list[int] = []
        numbers = range(first, last + 1)
        for name, run in groupby(numbers, lambda number: self._owner(number, depth)):
            of_module = list(run)
            if name is None:
                bounds += [number for number in of_module if number in self.cuts]
                continue
            start, end = of_module[0], of_module[-1]
            inner = [bound for bound in self.within(depth + 1, start, end) if bound != end]
            if inner and self._worth(name, bounds[-1] if bounds else start - 1, inner, end):
                self.opened.add(name)
                bounds += inner
            if end in self.cuts:
                bounds.append(end)
        if depth:
            # cheap segments at the start of a module may belong to what comes before
            head = [bound for bound in bounds if self.flops(first - 1, bound) <= self.cheap]
            head = head if first - 1 in self.cuts else []
            return [*head, *self._merged([first - 1, *head][-1], bounds[len(head) :])]
        ends = [end for start, end in pairwise([0, *bounds]) if self.flops(start, end) > self.cheap]
        tail = [bound for bound in bounds if ends and bound > ends[-1]]
        return [*self._merged(0, bounds[: len(bounds) - len(tail)]), *tail]

    def _owner(self, number: int, depth: int) -> str | None:
        owners = value_of(self.nodes[number]).owners
        return owners[depth] if depth < len(owners) else None

    def _worth(self, name: str, start: int, inner: Sequence[int], end: int) -> bool:
        """Whether a module from one node to another is opened for the cut points inside it."""
        whole = self.flops(start, end)
        spans = list(pairwise([start, *inner, end]))
        skips = [span for span in spans if self.skippable(*span)]
        parts = [self.flops(*span) for span in skips]
        if start in self.cuts and self.skippable(start, end):
            parts = sorted(self.flops(*span) for span in skips if self.compound(*span))
            return len(parts) > 1 and parts[-2] >= _SECOND * parts[-1] > 0
        blocks = sum(self.flops(*span) for span in skips if self.compound(*span))
        if whole and (blocks >= _WORTH * whole or sum(parts) >= _WORTH_SINGLE * whole):
            return True
        if not isinstance(self.network.get_submodule(name), nn.Sequential):
            return False
        most = whole >= _WORTH_SINGLE * self.placed
        return sum(self.compound(*span) for span in spans) > 1 or (most and sum(parts) > self.cheap)

    def _merged(self, start: int, bounds: Sequence[int]) -> list[int]:
        """Without the cut points that part cheap segments from their neighbours.

        What keeps the shape joins what comes before, else what follows; what changes it joins a
        neighbour that changes it as well, and stays alone where there is none.
        """
        while True:
            spans = self._returning(list(pairwise([start, *bounds])))
            merged: list[Span] = []
            for number, span in enumerate(spans):
                if merged and self._joins(merged[-1], span, spans[number + 1 :]):
                    merged[-1] = merged[-1][0], span[1]
                else:
                    merged.append(span)
            if len(merged) == len(bounds):
                return [end for _, end in merged]
            bounds = [end for _, end in merged]

    def _returning(self, spans: list[Span]) -> list[Span]:
        """With a change of shape, one segment and the change back as one."""
        number = 0
        while number + 2 < len(spans):
            (one, _), inner, (_, other) = spans[number : number + 3]
            if (
                self._cheap_change(spans[number])
                and self._cheap_change(spans[number + 2])
                and self.skippable(*inner)
                and self.skippable(one, other)
            ):
                spans[number : number + 3] = [(one, other)]
            number += 1
        return spans

    def _cheap_change(self, span: Span) -> bool:
        return self.flops(*span) <= self.cheap and not self.skippable(*span)

    def _joins(self, before: Span, span: Span, following: Sequence[Span]) -> bool:
        """Whether a span becomes one with the one before it."""
        cheap, before_cheap = (self.flops(*pair) <= self.cheap for pair in (span, before))
        if before_cheap and (self.skippable(*before) or not self.skippable(*span)):
            return True
        if not cheap:
            return False
        if self.skippable(*span):
            return True
        changes_next = bool(following) and not self.skippable(*following[0])
        return not self.skippable(*before) and not changes_next
