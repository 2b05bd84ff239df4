"""The best route under a budget, against every route there is, and against real networks."""

from itertools import pairwise
from random import Random
from typing import NamedTuple

import pytest
from conftest import lively_chain
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import all_routes, drawn_route, student_of

from nettailor.core.cost import module_flops, parameters
from nettailor.prune.remove import remove
from nettailor.prune.routes import Route, Routes
from nettailor.student.costs import shares_of
from nettailor.student.wiring import Path, Wiring, full_wiring

STEP = 1 / 200_000  # of the grid
WIRINGS = {
    "all kinds": full_wiring(4, 2, identities=[1, 2, 4], exits=[2, 3, 4]),
    "dense": full_wiring(4, "dense", identities=[3], exits=[1]),
    "no proxies": full_wiring(4, 0, identities=[1, 2, 3, 4], exits=[1, 3]),
    "cut": full_wiring(4, 2, exits=[1, 3]).without([Path(2, 3, "block"), Path(4, 5, "head")]),
}


def slack(wiring: Wiring) -> float:
    """By how much a route's cost on the grid may differ from the exact one.

    Half a step for each path, one into each node at most, and for the stem; and a step that a
    budget itself loses to the grid.
    """
    return STEP * ((wiring.depth + 1) / 2 + 1)


def everything(wiring: Wiring, value: list[float], cost: list[float], fixed: float) -> list[Route]:
    """Every route from the stem to the logits."""
    return [
        Route(
            tuple(wiring.paths[position] for position in positions),
            sum(value[position] for position in positions),
            fixed + sum(cost[position] for position in positions),
        )
        for positions in all_routes(wiring)
    ]


class Problem(NamedTuple):
    """A wiring whose values and costs were drawn, all of its routes and their costs in steps."""

    wiring: Wiring
    routes: list[Route]
    costs: list[int]
    solved: Routes


def drawn(wiring: Wiring, seed: int) -> Problem:
    """Costs that lie on the grid, so that nothing is rounded."""
    random = Random(seed)
    value = [random.uniform(-1, 3) for _ in wiring.paths]
    steps = [random.choice([random.uniform(0, 200), random.uniform(0, 6000)]) for _ in value]
    cost = [
        0.0 if path.kind == "identity" else round(s) * STEP
        for path, s in zip(wiring.paths, steps, strict=True)
    ]
    fixed = round(random.uniform(0, 500)) * STEP
    routes = everything(wiring, value, cost, fixed)
    costs = sorted({round(route.cost / STEP) for route in routes})
    return Problem(wiring, routes, costs, Routes(wiring, value, cost, fixed=fixed))


every_wiring = pytest.mark.parametrize(
    "problem",
    [drawn(wiring, seed) for wiring in WIRINGS.values() for seed in range(5)],
    ids=[f"{name}-{seed}" for name in WIRINGS for seed in range(5)],
)


def best_of(routes: list[Route], most: float) -> Route | None:
    within = [route for route in routes if route.cost <= most]
    return max(within, key=lambda route: route.value, default=None)


@every_wiring
def test_best_is_the_best_of_all(problem):
    """The very route, for a budget between any two routes' costs."""
    routes, costs, solved = problem.routes, problem.costs, problem.solved
    assert len(routes) > 5
    between = [costs[0] - 0.5, *(steps + 0.5 for steps in costs)]
    for most in between:
        found, expected = solved.best(most * STEP), best_of(routes, most * STEP)
        assert (found is None) == (expected is None) == (most < costs[0])
        if found is not None and expected is not None:
            assert found.paths == expected.paths
            assert found.value == pytest.approx(expected.value)
            assert found.cost == pytest.approx(expected.cost, abs=1e-12)
    assert solved.best(-0.1) is None


@st.composite
def problems(draw: st.DrawFn) -> tuple[Wiring, list[float], list[float], float]:
    """A student of any size, with values and costs of any kind, ties and zeros too."""
    blocks = draw(st.integers(1, 4))
    nodes = st.lists(st.integers(1, blocks), unique=True)
    skips = draw(st.sampled_from([0, 1, 2, "dense"]))
    wiring = full_wiring(blocks, skips, identities=draw(nodes), exits=draw(nodes))
    count = len(wiring.paths)
    worth = st.one_of(st.floats(-20, 5), st.sampled_from([0.0, -1.0]))
    price = st.one_of(st.floats(0, 0.3), st.floats(0, 1e-4), st.sampled_from([0.0, 0.1, 1.0]))
    value = draw(st.lists(worth, min_size=count, max_size=count))
    cost = draw(st.lists(price, min_size=count, max_size=count))
    return wiring, value, cost, draw(st.floats(0, 0.1))


