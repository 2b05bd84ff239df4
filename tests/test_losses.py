"""Losses by hand: label smoothing, class weights, distillation into a narrow network."""

from math import log

import pytest
import torch
from small_stages import batches, student_and_objective
from torch import Tensor, nn

from nettailor.core.backbone import NetOutput
from nettailor.prune.distillation import Distillation
from nettailor.teacher.objective import CrossEntropy


class Fixed(nn.Module):
    """A network that says the same whatever it sees."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, images: Tensor) -> NetOutput:
        return NetOutput(self.logits.expand(len(images), -1), [])


QUARTER = Fixed(log(3.0), 0.0)  # p = (3/4, 1/4)


def test_label_smoothing_by_hand():
    """ε = 0.2 of the target is spread over both classes: 0.9 and 0.1."""
    images, labels = torch.zeros(1, 3, 2, 2), torch.tensor([0])
    (plain,) = CrossEntropy()(QUARTER, images, labels).values()
    (smooth,) = CrossEntropy(0.2)(QUARTER, images, labels).values()
    assert plain.item() == pytest.approx(log(4 / 3))
    assert smooth.item() == pytest.approx(0.9 * log(4 / 3) + 0.1 * log(4))


def test_class_weights_by_hand():
    """Two images, one of each class, weigh 0.5 and 1.5: a mean over images."""
    images, labels = torch.zeros(2, 3, 2, 2), torch.tensor([0, 1])
    (loss,) = CrossEntropy(0.0, torch.tensor([0.5, 1.5]))(QUARTER, images, labels).values()
    assert loss.item() == pytest.approx((0.5 * log(4 / 3) + 1.5 * log(4)) / 2)


def test_distillation_by_hand():
    """p = 0.9 of the label. At temperature 2 the narrow one says 1/4 and 3/4, the whole one 1/2:
    KL = ½ log(½ / ¼) + ½ log(½ / ¾) = ½ log 4/3."""
    objective = Distillation(Fixed(0.0, 0.0))
    terms = objective(Fixed(0.0, log(9)), torch.zeros(1, 3, 2, 2), torch.tensor([1]))
    assert {name: float(term) for name, term in terms.items()} == pytest.approx({
        "cross_entropy": -log(0.9), "distillation": 0.5 * 4 * 0.5 * log(4 / 3),
    })  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
def test_the_students_cross_entropy_is_the_teachers(weighted):
    """With label smoothing of 0.1, and with class weights on top."""
    student, objective = student_and_objective(1)
    images, labels = next(batches().epoch(1))
    classes = student.eval()(images).logits.shape[1]
    plain = CrossEntropy()(student, images, labels)["cross_entropy"]
    if weighted:
        plain = objective(student, images, labels)["cross_entropy"]
        objective.class_weights = torch.linspace(0.5, 1.5, 10)[:classes]
    mine = objective(student, images, labels)["cross_entropy"]
    (expected,) = CrossEntropy(0.1, objective.class_weights)(student, images, labels).values()
    assert mine.item() == pytest.approx(expected.item())
    assert abs(mine.item() - plain.item()) > 1e-4
