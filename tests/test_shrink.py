"""A student that shrinks as it trains: what a removal loses, which goes next, and what is left."""

import copy
import itertools
import random
from math import exp, log

import pytest
import torch
import torch.nn.functional as F
from conftest import enliven, lively_chain
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from nettailor.errors import UserError
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.shrink import Removal, Shrinking
from nettailor.prune.shrink_loss import ShrinkLoss
from nettailor.shrinking import shrink
from nettailor.student.costs import PathShares, shares_of
from nettailor.student.network import Student

CLASSES = 5


def grown(least: float = 0.05) -> Shrinking:
    chain = lively_chain("test_resnet", CLASSES)
    student = Student(chain)
    enliven(student.heads)
    return Shrinking(student, shares_of(student, chain, 32, "flops"), least).eval()


def images(count: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(count, 3, 32, 32, generator=generator)
    return pictures, torch.randint(CLASSES, (count,), generator=generator)


def entropy(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def test_begins_as_the_whole_backbone():
    (pictures, _), chain = images(4), lively_chain("test_resnet", CLASSES)
    student = Student(chain)
    network = Shrinking(student, shares_of(student, chain, 32, "flops"), 0.5).eval()
    torch.testing.assert_close(network(pictures), chain(pictures).logits)
    assert network.cost == pytest.approx(1)


def test_what_a_removal_loses_is_what_the_smaller_network_loses():
    network, batches = grown(), [images(8, seed) for seed in (1, 2)]
    before = copy.deepcopy(network.state_dict())
    found = network.removals([(x, y, x) for x, y in batches], entropy)
    for name, value in network.state_dict().items():
        if "num_batches" not in name and name != "prices":
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)

    def loses(route: tuple) -> float:
        plan = PrunePlan.keeping("smaller", network.student.wiring, route)
        smaller = remove(network.student, plan).train()
        with torch.no_grad():
            return sum(float(F.cross_entropy(smaller(x).logits, y)) for x, y in batches) / 2

    whole = loses(network.route)
    assert len(found) == len(list(network.routes_after())) > 3
    for one in found:
        assert one.loss == pytest.approx(loses(one.route) - whole, abs=1e-5)
        assert one.saved == pytest.approx(network.cost - network.cost_of(one.route))
    assert {len(one.route) for one in found} > {len(network.route)}  # some end in an exit


def choice(least: float, goal: float, *removals: tuple[str, float, float]) -> str | None:
    """What goes of a network that costs 1, by name; each with its loss and what it saves."""
    network = grown(least)
    tried = [Removal(network.route, loss, saved) for _, loss, saved in removals]
    best = network.best(tried, goal)
    return None if best is None else removals[tried.index(best)][0]


def test_what_loses_least_by_its_cost_goes():
    assert choice(0.1, 0.5, ("a", 0.2, 0.1), ("b", 0.3, 0.2), ("c", 0.5, 0.3)) == "b"
    assert choice(0.1, 0.5, ("a", 0.2, 0.1), ("worth nothing", -0.1, 0.05)) == "worth nothing"
    assert choice(0.1, 0.5, ("saves nothing", -1.0, 0.0)) is None


def test_what_is_saved_beyond_the_goal_counts_for_nothing():
    # by all that it saves, 0.6 / 0.6 would be the lower price
    assert choice(0.1, 0.8, ("large", 0.6, 0.6), ("small", 0.2, 0.1)) == "small"
    assert choice(0.1, 0.4, ("large", 0.6, 0.6), ("small", 0.2, 0.1)) == "large"


def all_costs(network: Shrinking) -> set[float]:
    """Of every route, by going all ways."""
    seen, left = {network.route}, [network.route]
    while left:
        network.take(left.pop())
        for _, route in network.routes_after():
            if route not in seen:
                seen.add(route)
                left.append(route)
    return {network.cost_of(route) for route in seen}


@pytest.mark.parametrize("least", [0.03, 0.2, 0.35, 0.5, 0.62, 0.8, 0.97])
def test_whatever_goes_as_much_of_the_budget_is_used_as_can_be(least: float):
    costs = all_costs(grown(least))
    dearest = max((cost for cost in costs if cost <= least), default=0.0)
    for seed in range(5):
        network, draw = grown(least), random.Random(seed)
        while network.cost > least:
            removals = [
                Removal(route, draw.random(), network.cost - network.cost_of(route))
                for _, route in network.routes_after()
            ]
            found = network.best(removals, least)
            if found is None:
                break
            network.take(found.route)
        assert network.cost >= min(0.98 * least, dearest) - 1e-3  # the grid rounds
        assert network.cost <= least or not dearest


def test_a_state_holds_the_route():
    network = grown()
    *_, last = network.routes_after()
    network.take(last[1])
    other = grown()
    assert other.route != network.route
    other.load_state_dict(network.state_dict())
    assert other.route == network.route
    assert other.cost == pytest.approx(network.cost)


def test_exits_are_left_out_that_cannot_be_as_dear_as_the_budget():
    shares, student = grown().shares, grown().student
    exits = student.wiring.of_kind("exit")
    dear = [shares.of(student, [*student.wiring.of_kind("block")[: e.source], e]) for e in exits]
    assert dear == sorted(dear)
    assert len(dear) > 2
    assert Shrinking(student, shares, dear[0] - 0.01).exits == list(exits)
    assert Shrinking(student, shares, dear[1]).exits == list(exits)
    assert Shrinking(student, shares, dear[1] + 0.01).exits == list(exits[1:])


def test_the_loss_is_of_the_end_and_of_one_exit():
    network, (pictures, labels) = grown(), images(8)
    chain = lively_chain("test_resnet", CLASSES).eval()
    loss = ShrinkLoss(chain, distill=0.5)
    target = chain(pictures).logits
    torch.manual_seed(3)
    picked = network.exits[int(torch.randint(len(network.exits), ()))]
    torch.manual_seed(3)
    terms = loss(network, pictures, labels)
    end, other = network.at_ends(pictures, [picked])

    def by_hand(logits: Tensor) -> Tensor:
        soft = (target / 2).softmax(1)
        apart = (soft * (soft.log() - (logits / 2).log_softmax(1))).sum(1).mean()
        return F.cross_entropy(logits, labels) + 0.5 * 4 * apart

    torch.testing.assert_close(terms["end"], 0.7 * by_hand(end), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["exit"], 0.3 * by_hand(other), rtol=1e-4, atol=1e-5)
    terms["end"].backward()
    route = {path.key for path in network.route}
    moved = {
        name.split(".")[2]
        for name, one in network.named_parameters()
        if one.grad is not None and name.startswith(("student.blocks", "student.heads"))
    }
    assert moved == {key for key in route if not key.startswith("identity")}


def loaders() -> tuple[DataLoader, DataLoader]:
    train, val = TensorDataset(*images(64)), TensorDataset(*images(32, 6))
    return DataLoader(train, 16, shuffle=True), DataLoader(val, 32)


@pytest.mark.parametrize("budget", [{"max_flops": 0.6}, {"max_params": 0.3}])
def test_follows_the_target(budget):
    found = []
    for _ in range(2):
        chain = lively_chain("test_resnet", CLASSES)
        torch.manual_seed(1)
        passed = shrink(Student(chain), chain, *loaders(), epochs=5, verbose=False, **budget)
        found.append(passed)
    first, again = found
    (least,) = budget.values()
    assert [one.cost for one in first] == [one.cost for one in again]
    assert [one.scores.loss for one in first] == [one.scores.loss for one in again]
    for one, after in itertools.pairwise(first):
        assert after.cost <= one.cost + 1e-9
    assert first[-1].cost <= 1.02 * least
    for number, one in enumerate(first[:-1], 1):
        part = ((4 * number - 1) / 20 - 0.08) / 0.82
        assert one.cost <= max(exp(max(part, 0) * log(least)), 1.02 * least) + 1e-9
    small = first[-1].network
    assert all(len(group) <= 1 for group in small.wiring.incoming)
    assert small(images(2)[0]).logits.shape == (2, CLASSES)
    assert first[-1].cost >= 0.9 * least


def test_however_few_steps_there_are_the_budget_is_met():
    chain = lively_chain("test_resnet", CLASSES)
    (only,) = shrink(Student(chain), chain, *loaders(), max_flops=0.6, epochs=1, verbose=False)
    assert only.cost <= 0.612


def test_bad_budgets_and_students():
    chain = lively_chain("test_resnet", CLASSES)
    student = Student(chain)
    with pytest.raises(UserError, match="expected one of them"):
        shrink(student, chain, *loaders(), max_flops=0.5, max_params=0.5)
    with pytest.raises(
        UserError, match=r"no network costs 0.0001 .* give a budget from 0\.\d+ to 1"
    ):
        shrink(student, chain, *loaders(), max_flops=0.0001)
    with pytest.raises(UserError, match="proxies"):
        shrink(Student(chain, skips=1), chain, *loaders(), max_flops=0.5)


def test_a_route_costs_what_its_paths_do():
    network = grown()
    shares: PathShares = network.shares
    for _, route in network.routes_after():
        assert network.cost_of(route) == pytest.approx(shares.of(network.student, route))
    assert network.leanest <= min(network.cost_of(route) for _, route in network.routes_after())
