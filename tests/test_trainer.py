"""The training loop: best epoch and last, the moving average, what is told of each epoch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from small_stages import PLAIN, Log, Tiny, fit_tiny
from torch import Tensor, nn

from nettailor.core import training_state
from nettailor.core.scores import Scores
from nettailor.teacher.objective import CrossEntropy


def is_state(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_best_and_last(tmp_path: Path, accelerator: Accelerator) -> None:
    scores = [Scores(10, 0, 1), Scores(60, 0, 1), Scores(60, 0, 2), Scores(30, 0, 1)]
    log = Log()
    network, fitted = fit_tiny(
        tmp_path / "best.pt", accelerator, scores=scores, watcher=log
    )  # fmt: skip
    assert [is_state(network, state) for state in log.weights] == [False, True, False, False]
    assert fitted.best == scores[1]
    log = Log()
    network, fitted = fit_tiny(
        tmp_path / "last.pt", accelerator, scores=scores, watcher=log, keep="last"
    )
    assert [is_state(network, state) for state in log.weights] == [False, False, False, True]
    assert fitted.best == scores[3]


@pytest.mark.parametrize(("accuracy", "stays"), [(61.0, True), (59.0, False)])
def test_the_start_may_be_best(
    tmp_path: Path,
    accelerator: Accelerator,
    monkeypatch: pytest.MonkeyPatch,
    accuracy: float,
    stays: bool,
) -> None:
    """In a call that goes on, too; where the last epoch is asked for, it is not."""
    log, start = Log(), Scores(accuracy, 0, 1)
    scores = [Scores(10, 0, 1), Scores(60, 0, 1), Scores(20, 0, 1), Scores(30, 0, 1)]
    path = tmp_path / "best.pt"

    def breaks(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if next(steps):
            raise KeyboardInterrupt
        return CrossEntropy()(network, images, labels)

    steps = iter([0, 1])  # within the first epoch
    with monkeypatch.context() as patched:
        patched.setattr(training_state, "_LEAST_SECONDS", 0.0)
        patched.setattr(training_state, "_LEAST_RATIO", 0.0)
        with pytest.raises(KeyboardInterrupt):
            fit_tiny(path, accelerator, start=start, objective=breaks)
    assert path.exists()
    fit_tiny(path, accelerator, scores=scores[:1], start=start, stop=lambda *_: True)
    how = {"watcher": log, "start": start}
    network, fitted = fit_tiny(path, accelerator, scores=scores[1:], **how)
    assert fitted.best == (start if stays else scores[1])
    assert any(is_state(network, state) for state in log.weights) != stays
    torch.manual_seed(3)
    assert is_state(network, Tiny().state_dict()) == stays
    _, fitted = fit_tiny(tmp_path / "last.pt", accelerator, scores=scores, keep="last", **how)
    assert fitted.best == scores[3]


def test_at_the_same_accuracy_the_lower_loss_is_best(
    tmp_path: Path, accelerator: Accelerator
) -> None:
    scores = [Scores(60, 0, 1.0), Scores(60, 0, 0.5), Scores(60, 0, 0.5), Scores(60, 0, 0.7)]
    log = Log()
    network, _ = fit_tiny(tmp_path / "state.pt", accelerator, scores=scores, watcher=log)
    assert [is_state(network, state) for state in log.weights] == [False, True, False, False]


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
