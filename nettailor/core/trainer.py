"""The one training loop: teacher, student and fine-tuning differ in their objective only."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nettailor.core import ranks
from nettailor.core.epochs import Epochs
from nettailor.core.errors import NotFiniteError, UserError
from nettailor.core.gradients import Gradients
from nettailor.core.interruption import Interrupted, deferred
from nettailor.core.memory import room_for
from nettailor.core.objective import Objective
from nettailor.core.random_state import random_state, set_random_state
from nettailor.core.schedule import Schedule, make_optimizer, make_scheduler
from nettailor.core.scores import Scores, as_scores
from nettailor.core.state import latest_state, write_state

# Asked after each epoch with its number and the best scores so far; True ends the training.
Stop = Callable[[int, Scores], bool]

_STATE_KEYS = (
    "network", "optimizer", "scaler", "random", "history", "best", "kept", "course",
    "terms", "seconds",
)  # fmt: skip
# A state is saved when at least so many seconds have passed, and fifty times what the last one
# took, so that saving costs at most 2 % of the time; and once more at the end.
_LEAST_SECONDS = 30.0
_LEAST_RATIO = 50.0
_ADVICE = (
    "what earlier epochs saved is kept. Try a lower learning rate (other settings need --overwrite "
    "or another --out)"
)
_CHECK_EVERY = 32  # steps between looks at the loss: each look waits for the device


class Watcher(Protocol):
    """Sees a stage train: progress bar, TensorBoard, metrics.csv."""

    def begin(
        self, history: Sequence[Mapping[str, float]], network: nn.Module, *, within: bool
    ) -> None:
        """Before the first step of this session, with the epochs of earlier ones.

        network: as it is judged. within: it has taken steps since the last of these epochs.
        """

    def warn(self, message: str) -> None:
        """Something that the user should know."""

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        """After a step, counted from 1 within the epoch; the loss is given after some only."""

    def epoch(self, row: Mapping[str, float], network: nn.Module) -> None:
        """After an epoch, with its metrics; the first is row["epoch"] = 1."""


@dataclass
class Fitted:
    """The course of a stage.

    history: a row of metrics an epoch. best: validation scores of the epoch whose weights are
    kept.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best: Scores | None = None

    @property
    def scores(self) -> Scores:
        """Validation scores of the weights that the stage ended with."""
        assert self.best is not None, "the stage has finished an epoch"
        return self.best

    @property
    def seconds(self) -> float:
        """Training time without validation, over all sessions of the stage."""
        return sum(row["seconds"] for row in self.history)

    @property
    def total_seconds(self) -> float:
        """The same with validation."""
        return self.seconds + sum(row["val_seconds"] for row in self.history)


def fit(
    network: nn.Module,
    objective: Objective,
    loader: Epochs,
    *,
    groups: list[dict[str, Any]],
    schedule: Schedule,
    accelerator: Accelerator,
    validate: Callable[[nn.Module], Scores],
    keep: Literal["best", "last"],
    state_path: Path | None,
    watcher: Watcher,
    stop: Stop | None = None,
) -> Fitted:
    """Train a network in place; continue at the last saved step when there is a state.

    A state is saved now and then, when a signal asks to stop, and at the end. What continues takes
    the very steps that it would have taken.

    Args:
        network: on the device; trains in `train()` mode.
        objective: what a step minimises.
        loader: the epoch's batches, a pure function of its seed and the epoch.
        groups: parameter groups, each with its own `lr` where it differs from the schedule's.
        schedule: epochs, optimizer and learning rate.
        accelerator: device and mixed precision.
        validate: scores on the validation split.
        keep: the network ends with the weights of its best epoch on validation, or of its last.
        state_path: where the stage's state is kept; the one before it beside it. None: nowhere.
        watcher: told of every look at the loss and every epoch.
        stop: asked after each epoch with (epoch, best so far); True ends this call. Another one
            goes on from there.

    Raises:
        NotFiniteError: a loss term is NaN or infinite; the state on disk stays as it was.
        Interrupted: a signal asked to stop, and the state is saved.
        UserError: no state that is there can be read, or none can be written; or there is not
            enough memory for a batch.
    """
    accelerator.free_memory()  # it would hold on to the optimizers of the stages before
    stage = _Stage(network, objective, loader, groups, schedule, accelerator, state_path, watcher)
    fitted = stage.fitted
    state = state_path and latest_state(state_path, _STATE_KEYS, watcher.warn)
    if state:
        stage.restore(state)
    ranks.share_state(network)
    watcher.begin(fitted.history, network, within=bool(stage.course))
    for epoch in range(len(fitted.history) + 1, schedule.epochs + 1):
        if stop is not None and fitted.history and stop(epoch - 1, fitted.scores):
            break
        try:
            row = stage.train_epoch(epoch)
            started = time.perf_counter()
            scores = validate(network)
            val_seconds = time.perf_counter() - started
            if not math.isfinite(scores.loss):
                raise NotFiniteError(
                    f"the validation loss became {scores.loss} after epoch {epoch}: its last steps "
                    f"broke the weights; {_ADVICE}"
                )
            row |= {
                "val_accuracy": scores.accuracy,
                "val_macro_f1": scores.macro_f1,
                "val_loss": scores.loss,
                "val_worst_recall": scores.worst_recall,
                "val_judged": scores.standing,
                "val_error": scores.error,
                "seconds": stage.seconds,
                "val_seconds": val_seconds,
            }
            with deferred():
                stage.end_epoch(row, scores, keep)
                watcher.epoch(row, network)
        except Interrupted:
            stage.save()
            raise
    stage.end()
    if stage.kept is not None:
        network.load_state_dict(stage.kept)
    return fitted


