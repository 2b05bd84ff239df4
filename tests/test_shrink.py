"""A student that shrinks as it trains: what a removal loses, which goes next, and what is left."""

import copy
import itertools
import math
import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from conftest import lively_chain
from networks import grown, labelled
from torch import Tensor, nn

from nettailor.prune.choice import least_lost
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.shrink import DUST, Shrinking
from nettailor.student.costs import PathShares, shares_of
from nettailor.student.network import Student
from nettailor.student.wiring import Path


def entropy(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def test_begins_as_the_whole_backbone():
    (pictures, _), chain = labelled(4), lively_chain("test_resnet")
    student = Student(chain)
    network = Shrinking(student, shares_of(student, chain, 32, "flops"), 0.5).eval()
    torch.testing.assert_close(network(pictures), chain(pictures).logits)
    assert network.cost == pytest.approx(1)


def loses(
    network: Shrinking,
    route: tuple[Path, ...],
    batches: list[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> float:
    """Of a route, as a network of its own that normalises by each batch."""
    plan = PrunePlan.keeping("smaller", network.student.wiring, route)
    smaller = remove(network.student, plan).train()
    with torch.no_grad():
        return sum(float(loss(smaller(x).logits, y)) for x, y in batches) / len(batches)


def taken(network: Shrinking, *kept: int, end: Path) -> tuple[Path, ...]:
    """The route to an end that takes these blocks, and identities into the other nodes."""
    blocks = {path.target: path for path in network.wiring.of_kind("block")}
    ways = (
        blocks[node] if node in kept or node not in network.identities else network.identities[node]
        for node in range(1, end.source + 1)
    )
    return (*ways, end)


@pytest.mark.parametrize("goal", [0.9, 0.7, 0.6])
def test_of_the_best_to_each_end_the_one_that_loses_least(goal: float) -> None:
    """By going all ways: as networks of their own that normalise by each batch."""
    network, batches = grown(0.3), [labelled(8, seed) for seed in (1, 2)]
    before, blocks = copy.deepcopy(network.state_dict()), network.skippable
    found = least_lost(network, [(x, y, x) for x, y in batches], entropy, goal, goal)
    for name, value in network.state_dict().items():
        if "num_batches" not in name and name != "rises":
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    whole = loses(network, network.route, batches[:1])
    alone = {
        one.path.target: loses(network, one.route, batches[:1]) - whole
        for one in network.removals()
        if one.path.kind == "block"
    }
    assert alone.keys() == set(blocks)
    best = {}
    for end in network.ends:
        inner = [node for node in blocks if node <= end.source]
        routes = {
            taken(network, *(set(range(1, 5)) - set(gone)), end=end): sum(
                max(alone[node], 0) + DUST for node in gone
            )
            for count in range(len(inner) + 1)
            for gone in itertools.combinations(inner, count)
        }
        within = {one: lost for one, lost in routes.items() if network.cost_of(one) <= goal}
        if within:
            way = min(within, key=within.__getitem__)
            best[way] = loses(network, way, batches)
    assert len(best) > 1
    best = {one: lost for one, lost in best.items() if network.cost_of(one) >= 0.8 * goal} or best
    assert found == min(best, key=best.__getitem__)
    rises = dict(zip(network.wiring.paths, network.rises.tolist(), strict=True))
    for node, rise in alone.items():
        assert rises[Path(node - 1, node, "block")] == pytest.approx(rise, abs=1e-5)


def test_an_exit_of_the_first_quarter_is_no_aim_where_another_one_is() -> None:
    """Though it alone is right, that of 16 blocks after the third."""
    chain = lively_chain("tf_efficientnet_lite0")
    student = Student(chain)
    early = student.wiring.of_kind("exit")[1]
    assert early.source == 3
    pictures, labels = labelled(2)
    labels = torch.zeros_like(labels)
    with torch.no_grad():
        student.heads[early.key].classifier.bias[0] += 50.0
    network = Shrinking(student, shares_of(student, chain, 32, "flops"), 0.1)
    ways = network.other_ends(network.route)
    lost = {end: loses(network, way, [(pictures, labels)]) for end, way in ways.items()}
    assert min(lost, key=lost.__getitem__) == early
    for goal in (0.5, 0.3):
        found = least_lost(network, [(pictures, labels, pictures)], entropy, goal, goal)
        assert found[-1].source >= 4


@pytest.mark.parametrize("target", [0.95, 0.8, 0.7])
def test_on_the_way_what_is_cheapest_by_its_cost_goes_first(target: float) -> None:
    """As far as the target, by what each change to the aim moves the logits by alone."""
    network, (x, _) = grown(0.1, lively_chain("resnet18")), labelled(8)
    blocks = network.wiring.of_kind("block")
    with torch.no_grad():
        answers = copy.deepcopy(network).train()(x)
    alone = {
        one.path: loses(network, one.route, [(x, answers)], F.mse_loss)
        for one in network.removals()
    }
    assert min(alone.values()) > 0

    def found_within(most: float) -> tuple[Path, ...]:
        batches = [(x, answers, x)]
        return least_lost(network, batches, lambda out, y, _: F.mse_loss(out, y), most, 0.4)

    aim, found = found_within(0.4), found_within(target)
    expected = network.route
    while network.cost_of(expected) > target:
        steps = [
            one
            for one in network.removals(expected)
            if one.path == aim[-1] or (one.path in blocks and one.path not in aim)
        ]
        assert len(steps) > 1 or expected != network.route
        prices = [alone[one.path] / one.saved for one in steps]
        first = steps[prices.index(min(prices))]
        assert network.price(first) == pytest.approx(min(prices), abs=1e-3)
        expected = first.route
    assert found == expected
    assert network.cost_of(found) <= target


def test_where_no_route_is_within_the_cost_the_leanest_is_left() -> None:
    network, (x, y) = grown(), labelled(4)
    found = least_lost(network, [(x, y, x)], entropy, 0.0, 0.0)
    assert network.cost_of(found) == pytest.approx(network.leanest)


def all_costs(network: Shrinking) -> set[float]:
    """Of every route, by going all ways."""
    seen, left = {network.route}, [network.route]
    while left:
        network.take(left.pop())
        for one in network.removals():
            if one.route not in seen:
                seen.add(one.route)
                left.append(one.route)
    return {network.cost_of(route) for route in seen}


def shrunk(network: Shrinking, draw: random.Random) -> float:
    """What is left costs in the end, where the loss of each route is drawn."""
    (x, y), least = labelled(2), float(network.least)
    for target in (0.8, 0.64, 0.5, 0.4, least):
        if network.cost > max(target, least):
            most = max(target, least)
            route = least_lost(
                network, [(x, y, x)], lambda *_: torch.tensor(draw.random()), most, most
            )
            network.take(route)
    return network.cost


@pytest.mark.parametrize("least", [0.03, 0.2, 0.35, 0.5, 0.62, 0.8, 0.97])
def test_whatever_is_lost_a_budget_is_kept_where_one_can_be(least: float) -> None:
    possible = min(all_costs(grown(least))) <= least
    for seed in range(5):
        network = grown(least)
        assert (shrunk(network, random.Random(seed)) <= least) == possible
        assert network.cost <= least or network.cost == pytest.approx(network.leanest)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_paths_cost_nothing_goes_that_could_stay(seed: int) -> None:
    """Of what a route did without at once, no block could be put back within the budget."""
    chain, draw = lively_chain("test_efficientnet"), random.Random(seed)
    student = Student(chain)
    paths = student.wiring.paths
    costs = [draw.random() * (path.kind != "identity") for path in paths]
    whole = sum(
        cost for path, cost in zip(paths, costs, strict=True) if path.kind in ("block", "head")
    )
    least = draw.uniform(0.2, 0.8)
    network = Shrinking(student, PathShares([cost / whole for cost in costs], 0.0, 1.0), least)
    (x, y), blocks = labelled(2), {path.target: path for path in network.route[:-1]}
    route = least_lost(network, [(x, y, x)], lambda *_: torch.tensor(draw.random()), least, least)
    gone = [path for path in route if path.kind == "identity"]
    if network.cost_of(route) > least:
        assert network.cost_of(route) == pytest.approx(network.leanest)
    else:
        free = least - network.cost_of(route) - 1e-4  # the grid rounds
        assert all(network.cost_of_path(blocks[one.target]) > free for one in gone)


def test_a_state_holds_the_route():
    network = grown()
    network.take(network.removals()[-1].route)
    other = grown()
    assert other.route != network.route
    other.load_state_dict(network.state_dict())
    assert other.route == network.route
    assert other.cost == pytest.approx(network.cost)


def test_running_statistics_begin_anew_after_a_change() -> None:
    """Each batch is followed by 3 / (n + 3), n = 0, 1, 2, 2, 4, …; from 32 steps on by 0.1."""
    network = grown().train()
    norm = next(one for one in network.modules() if isinstance(one, nn.BatchNorm2d))
    for began in (0, 100):
        expected, changed = 7.0, []
        for step in range(40):
            changed.append(network.settle())
            powers = [1 << place for place in range(6) if 1 << place <= step]
            share = max(3 / (max(powers, default=0) + 3), 0.1)
            assert norm.momentum == pytest.approx(share)
            norm(torch.full((2, norm.num_features, 3, 3), float(began + step)))
            expected = share * (began + step) + (1 - share) * expected
        assert norm.running_mean is not None
        assert float(norm.running_mean[0]) == pytest.approx(expected, rel=1e-4)
        assert [step for step, one in enumerate(changed) if one] == [0, 1, 2, 4, 8, 16, 32]
        network.take(network.removals()[0].route)


def test_what_cannot_be_measured_does_not_go() -> None:
    """Without the first block that is tried the loss is not a number: it stays."""
    network, (x, y) = grown(), labelled(4)
    called = itertools.count()
    first = network.skippable[0]

    def loss(*_: Tensor) -> Tensor:
        return torch.tensor(math.nan if next(called) == 2 else 1.0)

    found = least_lost(network, [(x, y, x)], loss, 0.9, 0.9)
    assert Path(first - 1, first, "block") in found


def test_exits_are_left_out_that_cannot_be_as_dear_as_the_budget():
    shares, student = grown().shares, grown().student
    *exits, dearest = student.wiring.of_kind("exit")
    dear = [
        shares.of(student.wiring, [*student.wiring.of_kind("block")[: e.source], e]) for e in exits
    ]
    assert dear == sorted(dear)
    assert len(dear) > 2
    assert dearest not in grown().other_ends(grown().route), "it costs more than the head"
    for least, left_out in ((dear[0] - 0.01, 0), (dear[1], 0), (dear[1] + 0.01, 1)):
        network = Shrinking(student, shares, least)
        assert list(network.other_ends(network.route)) == list(exits[left_out:])


def test_a_route_costs_what_its_paths_do():
    network = grown()
    shares: PathShares = network.shares
    routes = [one.route for one in network.removals()]
    for route in routes:
        assert network.cost_of(route) == pytest.approx(shares.of(network.wiring, route))
    assert network.leanest <= min(map(network.cost_of, routes))
