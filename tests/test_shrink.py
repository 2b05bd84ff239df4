"""A student that shrinks as it trains: what a removal loses, which goes next, and what is left."""

import copy
import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F
from conftest import lively_chain
from networks import grown, labelled
from torch import Tensor, nn

from nettailor.prune.choice import cheapest
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.shrink import Removal, Shrinking
from nettailor.prune.shrink_loss import ShrinkLoss
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
    network: Shrinking, route: tuple[Path, ...], batches: list[tuple[Tensor, Tensor]]
) -> float:
    """Of a route, as a network of its own that normalises by each batch."""
    plan = PrunePlan.keeping("smaller", network.student.wiring, route)
    smaller = remove(network.student, plan).train()
    with torch.no_grad():
        return sum(float(F.cross_entropy(smaller(x).logits, y)) for x, y in batches) / len(batches)


def test_what_a_removal_loses_is_what_the_smaller_network_loses() -> None:
    network, batches = grown(), [labelled(8, seed) for seed in (1, 2)]
    before, options = copy.deepcopy(network.state_dict()), network.removals()
    assert all(math.isnan(network.price(one)) for one in options), "nothing was tried"
    found = cheapest(network, [(x, y, x) for x, y in batches], entropy, 0.0)
    for name, value in network.state_dict().items():
        if "num_batches" not in name and name != "rises":
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    whole, prices = loses(network, network.route, batches), []
    for one in options:
        saved = network.cost - network.cost_of(one.route)
        assert one.saved == pytest.approx(saved)
        prices.append(max(loses(network, one.route, batches) - whole, 0) / saved)
    assert [network.price(one) for one in options] == pytest.approx(prices, abs=1e-3)
    assert {len(one.route) for one in options} > {len(network.route)}  # some end in an exit
    assert found == options[prices.index(min(prices))]


def choice(
    monkeypatch: pytest.MonkeyPatch, least: float, goal: float, *things: tuple[float, float]
) -> int | None:
    """Which of the things goes of a network that costs 1: what each loses, and saves."""
    network = grown(least)
    exits = list(network.other_ends(network.route))
    options = [
        Removal(exits[i], len(network.route) - 1, network.to_end(exits[i], network.route), saved)
        for i, (_, saved) in enumerate(things)
    ]
    monkeypatch.setattr(network, "removals", lambda: options)
    lost = iter([0.0, *(loss for loss, _ in things)])
    x, y = labelled(4)
    found = cheapest(network, [(x, y, x)], lambda *_: torch.tensor(next(lost)), goal)
    return None if found is None else options.index(found)


def test_what_loses_least_by_its_cost_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choice(monkeypatch, 0.1, 0.5, (0.2, 0.1), (0.3, 0.2), (0.5, 0.3)) == 1
    assert choice(monkeypatch, 0.1, 0.5, (0.2, 0.1), (-0.1, 0.05)) == 1
    assert choice(monkeypatch, 0.1, 0.5) is None


def test_what_is_saved_beyond_the_goal_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # by all that it saves, 0.6 / 0.6 would be the lower price
    assert choice(monkeypatch, 0.1, 0.8, (0.6, 0.6), (0.2, 0.1)) == 1
    assert choice(monkeypatch, 0.1, 0.4, (0.6, 0.6), (0.2, 0.1)) == 0


