"""What a network costs by how many channels it keeps, and the best widths within a budget."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from nettailor.core.cost import parameters
from nettailor.prune.attention import TABLE
from nettailor.prune.items import FIXED, Channels, Family, Layer
from nettailor.prune.knapsack import Options, exact

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# (n, layers) output channels and (n, layers) input channels -> (n,) costs
Price = Callable[[Floats, Floats], Floats]

_STEPS = 20_000  # of the whole network's cost; an option's is rounded to one of them
_ROUNDS = 6  # of a new linearisation, at most


class Costs:
    """The cost of a network as a function of how many items of each family it keeps.

    Costs of convolutions are products of their in- and output channels, so families have no cost of
    their own; see `best_widths`.
    """

    def __init__(
        self, channels: Channels, layers: Sequence[Layer], price: Price, *, rest: float = 0.0
    ) -> None:
        """Count.

        Args:
            channels: of the network.
            layers: whose channels the price is of.
            price: the cost of many networks at once.
            rest: what the network costs beside its layers.
        """
        families = channels.families
        self._price = price
        self._rest = rest
        self._out, self._fixed_out = _counters(families, [layer.out for layer in layers])
        none = np.array([FIXED])  # one channel that stays: a factor of 1
        reads = [none if layer.read is None else layer.read for layer in layers]
        self._read, self._fixed_read = _counters(families, reads)

    def of(self, counts: NDArray[np.int64]) -> Floats:
        """The cost of networks that keep (n, families) items: shape (n,)."""
        rows = counts.astype(float)
        out, read = rows @ self._out + self._fixed_out, rows @ self._read + self._fixed_read
        return self._price(out, read) + self._rest


def count_flops(channels: Channels) -> Costs:
    """Multiply-adds on one image, as `nettailor.core.cost.module_flops` counts them."""
    each = [layer.weights * layer.positions for layer in channels.layers]
    return _products(channels, channels.layers, each, whole=channels.flops)


def count_parameters(channels: Channels, network: nn.Module) -> Costs:
    """Parameters of a network, as `nettailor.core.cost.parameters` counts them."""
    sizes = {name: tensor.shape for name, tensor in network.named_parameters()}
    layers = [layer for layer in channels.layers if layer.name not in channels.heads]
    weights = {f"{layer.name}.weight" for layer in layers}
    vectors = [
        Layer(name, items, None, 1, 1, ())
        for (name, _), items in channels.places.items()
        if name in sizes and name not in weights
    ]
    tables = [
        Layer(name, items, None, sizes[f"{name}.{TABLE}"][0], 1, ())
        for name, items in channels.heads.items()
        if f"{name}.{TABLE}" in sizes
    ]
    layers += vectors + tables
    each = [layer.weights for layer in layers]
    return _products(channels, layers, each, whole=parameters(network))


def _products(
    channels: Channels, layers: Sequence[Layer], factors: Sequence[int], *, whole: int
) -> Costs:
    """Costs that are products of the layers' channels; whole: of the network with all of them.

    Where the layers cost more, branches are fused when it is deployed: each counts for less.
    """
    each = np.array(factors, dtype=float)

    def price(out: Floats, read: Floats) -> Floats:
        total: Floats = (each * out * read).sum(axis=1)
        return total

    most = np.array([[len(family.items) for family in channels.families]])
    counted = float(Costs(channels, layers, price).of(most)[0])
    each *= min(whole / counted, 1.0)
    return Costs(channels, layers, price, rest=max(whole - counted, 0.0))


def _counters(families: Sequence[Family], places: Sequence[Ints]) -> tuple[Floats, Floats]:
    """Matrix (families, places) of channels an item has there, and the channels that stay."""
    family_of = np.full(sum(len(family.items) for family in families) + 1, FIXED)
    for number, family in enumerate(families):
        family_of[family.items] = number
    counters, fixed = np.zeros((len(families), len(places))), np.zeros(len(places))
    for column, items in enumerate(places):
        fixed[column] = (items == FIXED).sum()
        for number, channels in zip(
            *np.unique(family_of[items[items != FIXED]], return_counts=True), strict=True
        ):
            counters[number, column] = channels / len(families[number].items)
    return counters, fixed


class Ranges(NamedTuple):
    """How many items each family may keep: rising numbers, the last one all of them."""

    counts: tuple[Ints, ...]

    @property
    def least(self) -> Ints:
        """The fewest."""
        return np.array([counts[0] for counts in self.counts])

    @property
    def most(self) -> Ints:
        """All."""
        return np.array([counts[-1] for counts in self.counts])


def allowed(families: Sequence[Family], round_to: int) -> Ranges:
    """What may be kept: at least one channel at every place, and `round_to` of them or a multiple.

    A family may vanish where a larger one shares all of its places. All of a family may always
    stay, whatever its number.
    """
    largest: dict[int, tuple[int, int]] = {}
    for number, family in enumerate(families):
        for place, channels in family.places.items():
            size = channels * len(family.items)
            largest[place] = max(largest.get(place, (0, 0)), (size, -number))
    needed = {-number for _, number in largest.values()}
    counts = []
    for number, family in enumerate(families):
        step = math.lcm(*(round_to // math.gcd(round_to, each) for each in family.places.values()))
        some = np.arange(step, len(family.items), step)
        ends = [0] if number not in needed else []
        counts.append(np.array([*ends, *some, len(family.items)]))
    return Ranges(tuple(counts))


def best_widths(values: Sequence[Floats], costs: Costs, ranges: Ranges, budget: float) -> Ints:
    """How many items of each family to keep: the most value found within a hard budget.

    A knapsack needs costs that add up; a network's do not. Family f is therefore given the cost
    C_f(n) = C(n items of f, all others as they are), linear in n for FLOPs and parameters, taken at
    the whole network first and then at the widths that were found before, up to six times. Each
    time the knapsack's own budget is bisected until the cost of the network itself meets `budget`;
    what is left is spent on whatever fits.

    Args:
        values: of each family's items, falling.
        costs: of the network.
        ranges: what may be kept.
        budget: at least the cost of `ranges.least`.

    Returns:
        Counts, shape (families,).

    Raises:
        ValueError: the budget is below that.
    """
    sums = [np.concatenate([[0.0], np.cumsum(worth)]) for worth in values]

    def value(counts: Ints) -> float:
        return sum(float(total[count]) for total, count in zip(sums, counts, strict=True))

    if _one(costs, ranges.least) > budget:
        raise ValueError(f"nothing costs {budget:g} or less")
    best, seen = ranges.least, set()
    around = ranges.most
    for _ in range(_ROUNDS):
        found = _solve(sums, costs, ranges, budget, around)
        found = _spend(sums, costs, ranges, budget, found)
        if value(found) > value(best):
            best = found
        if tuple(found) in seen:
            break
        seen.add(tuple(found))
        around = found
    return best


def _one(costs: Costs, counts: Ints) -> float:
    return float(costs.of(counts[None])[0])


def _solve(
    sums: Sequence[Floats],
    costs: Costs,
    ranges: Ranges,
    budget: float,
    around: Ints,
) -> Ints:
    """The knapsack with costs as they are around some widths, its budget bisected."""
    tables = []
    for family, counts in enumerate(ranges.counts):
        rows = np.repeat(around[None], len(counts), axis=0)
        rows[:, family] = counts
        tables.append(np.maximum.accumulate(costs.of(rows)))
    whole = sum(table[-1] - table[0] for table in tables)
    steps = _STEPS / whole if whole else 0.0
    options = [
        Options(total[counts], np.rint((table - table[0]) * steps).astype(np.int64))
        for total, counts, table in zip(sums, ranges.counts, tables, strict=True)
    ]
    affordable = exact(options)

    def counts_for(knapsack: int) -> Ints:
        chosen = affordable(knapsack)
        return np.array(
            [counts[option] for counts, option in zip(ranges.counts, chosen, strict=True)]
        )

    low, high = 0, sum(int(one.costs[-1]) for one in options)
    if _one(costs, counts_for(high)) <= budget:
        return counts_for(high)
    while high - low > 1:
        middle = (low + high) // 2
        if _one(costs, counts_for(middle)) <= budget:
            low = middle
        else:
            high = middle
    found = counts_for(low)
    # with nothing to spend, the solver may still take what costs nothing by the rounded table
    return found if _one(costs, found) <= budget else ranges.least


def _spend(
    sums: Sequence[Floats], costs: Costs, ranges: Ranges, budget: float, counts: Ints
) -> Ints:
    """Take one more option of a family, that of most value per cost, as long as one fits."""
    counts = counts.copy()
    while True:
        places = [
            int(np.searchsorted(allowed_counts, count)) + 1
            for allowed_counts, count in zip(ranges.counts, counts, strict=True)
        ]
        families = [f for f, place in enumerate(places) if place < len(ranges.counts[f])]
        if not families:
            return counts
        rows = np.repeat(counts[None], len(families), axis=0)
        for row, family in enumerate(families):
            rows[row, family] = ranges.counts[family][places[family]]
        prices = costs.of(rows)
        gains = [
            sums[family][rows[row, family]] - sums[family][counts[family]]
            for row, family in enumerate(families)
        ]
        more = np.maximum(prices - _one(costs, counts), 1e-12)
        fits = prices <= budget
        if not fits.any():
            return counts
        density = np.where(fits, np.array(gains) / more, -np.inf)
        counts = rows[int(density.argmax())]
