"""Label smoothing, by hand, and the same for teacher and student."""

from math import log

import pytest
import torch
from small_stages import batches, student_and_objective
from torch import nn

from nettailor.core.backbone import NetOutput
from nettailor.teacher.objective import CrossEntropy


def test_label_smoothing_by_hand():
    """ε = 0.2 of the target is spread over both classes: 0.9 and 0.1. p = (3/4, 1/4)."""

    class Fixed(nn.Module):
        def forward(self, images):
            return NetOutput(torch.tensor([[log(3.0), 0.0]]), [images])

    images, labels = torch.zeros(1, 3, 2, 2), torch.tensor([0])
    (plain,) = CrossEntropy()(Fixed(), images, labels).values()
    (smooth,) = CrossEntropy(0.2)(Fixed(), images, labels).values()
    assert plain.item() == pytest.approx(log(4 / 3))
    assert smooth.item() == pytest.approx(0.9 * log(4 / 3) + 0.1 * log(4))


def test_class_weights_by_hand():
    """Two images with p = (3/4, 1/4), one of each class, weigh 0.5 and 1.5: a mean over images."""

    class Fixed(nn.Module):
        def forward(self, images):
            return NetOutput(torch.tensor([[log(3.0), 0.0]] * 2), [images])

    images, labels = torch.zeros(2, 3, 2, 2), torch.tensor([0, 1])
    (loss,) = CrossEntropy(0.0, torch.tensor([0.5, 1.5]))(Fixed(), images, labels).values()
    assert loss.item() == pytest.approx((0.5 * log(4 / 3) + 1.5 * log(4)) / 2)


def test_class_weights_of_the_student_are_the_teachers():
    student, objective = student_and_objective(1)
    student.eval()
    images, labels = next(batches().epoch(1))
    plain = objective(student, images, labels)["cross_entropy"]
    objective.class_weights = torch.linspace(0.5, 1.5, 10)[: student(images).logits.shape[1]]
    weighted = objective(student, images, labels)["cross_entropy"]
    (expected,) = CrossEntropy(0.1, objective.class_weights)(student, images, labels).values()
    assert weighted.item() == pytest.approx(expected.item())
    assert abs(weighted.item() - plain.item()) > 1e-4


def test_label_smoothing_of_the_student_is_the_teachers():
    student, objective = student_and_objective(1)
    student.eval()
    images, labels = next(batches().epoch(1))
    smooth = objective(student, images, labels)["cross_entropy"]
    (expected,) = CrossEntropy(0.1)(student, images, labels).values()
    (plain,) = CrossEntropy()(student, images, labels).values()
    assert smooth.item() == pytest.approx(expected.item())
    assert abs(smooth.item() - plain.item()) > 1e-4
