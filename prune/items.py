"""The channels of a network as items: what stays or goes together."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
FIXED = -1  # the item of a channel that has to stay
ATTENTION = "attention of another class"  # what a layer does whose heads cannot go


class Layer(NamedTuple):
    """A convolution or a linear layer as the pass saw it, or the products of an attention layer.

    name: of the module. out: the item of each output channel. read: the item of each input
    channel; None where the input's channels are not chosen apart from the outputs': in a grouped
    convolution. weights: numbers that each output channel takes of each input channel, or, where
    `read` is None, of all. positions: outputs per channel. sides: height and width of its input;
    of a linear layer how many rows an image has, nothing where that is one.

    Of the products QKᵀ and AV the outputs are the heads, weights the multiply-adds of one, and
    sides the windows of an image, the tokens of a window and the width of a head.
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
        heads: for each attention layer whose heads can go, by name, the item of each head.
        stays: by name, layers that do what is not followed, and the operator: the channels that
            they read or give stay.
        flops: multiply-adds of the whole network on one image.
    """

    places: Mapping[tuple[str, int], Ints]
    layers: tuple[Layer, ...]
    nodes: tuple[Ints | None, ...]
    count: int
    heads: Mapping[str, Ints]
    stays: Mapping[str, str]
    flops: int

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