def test_blocks_are_tried_anew_while_they_are_the_cheapest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cheapest block by what was last seen has become dear; the next one has not; no third."""
    network, (x, y) = grown(), labelled(8)
    cheapest(network, [(x, y, x)], entropy, 0.0)
    blocks = [one for one in network.removals() if one.path.kind == "block"]
    assert len(blocks) > 2
    numbers = [network.wiring.paths.index(one.path) for one in blocks]
    network.rises.fill_(1e6)
    for place, number in enumerate(numbers):
        network.rises[number] = -1.0 if place < 2 else 1e5
    monkeypatch.setattr(network, "to_end", lambda *_: ())  # no exit is in the way
    called = itertools.count()
    losses = [0.0, 5.0, 0.1]
    found = cheapest(network, [(x, y, x)], lambda *_: torch.tensor(losses[next(called)]), 0.0)
    assert found == blocks[1]
    assert next(called) == 3, "the network as it is, and two without a block"
    assert [float(network.rises[one]) for one in numbers[:3]] == pytest.approx([5.0, 0.1, 1e5])


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
    """What is left costs, where the loss of each removal is drawn."""
    x, y = labelled(2)
    while network.cost > float(network.least):
        least = float(network.least)
        found = cheapest(network, [(x, y, x)], lambda *_: torch.tensor(draw.random()), least)
        if found is None:
            break
        network.take(found.route)
    return network.cost


@pytest.mark.parametrize("least", [0.03, 0.2, 0.35, 0.5, 0.62, 0.8, 0.97])
def test_whatever_goes_as_much_of_the_budget_is_used_as_can_be(least: float) -> None:
    costs = all_costs(grown(least))
    dearest = max((cost for cost in costs if cost <= least), default=0.0)
    for seed in range(5):
        cost = shrunk(grown(least), random.Random(seed))
        assert cost >= min(0.98 * least, dearest) - 1e-3  # the grid rounds
        assert cost <= least or not dearest


@pytest.mark.parametrize("seed", range(12))
def test_whatever_paths_cost_what_can_be_used_of_the_budget_is_used(seed: int) -> None:
    """An end that is dearer than the present one is no way to use more of it."""
    chain, draw = lively_chain("test_efficientnet"), random.Random(seed)
    student = Student(chain)
    paths = student.wiring.paths
    costs = [draw.random() * (path.kind != "identity") for path in paths]
    whole = sum(
        cost for path, cost in zip(paths, costs, strict=True) if path.kind in ("block", "head")
    )
    least = draw.uniform(0.2, 0.8)
    network = Shrinking(student, PathShares([cost / whole for cost in costs], 0.0, 1.0), least)
    claimed = network.dearest_within(network.route)
    cost = shrunk(network, draw)
    assert min(0.98 * least, claimed) - 1e-3 <= cost
    assert cost <= least or not claimed


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
    """A loss that is not a number says nothing of the first thing that is tried."""
    network, (x, y) = grown(), labelled(4)
    called = itertools.count()

    def loss(*_: Tensor) -> Tensor:
        return torch.tensor(math.nan if next(called) == 1 else 1.0)

    found = cheapest(network, [(x, y, x)], loss, 0.0)
    assert found == network.removals()[1]


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


@pytest.mark.parametrize("whole", [False, True])
def test_the_loss_is_of_the_end_and_of_all_exits(whole: bool) -> None:
    """The teacher counts once something is gone: before that it says what the student says."""
    network, (pictures, labels) = grown(), labelled(8)
    if not whole:
        network.take(network.removals()[0].route)
    chain = lively_chain("test_resnet").eval()
    loss = ShrinkLoss(chain, distill=0.5)
    target = chain(pictures).logits
    terms = loss(network, pictures, labels)
    end, *others = network.at_ends(pictures)
    assert len(others) > 2

    def by_hand(logits: Tensor) -> Tensor:
        soft = (target / 2).softmax(1)
        apart = (soft * (soft.log() - (logits / 2).log_softmax(1))).sum(1).mean()
        return F.cross_entropy(logits, labels) + (0 if whole else 0.5 * 4 * apart)

    torch.testing.assert_close(terms["end"], 0.5 * by_hand(end), rtol=1e-4, atol=1e-5)
    mean = sum(map(by_hand, others)) / len(others)
    torch.testing.assert_close(terms["exits"], 0.5 * mean, rtol=1e-4, atol=1e-5)

    terms["end"].backward()
    moved = {
        name.split(".")[2]
        for name, one in network.named_parameters()
        if one.grad is not None and name.startswith(("student.blocks", "student.heads"))
    }
    assert moved == {path.key for path in network.route if path.kind != "identity"}


def test_a_route_costs_what_its_paths_do():
    network = grown()
    shares: PathShares = network.shares
    routes = [one.route for one in network.removals()]
    for route in routes:
        assert network.cost_of(route) == pytest.approx(shares.of(network.wiring, route))
    assert network.leanest <= min(map(network.cost_of, routes))
