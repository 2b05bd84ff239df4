"""The one training loop: teacher, student and fine-tuning differ in their objective only."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nettailor.core import ranks
from nettailor.core.epochs import Epochs
from nettailor.core.interruption import Interrupted, deferred
from nettailor.core.memory import room_for
from nettailor.core.objective import Objective, require_finite_validation
from nettailor.core.schedule import Schedule
from nettailor.core.scores import Scores
from nettailor.core.training_state import Fitted, TrainingState
from nettailor.core.watch import Watcher

# Asked after each epoch with its number and its scores; True ends the training.
Stop = Callable[[int, Scores], bool]

# Called with the number of steps so far; says whether it changed what the network computes.
BeforeStep = Callable[[int], bool]

_CHECK_EVERY = 32  # steps between looks at the loss: each look waits for the device


def fit(
    network: nn.Module,
    objective: Objective,
    loader: Epochs,
    *,
    groups: list[dict[str, Any]],
    schedule: Schedule,
    accelerator: Accelerator,
    validate: Callable[[nn.Module], Scores],
    state_path: Path | None,
    watcher: Watcher,
    stop: Stop | None = None,
    before_step: BeforeStep | None = None,
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
        state_path: where the stage's state is kept; the one before it beside it. None: nowhere.
        watcher: told of every look at the loss and every epoch.
        stop: asked after each epoch with (epoch, its scores); True ends this call. Another one goes
            on from there.
        before_step: called with the number of steps that were taken, in all epochs; True: another
            network computes from here on.

    Raises:
        NotFiniteError: a loss term is NaN or infinite; the state on disk stays as it was.
        Interrupted: a signal asked to stop, and the state is saved.
        UserError: no state that is there can be read, or none can be written; or there is not
            enough memory for a batch.
    """
    accelerator.free_memory()  # it would hold on to the optimizers of the stages before
    state = TrainingState(network, objective, loader, groups, schedule, accelerator, state_path)
    state.restore(watcher.warn)
    ranks.share_state(network)
    fitted = state.fitted
    watcher.begin(fitted.history, network, within=bool(state.course))
    for epoch in range(len(fitted.history) + 1, schedule.epochs + 1):
        if stop is not None and fitted.history and stop(epoch - 1, fitted.scores):
            break
        try:
            row = _train_epoch(state, loader, schedule, watcher, epoch, before_step)
            started = time.perf_counter()
            scores = validate(network)
            val_seconds = time.perf_counter() - started
            require_finite_validation(scores.loss, epoch)
            row |= {
                "val_accuracy": scores.accuracy,
                "val_macro_f1": scores.macro_f1,
                "val_loss": scores.loss,
                "val_worst_recall": scores.worst_recall,
                "val_judged": scores.standing,
                "val_error": scores.error,
                "seconds": state.seconds,
                "val_seconds": val_seconds,
            }
            with deferred():
                state.end_epoch(row, scores)
                watcher.epoch(row, network)
        except Interrupted:
            state.save()
            raise
    if state.unsaved:
        with deferred():
            state.save()
    return fitted


def _train_epoch(
    state: TrainingState,
    loader: Epochs,
    schedule: Schedule,
    watcher: Watcher,
    epoch: int,
    before_step: BeforeStep | None,
) -> dict[str, float]:
    """What is left of an epoch; returns its number, lr and the mean of each loss term.

    Raises Interrupted after the step at which a signal came.
    """
    state.network.train()
    steps, before = loader.steps_per_epoch, state.seconds
    started = time.perf_counter()
    with deferred() as asked:
        for images, labels in loader.epoch(epoch, len(state.course), ranks.part(loader.batch_size)):
            taken = (epoch - 1) * steps + len(state.course)
            state.scheduler.step_update(taken)
            if before_step is not None and before_step(taken):
                state.gradients.forget()
            with room_for(loader.batch_size, "a training step"):
                _step(state, schedule, images, labels)
            state.seconds = before + time.perf_counter() - started
            done = len(state.course)
            if done % _CHECK_EVERY == 0 or done == steps:
                state.look()
                watcher.step(epoch, done, float(state.course[-1].sum()))
            else:
                watcher.step(epoch, done, None)
            number, due = ranks.highest([asked(), int(done < steps and state.due)])
            if number:
                raise Interrupted(number)
            if due:
                state.save()
    means = torch.stack(state.course).mean(dim=0).tolist()
    return {
        "epoch": epoch,
        "lr": state.optimizer.param_groups[0]["lr"],
        "loss": math.fsum(means),
        **dict(zip(state.gradients.names, means, strict=True)),
    }


def _step(state: TrainingState, schedule: Schedule, images: Tensor, labels: Tensor) -> None:
    """Move the weights once; of several ranks each has a part of the batch."""
    device = state.accelerator.device
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    loss = state.gradients(images, labels.to(device, non_blocking=True))
    parameters = [one for group in state.optimizer.param_groups for one in group["params"]]
    ranks.add_up([loss, *(one.grad for one in parameters if one.grad is not None)])
    state.course.append(loss)
    state.optimizer.step()
    state.unsaved = True
