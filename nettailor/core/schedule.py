"""Optimizer and learning rate of one training stage, both timm's."""

from collections.abc import Iterable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import nn

from nettailor.core.config import RunConfig
from nettailor.core.errors import UserError, nearest
from nettailor.core.faults import shown

MOMENTUM = 0.9  # or the first beta of Adam's kind
_STEP_FACTOR = 0.1  # of each drop of the shape `step-20`
# These of timm's need a library of their own, or second derivatives, which no stage computes.
_UNUSABLE_OPTIMIZERS = ("bnb*", "fused*", "adahessian")


@dataclass(frozen=True)
class Schedule:
    """How a stage trains.

    Attributes:
        epochs: passes over the training images.
        optimizer: a name of timm's.
        lr: the highest learning rate.
        weight_decay: none on biases and norms.
        shape: of the learning rate over the steps: cosine, constant, or `step-20` for a tenth of it
            after each 20 epochs.
        warmup_epochs: of linear warm-up.
        again: whether the same may follow for twice as many epochs (a warm restart: Loshchilov and
            Hutter, 2017), where the network has not learnt its training images.
    """

    epochs: int
    optimizer: str
    lr: float
    weight_decay: float
    shape: str
    warmup_epochs: int
    again: bool = False


def known_optimizers() -> list[str]:
    """Those of timm's that can train here, by name."""
    names: list[str] = list_optimizers(exclude_filters=list(_UNUSABLE_OPTIMIZERS))
    return names


def require_optimizers(config: RunConfig) -> None:
    """Raise UserError, a line a stage, where an optimizer is none of timm's that can train here."""
    known = known_optimizers()
    asked = {
        "teacher.optimizer": config.teacher.optimizer,
        "student.optimizer": config.student.optimizer,
    }
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
    """timm's optimizer of the schedule's name over the given groups; fused where it is torch's."""
    made_of = get_optimizer_class(schedule.optimizer, bind_defaults=False)
    fused = {"fused": True} if "fused" in signature(made_of).parameters else {}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        [group for group in groups if group["params"]],
        opt=schedule.optimizer,
        lr=schedule.lr,
        weight_decay=schedule.weight_decay,
        momentum=MOMENTUM,
        **fused,
    )
    return optimizer


def make_scheduler(optimizer: torch.optim.Optimizer, schedule: Schedule, steps: int) -> Any:
    """timm's scheduler, a pure function of the step: call `step_update(step)` before each step.

    Each parameter group keeps its own highest rate.
    """
    kind, _, every = schedule.shape.partition("-")
    if kind == "cosine":
        shape: dict[str, Any] = {"sched": "cosine", "min_lr": 0.0}
    else:
        decay_epochs = int(every) if kind == "step" else schedule.epochs + 1
        shape = {"sched": "step", "decay_epochs": decay_epochs, "decay_rate": _STEP_FACTOR}
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