@given(problem=problems(), most=st.floats(0, 1.5))
@settings(max_examples=120, deadline=None)
def test_best_within_the_grid(problem, most):
    """The budget is kept exactly; only what lies close to it is up to the grid.

    There another route of the same step, worth more and too dear, may hide one.
    """
    wiring, value, cost, fixed = problem
    routes = everything(wiring, value, cost, fixed)
    gap = 2 * slack(wiring)
    solved, costs = Routes(wiring, value, cost, fixed=fixed), [route.cost for route in routes]
    assert solved.reach() == pytest.approx((min(costs), max(costs)), abs=gap)
    found = solved.best(most)
    sure = best_of(routes, most - gap)
    possible = best_of(routes, most + 1e-9)
    if found is None:
        assert sure is None
        return
    assert found.cost <= most + 1e-9
    assert found.value <= possible.value + 1e-9
    assert sure is None or found.value >= sure.value - 1e-9
    # it is a route, and its value and cost are its own, not the grid's
    assert (found.paths[0].source, found.paths[-1].target) == (0, wiring.depth)
    assert all(before.target == after.source for before, after in pairwise(found.paths))
    positions = [wiring.paths.index(path) for path in found.paths]
    assert found.value == pytest.approx(sum(value[position] for position in positions))
    exact = fixed + sum(cost[position] for position in positions)
    assert found.cost == pytest.approx(exact, abs=1e-12)


@every_wiring
def test_reach_and_what_lies_outside(problem):
    solved = problem.solved
    leanest, dearest = solved.reach()
    expected = problem.costs[0] * STEP, problem.costs[-1] * STEP
    assert (leanest, dearest) == pytest.approx(expected, abs=1e-12)
    half = STEP / 2
    assert solved.best(leanest - half) is None
    assert solved.best(0.0) is None
    assert solved.best(leanest + half) is not None


@pytest.mark.parametrize("cost", [0.043, 0.172])
def test_a_budget_of_just_what_a_route_costs_is_enough(cost):
    """Whole steps of the grid, though 200 000 times the float is a little less."""
    wiring = Wiring(2, (Path(0, 1, "block"), Path(1, 2, "head")))
    found = Routes(wiring, [0.0, 0.0], [cost, 0.0], fixed=0.0).best(cost)
    assert found.cost == cost


def test_a_budget_is_not_exceeded_by_what_the_grid_rounds():
    """.1000024 and .4000024 are 20 000 and 80 000 steps, in truth 0.96 of a step above .5."""
    near, lean = Path(0, 1, "block"), Path(0, 1, "identity")
    wiring = Wiring(2, (near, lean, Path(1, 2, "head")))
    solved = Routes(wiring, [5.0, 1.0, 0.0], [0.1000024, 0.05, 0.4000024], fixed=0.0)
    found = solved.best(0.5)
    assert found.paths[0] == lean
    found = solved.best(0.5000048)
    assert found.paths[0] == near


def test_routes_by_hand():
    """Two blocks and what they may give way to; an exit reads x1.

    Costs and values: block, block, head .1 + .4 + .3 + .1 = .9 and 0; an identity for the second
    block .5 and -1; the exit after the first block .55 and -1.5; an identity for the first block,
    then the exit .15 and -4.
    """
    wiring = full_wiring(2, 0, identities=[1, 2], exits=[1])
    value = {"block-0-1": 0, "identity-0-1": -2.5, "block-1-2": 0, "identity-1-2": -1,
             "head-2-3": 0, "exit-1-3": -1.5}  # fmt: skip
    cost = {"block-0-1": 0.4, "identity-0-1": 0, "block-1-2": 0.3, "identity-1-2": 0,
            "head-2-3": 0.1, "exit-1-3": 0.05}  # fmt: skip
    keys = [path.key for path in wiring.paths]
    solved = Routes(wiring, [value[key] for key in keys], [cost[key] for key in keys], fixed=0.1)
    for most, route in (
        (0.16, (["identity-0-1", "exit-1-3"], -4, 0.15)),
        (0.49, (["identity-0-1", "identity-1-2", "head-2-3"], -3.5, 0.2)),
        (0.54, (["identity-0-1", "block-1-2", "head-2-3"], -2.5, 0.5)),
        (0.58, (["block-0-1", "exit-1-3"], -1.5, 0.55)),
        (0.7, (["block-0-1", "identity-1-2", "head-2-3"], -1, 0.6)),
        (2, (["block-0-1", "block-1-2", "head-2-3"], 0, 0.9)),
    ):
        found = solved.best(most)
        keys = [path.key for path in found.paths]
        assert (keys, round(found.value, 9), round(found.cost, 9)) == route


@pytest.mark.parametrize(
    ("backbone", "side"), [("test_resnet", 64), ("test_efficientnet", 32), ("test_convnext", 32)]
)
def test_a_route_costs_what_the_student_cut_to_it_computes(backbone, side):
    """Stem and paths add up to the multiply-adds and parameters of the network that is made."""
    chain, student = lively_chain(backbone), student_of(backbone, 3)
    by_flops, by_params = (shares_of(student, chain, side, unit) for unit in ("flops", "params"))
    seen: set[str] = set()
    for seed in range(16):
        plan = drawn_route(student, Random(seed))
        seen |= {path.kind for path in plan.kept.paths}
        smaller = remove(student, plan)
        flops = module_flops(smaller, (3, side, side))
        assert by_flops.of(student.wiring, plan.kept.paths) == pytest.approx(flops / by_flops.whole)
        # path logits are no cost of a network that takes one path into every node
        numbers = parameters(smaller) - len(plan.kept.paths)
        assert by_params.of(student.wiring, plan.kept.paths) == pytest.approx(
            numbers / by_params.whole
        )
    assert seen == {"block", "identity", "proxy", "head", "exit"}
