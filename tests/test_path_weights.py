"""The softmax over the paths into each node."""

from math import exp

import pytest
import torch
from torch import Tensor

from nettailor.student.path_weights import PathWeights
from nettailor.student.wiring import Path, Wiring, full_wiring


def plain(logits: Tensor, wiring: Wiring) -> Tensor:
    """A softmax a node, one after the other."""
    result = torch.zeros(len(wiring.paths))
    for group in wiring.incoming:
        if group:
            result[list(group)] = logits[list(group)].softmax(0)
    return result


@pytest.mark.parametrize("beside", [[], [1, 4, 6]])
@pytest.mark.parametrize("skips", [1, 3, "dense"])
def test_each_node_sums_to_one_and_equals_a_plain_softmax(skips, beside):
    wiring = full_wiring(6, skips, identities=beside, exits=beside)
    weights = PathWeights(wiring)
    with torch.no_grad():
        weights.logits.copy_(3 * torch.randn(len(wiring.paths)))
    alpha = weights().detach()
    assert alpha.shape == (len(wiring.paths),)
    for group in wiring.incoming[1:]:
        assert float(alpha[list(group)].sum()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(alpha, plain(weights.logits.detach(), wiring), rtol=0, atol=1e-6)


def test_start_by_hand():
    """With n proxies a block begins at e² / (e² + n e⁻²): 0.948 at the three of k = 3."""
    wiring = full_wiring(5, 3)
    alpha = dict(zip(wiring.paths, PathWeights(wiring)().tolist(), strict=True))
    for node, proxies in ((1, 1), (2, 2), (3, 3), (4, 3), (5, 3)):
        block = exp(2) / (exp(2) + proxies * exp(-2))
        assert alpha[Path(node - 1, node, "block")] == pytest.approx(block, abs=1e-6)
        assert alpha[Path(node - 1, node, "proxy")] == pytest.approx((1 - block) / proxies)
    assert round(alpha[Path(2, 3, "block")], 3) == 0.948
    assert alpha[Path(5, 6, "head")] == 1.0


def test_identities_start_as_proxies_do_and_heads_alike():
    """Into x2 lead a block, an identity and two proxies; the logits have three heads."""
    wiring = full_wiring(3, 2, identities=[2], exits=[1, 3])
    alpha = dict(zip(wiring.paths, PathWeights(wiring)().tolist(), strict=True))
    block = exp(2) / (exp(2) + 3 * exp(-2))
    assert alpha[Path(1, 2, "block")] == pytest.approx(block, abs=1e-6)
    for path in (Path(1, 2, "identity"), Path(0, 2, "proxy"), Path(1, 2, "proxy")):
        assert alpha[path] == pytest.approx((1 - block) / 3)
    for path in (Path(3, 4, "head"), Path(1, 4, "exit"), Path(3, 4, "exit")):
        assert alpha[path] == pytest.approx(1 / 3)


def test_an_only_path_weighs_exactly_one():
    wiring = Wiring(
        4,
        (
            Path(0, 1, "proxy"), Path(1, 3, "proxy"), Path(0, 3, "proxy"), Path(3, 4, "head"),
        ),
    )  # fmt: skip
    weights = PathWeights(wiring)
    for value in (-80.0, -2.0, 0.3, 80.0):
        with torch.no_grad():
            weights.logits[[0, 3]] = value
        assert weights().tolist() == [1.0, 0.5, 0.5, 1.0]


def test_gradients_are_finite_where_rows_are_padded():
    """Nodes 1 and 2 have fewer paths than node 3, and the padding is -inf."""
    wiring = full_wiring(4, 3)
    weights = PathWeights(wiring)
    assert weights.padding.any()
    factors = torch.arange(1.0, len(wiring.paths) + 1)
    (weights() * factors).sum().backward()
    expected = weights.logits.detach().clone().requires_grad_()
    (
        torch.cat([expected[list(g)].softmax(0) for g in wiring.incoming[1:]]) * factors
    ).sum().backward()
    assert torch.isfinite(weights.logits.grad).all()
    assert weights.logits.grad[:-1].abs().min() > 0
    assert weights.logits.grad[-1] == 0  # the head is alone
    torch.testing.assert_close(weights.logits.grad, expected.grad)


def test_extreme_logits_stay_finite():
    wiring = full_wiring(3, 3)
    weights = PathWeights(wiring)
    with torch.no_grad():
        for position, path in enumerate(wiring.paths):
            weights.logits[position] = 1e4 if path.kind in ("block", "head") else -1e4
    alpha = weights()
    assert alpha.tolist() == [float(path.kind in ("block", "head")) for path in wiring.paths]
    alpha.sum().backward()
    assert torch.isfinite(weights.logits.grad).all()


def test_only_the_logits_are_state():
    """The tables follow from the wiring: a file holds no second word on it."""
    weights = PathWeights(full_wiring(3, 1))
    assert list(weights.state_dict()) == ["logits"]
    assert [name for name, _ in weights.named_parameters()] == ["logits"]
