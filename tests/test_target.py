"""The teacher answers as it does in eval mode, and stays as it is."""

from copy import deepcopy

import pytest
import torch
from networks import images, lively_chain, settle
from torch import nn

from nettailor.core.backbone import Backbone
from nettailor.teacher.target import as_target


def settled(backbone: str) -> Backbone:
    chain = lively_chain(backbone)
    settle(chain)
    return chain


@torch.no_grad()
@pytest.mark.parametrize(
    "backbone",
    ["test_resnet", "test_efficientnet", "seresnet18", "test_convnext", "regnetz_005", "repvgg_a0"],
)
def test_answers(backbone: str) -> None:
    """Folding rounds otherwise, at the nodes as well as at the logits."""
    chain, seen = settled(backbone), images(3)
    expected = chain(seen)
    answer = as_target(chain.train())(seen)
    assert not answer.logits.requires_grad
    for mine, theirs in zip(
        (answer.logits, *answer.nodes), (expected.logits, *expected.nodes), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_the_network_stays_as_it_is() -> None:
    chain = settled("test_resnet").train()
    before, modules = deepcopy(chain.state_dict()), list(chain.modules())
    as_target(chain)(images(3))
    assert all(part.training for part in chain.modules())
    assert list(chain.modules()) == modules
    after = chain.state_dict()
    assert all(after[name].equal(value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in chain.parameters())


@torch.no_grad()
def test_follows_weights_and_statistics() -> None:
    chain, seen = settled("test_resnet"), images(3)
    target = as_target(chain)
    first = target(seen).logits
    assert target(seen).logits.equal(first)
    chain.classifier.bias.add_(1)
    torch.testing.assert_close(target(seen).logits, first + 1)
    chain.train()(images(8))
    chain.eval()
    expected = chain(seen).logits
    assert not torch.allclose(expected, first + 1)
    torch.testing.assert_close(target(seen).logits, expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_norms_without_running_statistics_answer_by_the_batch() -> None:
    chain, seen = settled("test_resnet"), images(3)
    for part in chain.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.track_running_stats, part.running_mean, part.running_var = False, None, None
    torch.testing.assert_close(as_target(chain)(seen).logits, chain(seen).logits)
