"""Ω in its two forms, on tensors small enough to work out by hand."""

import pytest
import torch
from torch import Tensor

from nettailor.core.backbone import NetOutput
from nettailor.student.mimicry import MimicryForm, mimicry, node_scales

# two images; x_1 has 4 elements an image and a variance of 4, x_2 has 1 element an image
STEM = torch.full((2, 3, 4, 4), 7.0)
X1 = torch.tensor([[[[2.0, -2.0], [2.0, -2.0]]], [[[2.0, -2.0], [-2.0, 2.0]]]])
X2 = torch.tensor([[[[1.0]]], [[[3.0]]]])
LOGITS = torch.tensor([[1.0, 5.0, 3.0], [3.0, 1.0, 5.0]])
TEACHER = NetOutput(LOGITS, [STEM, X1, X2])
FORMS: tuple[MimicryForm, ...] = ("mean-square", "normalized")


def scales_of(form: MimicryForm, output: NetOutput) -> Tensor:
    return torch.tensor(node_scales(form, output))


def test_scales_by_hand() -> None:
    """Unbiased variances: 8·4/7, 2/1 and 16/5."""
    assert node_scales("mean-square", TEACHER) == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    by_hand = [7 / 32 / 3, 1 / 2 / 3, 5 / 16 / 3]
    assert node_scales("normalized", TEACHER) == pytest.approx(by_hand)


def test_values_by_hand() -> None:
    """Off by 1 at every element of x_1, by 2 at x_2, by 3 at the logits; the stem is no part."""
    student = NetOutput(LOGITS - 3, [STEM * 0, X1 + 1, X2 + 2])
    by_hand = {
        "mean-square": (1 + 4 + 9) / 3,
        "normalized": (1 * 7 / 32 + 4 / 2 + 9 * 5 / 16) / 3,
    }
    for form in FORMS:
        value = mimicry(student, TEACHER, scales_of(form, TEACHER))
        assert value.shape == ()
        assert float(value) == pytest.approx(by_hand[form])


@pytest.mark.parametrize("form", FORMS)
def test_zero_exactly_when_student_and_teacher_agree(form: MimicryForm) -> None:
    scales = scales_of(form, TEACHER)
    assert float(mimicry(TEACHER, TEACHER, scales)) == 0
    for nodes, logits in (
        ([STEM, X1 + 1e-2, X2], LOGITS),
        ([STEM, X1, X2 + 1e-2], LOGITS),
        ([STEM, X1, X2], LOGITS + 1e-2),
    ):
        assert float(mimicry(NetOutput(logits, [*nodes]), TEACHER, scales)) > 0


@pytest.mark.parametrize("form", FORMS)
def test_nodes_that_are_gone_are_skipped(form: MimicryForm) -> None:
    """What is left keeps its own factor: x_2 and the logits do not shift to x_1's."""
    scales = scales_of(form, TEACHER)
    cut = NetOutput(LOGITS - 3, [STEM, None, X2 + 2])
    assert float(mimicry(cut, TEACHER, scales)) == pytest.approx(4 * scales[1] + 9 * scales[2])
    bare = NetOutput(LOGITS - 3, [STEM, None, None])
    assert float(mimicry(bare, TEACHER, scales)) == pytest.approx(9 * scales[2])


def test_normalised_is_one_for_a_student_that_predicts_the_mean() -> None:
    """Whatever the scale and offset of a node, and up to the n / (n - 1) of the variance."""
    tensors: list[Tensor] = [
        torch.randn(16, 8, 6, 6) * spread + offset
        for spread, offset in ((0.01, 3), (1, 0), (50, 9))
    ]
    teacher = NetOutput(4 * torch.randn(16, 100) - 2, [STEM, *tensors])
    student = NetOutput(
        torch.full_like(teacher.logits, float(teacher.logits.mean())),
        [STEM, *(torch.full_like(tensor, float(tensor.mean())) for tensor in tensors)],
    )
    value = mimicry(student, teacher, scales_of("normalized", teacher))
    assert float(value) == pytest.approx(1, rel=2e-3)


def test_a_dead_node_does_not_make_the_scale_infinite() -> None:
    teacher = NetOutput(LOGITS, [STEM, torch.zeros_like(X1), X2])
    scales = scales_of("normalized", teacher)
    assert scales[0] == pytest.approx(1e6 / 3)
    assert float(mimicry(teacher, teacher, scales)) == 0


def test_gradient_flows_into_every_node_and_the_logits() -> None:
    leaves = [tensor.clone().requires_grad_() for tensor in (X1 + 1, X2 + 1, LOGITS + 1)]
    student = NetOutput(leaves[2], [STEM, leaves[0], leaves[1]])
    mimicry(student, TEACHER, scales_of("normalized", TEACHER)).backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.abs().min() > 0


def test_half_precision_is_compared_in_full() -> None:
    """In float16 a difference of 300 squared is already infinite."""
    student = NetOutput(LOGITS.half() + 300, [STEM, X1.half(), X2.half()])
    teacher = NetOutput(LOGITS.half(), [STEM, X1.half(), X2.half()])
    value = mimicry(student, teacher, scales_of("mean-square", teacher))
    assert float(value) == pytest.approx(300**2 / 3, rel=1e-3)
