"""What a path is worth: measured, against losses worked out path by path, and by its weight."""

import copy

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from networks import enliven, labelled, student_of
from test_student import by_the_formula
from torch import Tensor

from nettailor.prune.importance import measured, measured_on
from nettailor.student.loss import expected_cross_entropy
from nettailor.student.network import Student
from nettailor.student.wiring import Path as Way

CLASSES = 5


def lively_student() -> Student:
    student = student_of("test_resnet", 1)
    enliven(student.proxies)
    enliven(student.heads)
    with torch.no_grad():
        student.path_weights.logits.normal_()
    return student.eval()


@torch.no_grad()
def loss_by_hand(student: Student, images: Tensor, labels: Tensor) -> float:
    """Σ w CE over the heads, every node from its own layers."""
    _, heads, weights = by_the_formula(student, images)
    losses = [float(F.cross_entropy(logits, labels)) for logits in heads]
    return sum(float(w) * loss for w, loss in zip(weights, losses, strict=True))


def alone(student: Student, path: Way) -> Student:
    """With all weight of its node on a path."""
    twin = copy.deepcopy(student)
    with torch.no_grad():
        for position, other in enumerate(student.wiring.paths):
            if other.target == path.target and other != path:
                twin.path_weights.logits[position] = -1e9
    return twin


def test_measured_is_the_loss_as_it_is_less_the_loss_with_the_path_alone() -> None:
    student = lively_student()
    images, labels = labelled(12)
    wiring = student.wiring
    assert {path.kind for path in wiring.paths} == {"block", "identity", "proxy", "head", "exit"}

    def loss() -> float:
        output = student(images)
        return float(
            expected_cross_entropy(
                torch.stack(output.by_head), student.of_heads(output.alpha), labels
            )
        )

    values = measured(student, loss)
    as_it_is = loss_by_hand(student, images, labels)
    assert len(values) == len(wiring.paths)
    for path, value in zip(wiring.paths, values, strict=True):
        expected = as_it_is - loss_by_hand(alone(student, path), images, labels)
        assert value == pytest.approx(expected, abs=2e-4), path.key
    assert len({round(value, 3) for value in values}) > len(values) / 2, "they must be told apart"


def test_nothing_of_the_student_moves() -> None:
    student = lively_student()
    images, _ = labelled(12)
    before = copy.deepcopy(student.state_dict())
    measured(student, lambda: float(student(images).logits.square().mean()))
    for name, value in student.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_nodes_only_path_is_worth_nothing() -> None:
    """Without proxies, identities and exits every node has one path; nothing is left to look at."""
    student = student_of("test_resnet", 0, beside=False)
    calls = []

    def loss() -> float:
        calls.append(1)
        return float(len(calls))

    assert measured(student, loss) == [0.0] * 5
    # beside nodes of two paths; the last block makes its node narrower, so that nothing else fits
    student = student_of("test_resnet", 0, exits=False)
    calls.clear()
    values = measured(student, loss)
    by_key = dict(zip((path.key for path in student.wiring.paths), values, strict=True))
    assert [key for key, value in by_key.items() if value == 0] == ["block-3-4", "head-4-5"]
    assert len(calls) == 1 + 6


def test_measured_on_batches_with_the_statistics_of_each(accelerator: Accelerator) -> None:
    """The mean over batches, and of the student nothing moves."""
    student, batches = lively_student(), [labelled(12, seed) for seed in (1, 2, 3)]
    twin = copy.deepcopy(student).train()

    def loss() -> float:
        total = 0.0
        for images, labels in batches:
            output = twin(images)
            by_head, heads = torch.stack(output.by_head), twin.of_heads(output.alpha)
            total += float(expected_cross_entropy(by_head, heads, labels)) / len(batches)
        return total

    expected = measured(twin, loss)
    before = copy.deepcopy(student.state_dict())
    assert any(not torch.equal(v, before[n]) for n, v in twin.state_dict().items()), "it would"
    modes = {name: module.training for name, module in student.named_modules()}
    found = measured_on(student, batches, accelerator)
    assert found == pytest.approx(expected, abs=1e-4)
    for name, value in student.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert {name: module.training for name, module in student.named_modules()} == modes
