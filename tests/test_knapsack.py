"""The solver, in plain numbers, and the widths that they lead to."""

import itertools

import numpy as np
import pytest
from conftest import lively_chain
from hypothesis import given, settings
from hypothesis import strategies as st

from nettailor.core.backbone import Backbone
from nettailor.core.cost import module_flops, parameters
from nettailor.prune.channels import trace_channels
from nettailor.prune.items import Channels, Family
from nettailor.prune.knapsack import Options, exact
from nettailor.prune.narrow import narrow
from nettailor.prune.widths import allowed, best_widths, count_flops, count_parameters


def options(values: list[float], costs: list[int]) -> Options:
    return Options(np.array(values, dtype=float), np.array(costs))


def value_and_cost(families: list[Options], chosen: list[int]) -> tuple[float, int]:
    return (
        sum(float(one.values[option]) for one, option in zip(families, chosen, strict=True)),
        sum(int(one.costs[option]) for one, option in zip(families, chosen, strict=True)),
    )


def test_a_dense_step_does_not_mislead() -> None:
    families = [options([0, 3], [0, 2]), options([0, 5], [0, 4])]
    # 1.5 a unit first, and 1.25 would not fit any more
    assert exact(families)(4) == [0, 1]
    assert exact(families)(5) == [0, 1]
    assert exact(families)(6) == [1, 1]
    assert exact(families)(100) == [1, 1]


def test_the_least_is_always_kept() -> None:
    families = [options([2, 4], [0, 2]), options([1, 2], [0, 1])]
    assert exact(families)(0) == [0, 0]
    assert exact(families)(1) == [0, 1]
    assert exact(families)(2) == [1, 0]


def test_counts_are_multiples_at_every_place() -> None:
    """Items of two channels here and three there: by 6 there have to be 3 × 2 and 2 × 3."""
    family = Family(np.arange(24), {0: 2, 1: 3})
    assert allowed([family], 6).counts[0].tolist() == [6, 12, 18, 24]
    assert allowed([Family(np.arange(7), {0: 1, 1: 4})], 4).counts[0].tolist() == [4, 7]


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Options], int]:
    families = []
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, 4))
        values = np.cumsum(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)))
        costs = np.cumsum(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)))
        families.append(Options(values.astype(float), costs - costs[0]))
    return families, draw(st.integers(0, 60))


@settings(deadline=None, max_examples=300)
@given(problems())
def test_what_trying_everything_finds(
    problem: tuple[list[Options], int],
) -> None:
    families, budget = problem
    every = itertools.product(*(range(len(one.values)) for one in families))
    found = [value_and_cost(families, list(chosen)) for chosen in every]
    best = max(value for value, cost in found if cost <= budget)
    value, cost = value_and_cost(families, exact(families)(budget))
    assert cost <= budget
    assert value == best


def problem_of(chain: Backbone) -> tuple[Channels, list[np.ndarray], list[np.ndarray]]:
    """Channels, and items of each family by falling value, with the values."""
    channels = trace_channels(chain, 32)
    worth = np.random.default_rng(0).random(channels.count) ** 4
    ranked = [f.items[np.argsort(-worth[f.items], kind="stable")] for f in channels.families]
    return channels, ranked, [worth[items] for items in ranked]


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "regnety_002"])
@pytest.mark.parametrize("unit", ["flops", "parameters"])
@pytest.mark.parametrize("share", [0.5, 0.3])
def test_a_budget_is_met_by_what_is_counted_on_the_narrow_network(
    backbone: str, unit: str, share: float
) -> None:
    chain = lively_chain(backbone)
    channels, ranked, values = problem_of(chain)
    if unit == "flops":
        costs, whole = count_flops(channels), module_flops(chain, (3, 32, 32))
    else:
        costs, whole = count_parameters(channels, chain), parameters(chain)
    ranges = allowed(channels.families, 1)
    assert costs.of(ranges.most[None])[0] == whole
    counts = best_widths(values, costs, ranges, share * whole)
    kept = np.zeros(channels.count, dtype=bool)
    for items, count in zip(ranked, counts, strict=True):
        kept[items[:count]] = True
    small = narrow(chain, channels, kept)
    real = module_flops(small, (3, 32, 32)) if unit == "flops" else parameters(small)
    assert costs.of(counts[None])[0] == real
    assert 0.98 * share <= real / whole <= share
    assert min(map(min, (layer.shape for layer in small.parameters()))) >= 1


def test_widths_by_eight() -> None:
    chain = lively_chain("tf_efficientnet_lite0")
    channels, _, values = problem_of(chain)
    costs, ranges = count_flops(channels), allowed(channels.families, 8)
    whole = float(costs.of(ranges.most[None])[0])
    counts = best_widths(values, costs, ranges, 0.4 * whole)
    assert all(count % 8 == 0 for count in counts)
    assert counts.min() == 8
    assert 0.98 * 0.4 <= costs.of(counts[None])[0] / whole <= 0.4


def test_what_may_be_kept() -> None:
    channels = trace_channels(lively_chain("regnety_002"), 32)
    for family, counts in zip(channels.families, allowed(channels.families, 8).counts, strict=True):
        assert counts[-1] == len(family.items)
        each = max(family.places.values())
        assert all(int(count) * each % 8 == 0 for count in counts[:-1])
    assert allowed(channels.families, 1).least.min() == 1


def test_a_budget_out_of_reach() -> None:
    channels, _, values = problem_of(lively_chain("test_resnet"))
    costs, ranges = count_flops(channels), allowed(channels.families, 1)
    least = float(costs.of(ranges.least[None])[0])
    assert (best_widths(values, costs, ranges, least) == ranges.least).all()
    with pytest.raises(ValueError, match="nothing costs"):
        best_widths(values, costs, ranges, least - 1)
