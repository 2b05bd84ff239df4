"""Losses and weights that become NaN or infinite: named, and what was saved before stays."""

import re
from dataclasses import replace

import pytest
from shell import DIGITS, SMALL, run_of
from small_stages import PLAIN, Log, batches, fit_tiny
from torch import Tensor, nn

from nettailor.core.errors import NotFiniteError
from nettailor.teacher.objective import CrossEntropy

# In the training loop


class Spoilt:
    """Cross-entropy, and a second term that breaks at one step of one epoch."""

    def __init__(self, at: int, value: float) -> None:
        self.at, self.value, self.calls = at, value, 0

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        (plain,) = CrossEntropy()(network, images, labels).values()
        factor = self.value if self.calls == self.at else 0.1
        return {"cross_entropy": plain, "mimicry": plain.detach() * factor}


@pytest.mark.usefixtures("_saved_every_epoch")
@pytest.mark.parametrize(
    ("steps", "at", "value", "words"),
    [
        # 3 steps an epoch: call 5 is epoch 2, step 2
        (3, 5, float("nan"), "'mimicry' became nan at epoch 2, step 2;"),
        (3, 6, float("inf"), "'mimicry' became inf at epoch 2, step 3;"),
        # looked at every 32 steps: step 34 of 35 is in the second look of its epoch
        (35, 35 + 34, float("nan"), "'mimicry' became nan at epoch 2, step 34;"),
    ],
)
def test_not_finite(tmp_path, accelerator, steps, at, value, words):
    """Names term, epoch and step; the state of epoch 1 stays on disk and can be gone on from."""
    path = tmp_path / "state.pt"
    kept: dict[int, bytes] = {}
    log = Log(look=lambda epoch: kept.update({epoch: path.read_bytes()}))
    loader = batches(2 * steps, 2)
    assert loader.steps_per_epoch == steps
    with pytest.raises(NotFiniteError) as caught:
        fit_tiny(path, accelerator, objective=Spoilt(at, value), loader=loader, watcher=log)
    assert words in str(caught.value)
    assert "lower learning rate" in str(caught.value)
    assert set(kept) == {1}
    assert path.read_bytes() == kept[1]
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
    _, fitted = fit_tiny(path, accelerator, objective=Spoilt(-1, 0.0), loader=loader)
    assert len(fitted.history) == 4


def test_a_learning_rate_that_explodes_is_told(tmp_path, accelerator):
    with pytest.raises(NotFiniteError, match="'cross_entropy' became nan at epoch 1"):
        fit_tiny(
            tmp_path / "state.pt", accelerator, schedule=replace(PLAIN, lr=1e30), loader=batches(64)
        )
    assert not (tmp_path / "state.pt").exists()


# In the commands


def test_loss_that_is_not_finite_at_once(shell):
    code, err = shell(*DIGITS, "--teacher.lr", "1e30")
    assert code == 3
    assert re.fullmatch(
        r"error: the loss term 'cross_entropy' became (nan|inf) at epoch 1, step \d+; [^\n]+\n", err
    )
    folder = run_of(shell, "digits")
    assert not (folder / "state" / "teacher.pt").exists()
    assert not (folder / "summary.json").exists()
    assert shell(*DIGITS, "--overwrite")[0] == 0


def test_weights_broken_by_the_last_step_are_not_saved(shell):
    """One step, whose loss is still finite; only what comes after it is not."""
    few = ("--limit.train", "100", "--limit.test", "20")
    code, err = shell(*SMALL, *few, "--teacher.optimizer", "sgd", "--teacher.lr", "1e30")
    assert code == 3
    assert re.search(r"the validation loss became \w+ after epoch 1: its last steps", err)
    assert not list(run_of(shell, "digits").rglob("*.pt"))
