"""Expected complexity against hand-worked networks and brute force over all states or routes."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from networks import all_routes
from torch import Tensor

from nettailor.student.complexity import FORMS, ExpectedComplexity, published, route
from nettailor.student.path_weights import PathWeights
from nettailor.student.wiring import Wiring, full_wiring

# Three layers, one skip: from each node to the next a block and a proxy; then the head.
WIRING = full_wiring(3, 1)
ALPHA = torch.tensor([0.9, 0.1, 0.6, 0.4, 0.8, 0.2, 1.0])
COST = torch.tensor([0.5, 0.05, 0.3, 0.03, 0.1, 0.02, 0.07])


def test_published_by_hand() -> None:
    """r = 1 - α. Into x1: .1·.9 = .09; x2: .4·.6 = .24; x3: .2·.8 = .16.

    Out of x1: .24; out of x2: .16; out of x3: 0, because the head is alone.

    block 1: 1 - .1 - 0   - .24 = .66    proxy 1: 1 - .9 - 0   - .24 = -.14
    block 2: 1 - .4 - .09 - .16 = .35    proxy 2: 1 - .6 - .09 - .16 = .15
    block 3: 1 - .2 - .24 - 0   = .56    proxy 3: 1 - .8 - .24 - 0   = -.04
    head:    1 - 0  - .16 - 0   = .84
    """
    by_hand = 0.5 * 0.66 + 0.05 * -0.14 + 0.3 * 0.35 + 0.03 * 0.15 + 0.1 * 0.56 + 0.02 * -0.04
    by_hand += 0.07 * 0.84
    assert float(published(COST, WIRING)(ALPHA)) == pytest.approx(by_hand, abs=1e-6)


def test_all_weight_on_the_blocks_costs_what_the_backbone_costs() -> None:
    wiring = full_wiring(5, 3)
    pretrained = ("block", "head")
    alpha = torch.tensor([float(path.kind in pretrained) for path in wiring.paths])
    cost = torch.rand(len(wiring.paths))
    backbone = sum(
        price for path, price in zip(wiring.paths, cost.tolist(), strict=True)
        if path.kind in pretrained
    )  # fmt: skip
    for form in FORMS.values():
        assert float(form(cost, wiring)(alpha)) == pytest.approx(backbone)


def test_published_can_be_negative() -> None:
    wiring = full_wiring(8, 3)
    cost = torch.full((len(wiring.paths),), 1 / len(wiring.paths))
    uniform = torch.tensor([1 / len(wiring.incoming[path.target]) for path in wiring.paths])
    assert float(published(cost, wiring)(uniform)) < 0


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_complexity_pulls_blocks_down(form: Callable[[Tensor, Wiring], ExpectedComplexity]) -> None:
    alpha = ALPHA.clone().requires_grad_()
    form(COST, WIRING)(alpha).backward()
    assert alpha.grad is not None
    assert (alpha.grad[::2] > 0).all()


def by_path(alpha: Tensor, cost: Tensor, wiring: Wiring) -> Tensor:
    """Equation 8 of the paper, path by path."""
    total = torch.zeros(())
    for position, path in enumerate(wiring.paths):
        into, out_of = wiring.incoming[path.source], wiring.outgoing[path.target]
        unreached = (1 - alpha[list(into)]).prod() if path.source else torch.zeros(())
        unread = (1 - alpha[list(out_of)]).prod() if path.target < wiring.depth else torch.zeros(())
        total = total + cost[position] * (alpha[position] - unreached - unread)
    return total


@pytest.mark.parametrize("skips", [1, 3, "dense"])
def test_published_is_the_sum_over_paths(skips: Literal["dense"] | int) -> None:
    """The value and its gradient, where nodes have one path and where they have many."""
    wiring = full_wiring(6, skips, identities=[2, 5], exits=[3])
    wiring = wiring.without([path for path in wiring.paths if path.target == 4 and path.source < 3])
    one = torch.rand(len(wiring.paths), dtype=torch.float64).requires_grad_()
    other = one.detach().clone().requires_grad_()
    cost = torch.rand(len(wiring.paths), dtype=torch.float64)
    value, by_hand = published(cost, wiring)(one), by_path(other, cost, wiring)
    torch.testing.assert_close(value, by_hand)
    value.backward()
    by_hand.backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_route_by_hand() -> None:
    """Into x2: block .5, identity .1, proxies from x0 .25 and from x1 .15; an exit reads x1.

    O3 = 1; O2 = .6, the head's; O1 = .4 (the exit's) + .6 · (.5 + .1 + .15) = .85.
    """
    wiring = full_wiring(2, "dense", identities=[2], exits=[1])
    alpha = torch.tensor([0.7, 0.3, 0.5, 0.1, 0.25, 0.15, 0.6, 0.4])
    cost = torch.tensor([0.4, 0.1, 0.3, 0.0, 0.06, 0.05, 0.2, 0.02])
    by_hand = (
        (0.4 * 0.7 + 0.1 * 0.3) * 0.85
        + (0.3 * 0.5 + 0.06 * 0.25 + 0.05 * 0.15) * 0.6
        + 0.2 * 0.6
        + 0.02 * 0.4
    )
    assert float(route(cost, wiring)(alpha)) == pytest.approx(by_hand, abs=1e-6)


WHOLE = {
    "one skip": full_wiring(3, 1, identities=[1, 3], exits=[2]),
    "dense": full_wiring(4, "dense", identities=[2, 3], exits=[1, 2, 4]),
    "no proxies": full_wiring(4, 0, identities=[1, 2, 4], exits=[3]),
}


def drawn(wiring: Wiring, seed: int) -> tuple[Tensor, Tensor]:
    """Path weights that sum to 1 into each node, and costs."""
    generator = torch.Generator().manual_seed(seed)
    weights = PathWeights(wiring)
    with torch.no_grad():
        weights.logits.copy_(2 * torch.randn(len(wiring.paths), generator=generator))
    return weights().detach(), torch.rand(len(wiring.paths), generator=generator)


@pytest.mark.parametrize("wiring", WHOLE.values(), ids=WHOLE)
def test_route_is_the_mean_over_all_routes(wiring: Wiring) -> None:
    """A route is drawn with the product of its α: these add up to 1."""
    routes = all_routes(wiring)
    assert len(set(routes)) == len(routes) > 10
    for seed in range(20):
        alpha, cost = drawn(wiring, seed)
        odds = [float(alpha[list(positions)].prod()) for positions in routes]
        prices = [float(cost[list(positions)].sum()) for positions in routes]
        assert sum(odds) == pytest.approx(1, abs=1e-5)
        mean = sum(odd * price for odd, price in zip(odds, prices, strict=True))
        value = float(route(cost, wiring)(alpha))
        assert value == pytest.approx(mean, abs=1e-5)
        assert min(prices) < value < max(prices)


def test_route_with_all_weight_on_one_costs_what_it_costs() -> None:
    """What the other paths weigh, at nodes that the route passes by, changes nothing."""
    wiring = WHOLE["dense"]
    alpha, cost = drawn(wiring, 1)
    for positions in all_routes(wiring):
        one = alpha.clone()
        for position in positions:
            one[list(wiring.incoming[wiring.paths[position].target])] = 0
            one[position] = 1
        price = float(cost[list(positions)].sum())
        assert float(route(cost, wiring)(one)) == pytest.approx(price, abs=1e-6)


@pytest.mark.parametrize("wiring", WHOLE.values(), ids=WHOLE)
def test_route_has_the_gradient_of_the_mean_over_all_routes(wiring: Wiring) -> None:
    """In the logits of the softmax, which are what trains."""
    weights = PathWeights(wiring)
    with torch.no_grad():
        weights.logits.copy_(torch.randn(len(wiring.paths)))
    cost = torch.rand(len(wiring.paths))
    route(cost, wiring)(weights()).backward()
    grown = weights.logits.grad
    weights.logits.grad = None
    alpha = weights()
    routes = [list(positions) for positions in all_routes(wiring)]
    sum((alpha[taken].prod() * cost[taken].sum() for taken in routes), torch.zeros(())).backward()
    assert grown is not None
    assert weights.logits.grad is not None
    torch.testing.assert_close(grown, weights.logits.grad, rtol=1e-4, atol=1e-6)
    alone = [group[0] for group in wiring.incoming if len(group) == 1]
    assert (grown[alone] == 0).all()
    others = [position for position in range(len(wiring.paths)) if position not in alone]
    assert (grown[others] != 0).all()
