"""Expected complexity against hand-worked networks and brute force over all states."""

from itertools import product

import pytest
import torch
from torch import Tensor

from student.complexity import published, reachability
from student.wiring import Path, Wiring, full_wiring

# Three layers, one skip: from each node to the next a block and a proxy.
WIRING = full_wiring(3, 1)
BLOCK = torch.tensor([0.9, 0.6, 0.8])
ALPHA = torch.tensor([0.9, 0.1, 0.6, 0.4, 0.8, 0.2])
COST = torch.tensor([0.5, 0.05, 0.3, 0.03, 0.1, 0.02])


def test_published_by_hand() -> None:
    """r = 1 - α. Into x1: .1·.9 = .09; x2: .4·.6 = .24. Out of x1: .24; out of x2: .2·.8 = .16.

    block 1: 1 - .1 - 0   - .24 = .66    proxy 1: 1 - .9 - 0   - .24 = -.14
    block 2: 1 - .4 - .09 - .16 = .35    proxy 2: 1 - .6 - .09 - .16 = .15
    block 3: 1 - .2 - .24 - 0   = .56    proxy 3: 1 - .8 - .24 - 0   = -.04
    """
    by_hand = 0.5 * 0.66 + 0.05 * -0.14 + 0.3 * 0.35 + 0.03 * 0.15 + 0.1 * 0.56 + 0.02 * -0.04
    assert float(published(ALPHA, COST, WIRING)) == pytest.approx(by_hand, abs=1e-6)


def test_reachability_by_hand() -> None:
    """R1 = 1 - .1·.9 = .91; R2 = 1 - (1 - .6·.91)(1 - .4·.91) = 1 - .454·.636 = .711256.

    O2 = 1 - .2·.8 = .84; O1 = 1 - (1 - .6·.84)(1 - .4·.84) = 1 - .496·.664 = .670656.
    """
    by_hand = (
        (0.5 * 0.9 + 0.05 * 0.1) * 1 * 0.670656
        + (0.3 * 0.6 + 0.03 * 0.4) * 0.91 * 0.84
        + (0.1 * 0.8 + 0.02 * 0.2) * 0.711256 * 1
    )
    assert float(reachability(ALPHA, COST, WIRING)) == pytest.approx(by_hand, abs=1e-6)


def brute_force(alpha: Tensor, cost: Tensor, wiring: Wiring) -> float:
    """The mean, over every on/off state of the paths, of the cost of those on a live route."""
    total = 0.0
    for states in product((False, True), repeat=len(wiring.paths)):
        odds = 1.0
        for state, weight in zip(states, alpha.tolist(), strict=True):
            odds *= weight if state else 1 - weight
        reached, read = {0}, {wiring.depth}
        for path, state in zip(wiring.paths, states, strict=True):
            if state and path.source in reached:
                reached.add(path.target)
        for path, state in reversed(list(zip(wiring.paths, states, strict=True))):
            if state and path.target in read:
                read.add(path.source)
        for path, state, price in zip(wiring.paths, states, cost.tolist(), strict=True):
            if state and path.source in reached and path.target in read:
                total += odds * price
    return total


def test_reachability_is_exact_on_a_chain() -> None:
    """One path into each node: the events of different nodes do not share a path."""
    chain = Wiring(3, tuple(Path(node - 1, node, "block") for node in (1, 2, 3)))
    cost = torch.tensor([0.5, 0.3, 0.2])
    assert float(reachability(BLOCK, cost, chain)) == pytest.approx(0.9 * 0.6 * 0.8)
    assert brute_force(BLOCK, cost, chain) == pytest.approx(0.9 * 0.6 * 0.8)


def test_reachability_is_exact_where_no_two_routes_share_a_path() -> None:
    """Two disjoint routes from stem to head, one through x1 and one through x2."""
    wiring = Wiring(
        3, (Path(0, 1, "block"), Path(1, 3, "proxy"), Path(0, 2, "proxy"), Path(2, 3, "block"))
    )
    alpha = torch.tensor([0.7, 0.4, 0.3, 0.9])
    cost = torch.tensor([0.4, 0.1, 0.2, 0.3])
    exact = brute_force(alpha, cost, wiring)
    assert float(reachability(alpha, cost, wiring)) == pytest.approx(exact, abs=1e-6)


def test_published_is_exact_where_its_events_are_disjoint() -> None:
    """With every weight 0 or 1 and one route open, all three terms are certain."""
    alpha = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    # closed paths come out at 0 and open ones at 1, up to the closed path's own r = 1
    assert float(published(alpha, COST, WIRING)) == pytest.approx(0.5 + 0.3 + 0.1)
    assert brute_force(alpha, COST, WIRING) == pytest.approx(0.5 + 0.3 + 0.1)


def test_all_weight_on_the_blocks_costs_what_the_backbone_costs() -> None:
    wiring = full_wiring(5, 3)
    alpha = torch.tensor([1.0 if path.kind == "block" else 0.0 for path in wiring.paths])
    cost = torch.rand(len(wiring.paths))
    blocks = sum(
        price for path, price in zip(wiring.paths, cost.tolist(), strict=True)
        if path.kind == "block"
    )  # fmt: skip
    assert float(reachability(alpha, cost, wiring)) == pytest.approx(blocks)
    assert float(published(alpha, cost, wiring)) == pytest.approx(blocks)


def test_reachability_stays_within_its_range_where_published_does_not() -> None:
    wiring = full_wiring(8, 3)
    cost = torch.full((len(wiring.paths),), 1 / len(wiring.paths))
    for seed in range(50):
        torch.manual_seed(seed)
        value = float(reachability(torch.rand(len(wiring.paths)), cost, wiring))
        assert 0 <= value <= float(cost.sum()) + 1e-6
    uniform = torch.tensor([1 / len(wiring.incoming[path.target]) for path in wiring.paths])
    assert float(published(uniform, cost, wiring)) < 0


@pytest.mark.parametrize("form", [published, reachability])
def test_complexity_pulls_blocks_down(form: object) -> None:
    assert callable(form)
    alpha = ALPHA.clone().requires_grad_()
    form(alpha, COST, WIRING).backward()
    assert alpha.grad is not None
    assert (alpha.grad[::2] > 0).all()
