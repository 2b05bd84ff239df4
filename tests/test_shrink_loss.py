"""What a student that shrinks loses: its own end, the exits, and the teacher's say in both."""

import pytest
import torch
import torch.nn.functional as F
from conftest import lively_chain
from networks import grown, labelled
from torch import Tensor

from nettailor.prune.shrink_loss import ShrinkLoss


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


def test_at_a_lower_resolution_the_teacher_counts_from_the_start() -> None:
    """What is whole is not the teacher there, which sees all pixels."""
    network, (pictures, labels) = grown(), labelled(8)
    network.student.side = 16
    chain = lively_chain("test_resnet").eval()
    alone, taught = (ShrinkLoss(chain, distill=one)(network, pictures, labels) for one in (0, 0.5))
    assert network.whole
    assert taught["end"] > alone["end"]
