"""Optimizer and learning rate of one training stage, both timm's."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import nn

from nettailor.core.config import STAGES, RunConfig
from nettailor.core.errors import UserError, nearest
from nettailor.core.faults import shown

# These of timm's need a library of their own, or second derivatives, which no stage computes.
_UNUSABLE_OPTIMIZERS = ("bnb*", "fused*", "adahessian")


@dataclass(frozen=True)
class Schedule:
    """How a stage trains; see `nettailor.core.config.ScheduleConfig` for meanings and ranges."""

    epochs: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    shape: str
    step_epochs: int
    step_factor: float
    warmup_epochs: int
    clip_norm: float | None
    ema: float | None


def require_optimizers(config: RunConfig) -> None:
    """Raise UserError, a line a stage, where an optimizer is none of timm's that can train here."""
    known = list_optimizers(exclude_filters=list(_UNUSABLE_OPTIMIZERS))
    asked = {f"{stage}.optimizer": getattr(config, stage).optimizer for stage in STAGES}
    faults = [
        f"{key} = {shown(name)}: no optimizer of timm's that can train here{nearest(name, known)}"
        for key, name in asked.items()
        if name not in known
    ]
    if faults:
        raise UserError("settings: " + "\n".join(faults))


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], schedule: Schedule
) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: weight decay on matrices and filters, none on the rest.

    Biases and the affine weights of norms (one-dimensional) are not decayed.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for _, parameter in named:
        if parameter.requires_grad:
            (decayed if parameter.ndim > 1 else plain).append(parameter)
    return [
        {"params": decayed, "weight_decay": schedule.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def make_optimizer(groups: list[dict[str, Any]], schedule: Schedule) -> torch.optim.Optimizer:
    """timm's optimizer of the schedule's name over the given groups."""
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        [group for group in groups if group["params"]],
        opt=schedule.optimizer,
        lr=schedule.lr,
        weight_decay=schedule.weight_decay,
        momentum=schedule.momentum,
    )
    return optimizer


def make_scheduler(optimizer: torch.optim.Optimizer, schedule: Schedule, steps: int) -> Any:
    """timm's scheduler, a pure function of the step: call `step_update(step)` before each step.

    Each parameter group keeps its own highest rate.
    """
    if schedule.shape == "constant":
        shape: dict[str, Any] = {"sched": "step", "decay_epochs": schedule.epochs + 1}
    elif schedule.shape == "step":
        shape = {
            "sched": "step",
            "decay_epochs": schedule.step_epochs,
            "decay_rate": schedule.step_factor,
        }
    else:
        shape = {"sched": "cosine", "min_lr": 0.0}
    scheduler, _ = create_scheduler_v2(
        optimizer,
        num_epochs=schedule.epochs,
        warmup_epochs=schedule.warmup_epochs,
        warmup_prefix=False,
        warmup_lr=schedule.lr * 1e-2,
        step_on_epochs=False,
        updates_per_epoch=max(steps, 1),
        **shape,
    )
    return scheduler
