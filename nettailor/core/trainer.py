"""The one training loop: teacher, student and fine-tuning differ in their objective only."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from nettailor.core.files import read_state, write_state
from nettailor.core.loader import TrainLoader
from nettailor.core.objective import Objective
from nettailor.core.schedule import Schedule, make_optimizer, make_scheduler
from nettailor.core.scores import Scores

_STATE_KEYS = (
    "network", "optimizer", "average", "scaler", "rng", "cuda_rng", "history", "best", "kept",
)  # fmt: skip
_ADVICE = (
    "what earlier epochs saved is kept. Try a lower learning rate (other settings need --overwrite "
    "or another --out)"
)
_CHECK_EVERY = 32  # steps between looks at the loss: each look waits for the device


class NotFiniteError(Exception):
    """A loss term became NaN or infinite; the text says which, at which epoch and step."""


class Watcher(Protocol):
    """Sees a stage train: progress bar, TensorBoard, metrics.csv."""

    def begin(self, history: Sequence[Mapping[str, float]], network: nn.Module) -> None:
        """Before the first epoch of this session, with the epochs of earlier ones."""

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
    loader: TrainLoader,
    *,
    groups: list[dict[str, Any]],
    schedule: Schedule,
    accelerator: Accelerator,
    validate: Callable[[nn.Module], Scores],
    keep: Literal["best", "last"],
    state_path: Path,
    watcher: Watcher,
    stop: Callable[[int, Scores], bool] | None = None,
) -> Fitted:
    """Train a network in place; continue at the last finished epoch when `state_path` exists.

    Args:
        network: on the device; trains in `train()` mode.
        objective: what a step minimises.
        loader: the epoch's batches, a pure function of its seed and the epoch.
        groups: parameter groups, each with its own `lr` where it differs from the schedule's.
        schedule: epochs, optimizer and learning rate.
        accelerator: device and mixed precision.
        validate: scores on the validation split.
        keep: the network ends with the weights of its best epoch on validation, or of its last.
        state_path: where the stage's state is kept, one file, replaced after every epoch.
        watcher: told of every look at the loss and every epoch.
        stop: asked after each epoch with (epoch, best so far); True ends this call. Another one
            goes on from there.

    Raises:
        NotFiniteError: a loss term is NaN or infinite; the state on disk stays as it was.
    """
    accelerator.free_memory()  # it would hold on to the optimizers of the stages before
    optimizer = accelerator.prepare_optimizer(make_optimizer(groups, schedule))
    scaler = accelerator.scaler
    if scaler is not None:
        scaler.load_state_dict(torch.amp.GradScaler().state_dict())
    steps = loader.steps_per_epoch
    scheduler = make_scheduler(optimizer, schedule, steps)
    average = ModelEmaV3(network, decay=schedule.ema) if schedule.ema else None
    fitted = Fitted()
    kept: dict[str, Tensor] | None = None
    if state_path.exists():
        state = read_state(state_path, _STATE_KEYS)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.module.load_state_dict(state["average"])
        torch.set_rng_state(state["rng"])
        if accelerator.device.type == "cuda" and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"])
        if scaler is not None and state["scaler"] is not None:
            scaler.load_state_dict(state["scaler"])
        fitted.history = state["history"]
        fitted.best = Scores(*state["best"])
        kept = state["kept"]
    watcher.begin(fitted.history, network)
    for epoch in range(len(fitted.history) + 1, schedule.epochs + 1):
        if stop is not None and fitted.history and stop(epoch - 1, fitted.scores):
            break
        started = time.perf_counter()
        row = _train_epoch(
            network, objective, loader, epoch, optimizer, scheduler, schedule, accelerator,
            average, watcher,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        judged = network if average is None else average.module
        scores = validate(judged)
        val_seconds = time.perf_counter() - started - seconds
        if not math.isfinite(scores.loss):
            raise NotFiniteError(
                f"the validation loss became {scores.loss} after epoch {epoch}: its last steps "
                f"broke the weights; {_ADVICE}"
            )
        row |= {
            "val_accuracy": scores.accuracy,
            "val_macro_f1": scores.macro_f1,
            "val_loss": scores.loss,
            "seconds": seconds,
            "val_seconds": val_seconds,
        }
        fitted.history.append(row)
        if keep == "last" or scores.better_than(fitted.best):
            fitted.best = scores
            if keep == "best":
                kept = {name: value.detach().clone() for name, value in judged.state_dict().items()}
        write_state(
            state_path,
            {
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": None if average is None else average.module.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state()
                if accelerator.device.type == "cuda"
                else None,
                "history": fitted.history,
                "best": tuple(fitted.scores),
                "kept": kept,
            },
        )
        watcher.epoch(row, judged)
    if kept is not None:
        network.load_state_dict(kept)
    elif average is not None:
        network.load_state_dict(average.module.state_dict())
    return fitted


def _train_epoch(
    network: nn.Module,
    objective: Objective,
    loader: TrainLoader,
    epoch: int,
    optimizer: Any,
    scheduler: Any,
    schedule: Schedule,
    accelerator: Accelerator,
    average: ModelEmaV3 | None,
    watcher: Watcher,
) -> dict[str, float]:
    """One pass over the training images; returns epoch, lr and the mean of each loss term."""
    network.train()
    steps = loader.steps_per_epoch
    course = torch.zeros(steps, len(objective.terms), device=accelerator.device)
    first_step = (epoch - 1) * steps
    looked_at = 0
    for step, (images, labels) in enumerate(loader.epoch(epoch)):
        scheduler.step_update(first_step + step)
        images = images.to(accelerator.device, non_blocking=True, memory_format=torch.channels_last)
        labels = labels.to(accelerator.device, non_blocking=True)
        with accelerator.autocast():
            terms = objective(network, images, labels)
        loss = torch.stack(terms)
        course[step] = loss.detach()
        optimizer.zero_grad()
        accelerator.backward(loss.sum())
        if schedule.clip_norm is not None:
            accelerator.clip_grad_norm_(network.parameters(), schedule.clip_norm)
        optimizer.step()
        if average is not None:
            average.update(network)
        if (step + 1) % _CHECK_EVERY == 0 or step + 1 == steps:
            _check_finite(course[looked_at : step + 1], objective.terms, epoch, looked_at)
            looked_at = step + 1
            watcher.step(epoch, step + 1, float(course[step].sum()))
        else:
            watcher.step(epoch, step + 1, None)
    means = course.mean(dim=0).tolist()
    return {
        "epoch": epoch,
        "lr": optimizer.param_groups[0]["lr"],
        "loss": math.fsum(means),
        **dict(zip(objective.terms, means, strict=True)),
    }


def _check_finite(course: Tensor, terms: tuple[str, ...], epoch: int, first: int) -> None:
    """Raise for the first step and term that is not finite; waits for the device once."""
    bad = (~torch.isfinite(course)).nonzero()
    if len(bad):
        step, term = bad[0].tolist()
        value = float(course[step, term])
        raise NotFiniteError(
            f"the loss term {terms[term]!r} became {value} at epoch {epoch}, step "
            f"{first + step + 1}; {_ADVICE}"
        )
