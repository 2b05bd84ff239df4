"""Precisions of arithmetic: bf16 on a CPU, and what stays in float32 whatever is asked for."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from networks import lively_chain, student_of
from shell import DIGITS, SMALL, Shell
from steps import student_steps
from torch import nn

from nettailor.cli import tailor
from nettailor.core.device import start_accelerator
from nettailor.core.latency import as_served
from nettailor.core.scores import classify


def test_half_precision_without_a_gpu_is_refused(shell: Shell) -> None:
    message = shell.refusal(*SMALL, "--precision", "fp16")
    assert re.search(r"fp16 needs a CUDA device; use bf16 or float32", message)


@pytest.fixture
def _another_precision() -> Iterator[None]:
    """accelerate holds a process to one precision; a command has a process of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    start_accelerator("cpu", "float32")  # the one of the tests that follow


@pytest.mark.slow  # quick: losses and scores under autocast
@pytest.mark.usefixtures("_another_precision")
def test_bfloat16_trains_cuts_and_scores_on_a_cpu(shell: Shell) -> None:
    argv = (*DIGITS, "--precision", "bf16")
    assert shell(*argv)[0] == 0
    assert shell(*argv, "--remove", "[1]", main=tailor.main)[0] == 0


def bfloat16() -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_classifiers_compute_in_float32_under_autocast(backbone: str) -> None:
    """Of the teacher and of every head of the student: blocks round to bfloat16, logits do not."""
    chain = lively_chain(backbone)
    student = student_of(backbone, 1).eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad(), bfloat16():
        teacher, out = chain(images), student(images)
        features = chain.neck(chain.nodes(images)[-1])
    assert teacher.logits.dtype == out.logits.dtype == torch.float32
    assert all(logits.dtype == torch.float32 for logits in out.by_head)
    by_hand = nn.functional.linear(features.float(), chain.classifier.weight, chain.classifier.bias)
    torch.testing.assert_close(teacher.logits, by_hand, rtol=0, atol=1e-6)
    rounded = teacher.logits.bfloat16().float()
    assert not torch.equal(rounded, teacher.logits), "the check needs logits between two bfloat16"
    blocks = [node for node in teacher.nodes[1:] if node is not None]
    if backbone != "test_convnext":  # whose norms give float32
        assert any(node.dtype == torch.bfloat16 for node in blocks)


@pytest.mark.parametrize("published", [False, True])
def test_losses_compute_in_float32_under_autocast(published: bool) -> None:
    """All terms, beside the same in float32."""
    steps = student_steps("test_resnet", published=published, side=32, device=torch.device("cpu"))
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    exact = steps.objective(steps.network, images, labels)
    with bfloat16():
        terms = steps.objective(steps.network, images, labels)
    assert {term.dtype for term in terms.values()} == {torch.float32}
    for mine, theirs in zip(terms.values(), exact.values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.03, atol=1e-3)


def test_scores_are_of_the_network_in_float32(accelerator: Accelerator) -> None:
    """Whatever precision steps take: what is handed over computes in float32."""
    chain = lively_chain("test_resnet")
    images = torch.randn(6, 3, 32, 32)
    batch = [(images, torch.zeros(6, dtype=torch.long))]
    with torch.no_grad():
        expected = chain.eval()(images).logits
    with bfloat16():  # as a command of that precision would have it around its steps
        inside = classify(chain, batch, accelerator).logits
    assert torch.equal(classify(chain, batch, accelerator).logits, expected)
    assert not torch.equal(inside, expected), "the check needs images that rounding moves"


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_a_network_as_it_is_served(backbone: str) -> None:
    """Half precision in and out, norms in float32, the original untouched."""
    student = student_of(backbone, 1).eval()
    served = as_served(student, torch.bfloat16)
    images = torch.randn(4, 3, 32, 32)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
    with torch.inference_mode():
        expected, found = student(images), served(images.bfloat16())
    for mine, theirs in zip(found.nodes, expected.nodes, strict=True):
        assert mine is not None
        assert theirs is not None
        assert mine.dtype == torch.bfloat16
        assert float((mine - theirs).norm() / theirs.norm()) < 0.03
    for module in served.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_mean.dtype == module.weight.dtype == torch.float32