class _Stage:
    """A network in training: all that its next step depends on.

    kept: the weights of the best epoch on validation. course: the loss terms of the epoch's steps
    so far. seconds: spent on them, over all sessions.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        loader: Epochs,
        groups: list[dict[str, Any]],
        schedule: Schedule,
        accelerator: Accelerator,
        state_path: Path | None,
        watcher: Watcher,
    ) -> None:
        self.network, self.objective, self.loader = network, objective, loader
        self.accelerator = accelerator
        self.state_path, self.watcher = state_path, watcher
        self.optimizer = accelerator.prepare_optimizer(make_optimizer(groups, schedule))
        self.gradients = Gradients(network, objective, accelerator, loader.batch_size)
        self.scaler = accelerator.scaler
        if self.scaler is not None:
            self.scaler.load_state_dict(torch.amp.GradScaler().state_dict())
        self.scheduler = make_scheduler(self.optimizer, schedule, loader.steps_per_epoch)
        self.fitted = Fitted()
        self.kept: dict[str, Tensor] | None = None
        self.course: list[Tensor] = []
        self.seconds = 0.0
        self._looked_at = 0
        self._unsaved = False
        self._saved = time.perf_counter()
        self._saving = 0.0

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `save` was called; UserError for the state of another network."""
        try:
            self._restore(state)
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self.state_path}: the state of another network than is trained here; delete it "
                "to train this stage again, or give --overwrite"
            ) from error

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["random"])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.fitted.history = state["history"]
        self.fitted.best = None if state["best"] is None else as_scores(state["best"])
        self.kept = state["kept"]
        self.course = list(state["course"].to(self.accelerator.device))
        self.gradients.names = tuple(state["terms"])
        self._looked_at = len(self.course)
        self.seconds = state["seconds"]

    def save(self) -> None:
        """Write the state; steps that broke the weights raise NotFiniteError instead."""
        started = time.perf_counter()
        self._look(len(self.fitted.history) + 1)
        if self.state_path is None:
            return
        path, best = self.state_path, self.fitted.best
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "random": random_state(),
            "history": self.fitted.history,
            "best": None if best is None else best.plain(),
            "kept": self.kept,
            "course": torch.stack(self.course) if self.course else torch.empty(0),
            "terms": list(self.gradients.names),
            "seconds": self.seconds,
        }
        ranks.from_main(lambda: write_state(path, state))
        self._unsaved = False
        self._saved = time.perf_counter()
        self._saving = self._saved - started

    @property
    def _due(self) -> bool:
        """Whether it is time to save, for this process."""
        waited = time.perf_counter() - self._saved
        return waited > max(_LEAST_SECONDS, _LEAST_RATIO * self._saving)

    def end(self) -> None:
        """Save what has not been saved."""
        if self._unsaved:
            with deferred():
                self.save()

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """What is left of an epoch; returns its number, lr and the mean of each loss term.

        Raises Interrupted after the step at which a signal came.
        """
        self.network.train()
        steps = self.loader.steps_per_epoch
        before = self.seconds
        started = time.perf_counter()
        part = ranks.part(self.loader.batch_size)
        with deferred() as asked:
            for images, labels in self.loader.epoch(epoch, len(self.course), part):
                with room_for(self.loader.batch_size, "a training step"):
                    self._step(epoch, images, labels)
                self.seconds = before + time.perf_counter() - started
                done = len(self.course)
                if done % _CHECK_EVERY == 0 or done == steps:
                    self._look(epoch)
                    self.watcher.step(epoch, done, float(self.course[-1].sum()))
                else:
                    self.watcher.step(epoch, done, None)
                number, due = ranks.highest([asked(), int(done < steps and self._due)])
                if number:
                    raise Interrupted(number)
                if due:
                    self.save()
        means = torch.stack(self.course).mean(dim=0).tolist()
        return {
            "epoch": epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": math.fsum(means),
            **dict(zip(self.gradients.names, means, strict=True)),
        }

    def _step(self, epoch: int, images: Tensor, labels: Tensor) -> None:
        device = self.accelerator.device
        steps = self.loader.steps_per_epoch
        self.scheduler.step_update((epoch - 1) * steps + len(self.course))
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        labels = labels.to(device, non_blocking=True)
        self._add_up(self.gradients(images, labels))
        self.optimizer.step()
        self._unsaved = True

    def _add_up(self, loss: Tensor) -> None:
        """Sum a step's loss terms and gradients over the ranks; some parameters have none."""
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        ranks.add_up([loss, *(one.grad for one in parameters if one.grad is not None)])
        self.course.append(loss)

    def end_epoch(
        self, row: dict[str, float], scores: Scores, keep: Literal["best", "last"]
    ) -> None:
        """Take an epoch's metrics, keep its weights if they are the best, save if it is time."""
        self.fitted.history.append(row)
        if keep == "last" or scores.better_than(self.fitted.best):
            self.fitted.best = scores
            if keep == "best":
                state = self.network.state_dict()
                self.kept = {name: value.detach().clone() for name, value in state.items()}
        self.course, self._looked_at, self.seconds = [], 0, 0.0
        (due,) = ranks.highest([int(self._due)])
        if due:
            self.save()

    def _look(self, epoch: int) -> None:
        """Raise for the first step and term that is not finite; waits for the device once."""
        new = self.course[self._looked_at :]
        if not new:
            return
        course = torch.stack(new)
        bad = (~torch.isfinite(course)).nonzero()
        if len(bad):
            step, term = bad[0].tolist()
            raise NotFiniteError(
                f"the loss term {self.gradients.names[term]!r} became {float(course[step, term])} "
                f"at epoch {epoch}, step {self._looked_at + step + 1}; {_ADVICE}"
            )
        self._looked_at = len(self.course)
