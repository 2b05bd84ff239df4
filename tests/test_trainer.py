"""The training loop: it ends with its last epoch, and tells of each."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from small_stages import PLAIN, Log, fit_tiny
from torch import Tensor, nn

from nettailor.core.scores import Scores


def is_state(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_ends_with_the_last_epoch(tmp_path: Path, accelerator: Accelerator) -> None:
    """The learning rate has fallen by then; which epoch of few images is best is chance."""
    scores = [Scores(10, 0, 1), Scores(60, 0, 1), Scores(60, 0, 2), Scores(30, 0, 1)]
    log = Log()
    network, fitted = fit_tiny(tmp_path / "state.pt", accelerator, scores=scores, watcher=log)
    assert [is_state(network, state) for state in log.weights] == [False, False, False, True]
    assert fitted.scores == scores[3]


def test_history_rows(tmp_path: Path, accelerator: Accelerator) -> None:
    """The mean of each term over the epoch; the loss is their sum."""
    values = iter([1.0, 2.0, 3.0, 4.0, 5.0, 9.0])

    def objective(network: nn.Module, images: Tensor, _: Tensor) -> dict[str, Tensor]:
        zero = 0 * network(images).logits.sum()
        return {"first": zero + next(values), "second": zero + 0.5}

    _, fitted = fit_tiny(
        tmp_path / "state.pt",
        accelerator,
        objective=objective,  # type: ignore[arg-type]
        schedule=replace(PLAIN, epochs=2),
    )
    assert [row["first"] for row in fitted.history] == [2.0, 6.0]
    assert [row["second"] for row in fitted.history] == [0.5, 0.5]
    assert [row["loss"] for row in fitted.history] == [2.5, 6.5]
    assert [row["val_accuracy"] for row in fitted.history] == [50.0, 50.0]
    assert fitted.seconds == sum(row["seconds"] for row in fitted.history) > 0
    assert fitted.total_seconds >= fitted.seconds


def test_the_learning_rate_goes_on_over_the_epochs(
    tmp_path: Path, accelerator: Accelerator
) -> None:
    """A drop to a tenth after two epochs; a constant rate beside it does not drop."""
    schedule = replace(PLAIN, shape="step-2")
    _, fitted = fit_tiny(tmp_path / "step.pt", accelerator, schedule=schedule)
    assert [row["lr"] for row in fitted.history] == pytest.approx([0.05, 0.05, 0.005, 0.005])
    _, fitted = fit_tiny(tmp_path / "constant.pt", accelerator)
    assert [row["lr"] for row in fitted.history] == pytest.approx([0.05] * 4)
