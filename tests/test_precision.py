"""Precisions of arithmetic on a CPU: bf16 serves, fp16 is refused."""

import re
from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState
from shell import DIGITS, SMALL, Shell

from nettailor import tailor


def test_half_precision_without_a_gpu_is_refused(shell: Shell) -> None:
    message = shell.refusal(*SMALL, "--precision", "fp16")
    assert re.search(r"fp16 needs a CUDA device; use bf16 or float32", message)


@pytest.fixture
def _another_precision() -> Iterator[None]:
    """accelerate holds a process to one precision; a command has a process of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_another_precision")
def test_bfloat16_trains_cuts_and_scores_on_a_cpu(shell: Shell) -> None:
    argv = (*DIGITS, "--precision", "bf16")
    assert shell(*argv)[0] == 0
    assert shell(*argv, "--remove", "[1]", "--teacher.ema", "0.5", main=tailor.main)[0] == 0
