"""Shrink a student as it trains: every size that it passes is a trained network."""

import math
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nettailor.core.backbone import Backbone
from nettailor.core.console import Screen
from nettailor.core.device import place
from nettailor.core.epochs import LoaderEpochs, checked
from nettailor.core.errors import UserError
from nettailor.core.judge import Judge
from nettailor.core.objective import cross_entropies
from nettailor.core.schedule import Schedule
from nettailor.core.scores import Scores, classify
from nettailor.fitting import Loader, Precision, accelerator_for, seeded
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.shrink import Removal, Shrinking
from nettailor.share import budget_of
from nettailor.stage import train_stage
from nettailor.student.costs import PathShares, shares_of
from nettailor.student.loss import divergence
from nettailor.student.network import Student
from nettailor.teacher.target import as_target

_BATCHES = 3  # that removals are tried on
_OTHER = 0.3  # the weight of the exit that is trained beside the route's own end
_FROM, _TO = 0.08, 0.9  # of the steps: where the target begins to fall, and where it has fallen
_SOON = 0.1  # of the steps: how far ahead a removal's saving counts


class Snapshot(NamedTuple):
    """A size that the student passed.

    epoch: at whose end. cost: a share of the backbone's. network: one route, trained. scores: on
    validation. removed: what was taken out in this epoch.
    """

    epoch: int
    cost: float
    network: Student
    scores: Scores
    removed: tuple[Removal, ...]


class ShrinkLoss:
    """CE + λ KD of the route's end, and of one other exit that the route may yet end in.

    The exit is another one at each step, drawn from torch's generator; a fresh exit has to be
    trained before its loss says what its features are worth.
    """

    def __init__(self, teacher: Backbone, distill: float = 0.5) -> None:
        """
        Args:
            teacher: fine-tuned; it goes into eval mode when it is asked, and is not trained.
            distill: λ ≥ 0.
        """
        self.teacher, self.distill = as_target(teacher), distill

    def of(self, logits: Tensor, labels: Tensor, target: Tensor) -> Tensor:
        """What an end loses, a scalar in nats.

        Args:
            logits: (B, classes), the end's. labels: (B,). target: the teacher's logits.
        """
        entropy = cross_entropies(logits.float(), labels, 0.0, None).mean()
        return entropy + self.distill * divergence(logits, target)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """See `nettailor.core.objective.Objective`; the network is a `Shrinking`."""
        assert isinstance(network, Shrinking), "the loss is of a network that shrinks"
        exits = network.exits
        others = [exits[int(torch.randint(len(exits), ()))]] if exits else []
        end, *more = network.at_ends(images, others)
        target = self.teacher(images).logits
        losses = [self.of(logits, labels, target) for logits in (end, *more)]
        if not more:
            return {"end": losses[0], "exit": torch.zeros_like(losses[0])}
        return {"end": (1 - _OTHER) * losses[0], "exit": _OTHER * losses[1]}


def shrink(
    student: Student,
    teacher: Backbone,
    train_loader: Loader,
    val_loader: Loader,
    *,
    max_flops: float | None = None,
    max_params: float | None = None,
    epochs: int = 12,
    lr: float = 0.003,
    distill: float = 0.5,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    verbose: bool = True,
    network: Callable[[Student, PathShares, float], Shrinking] = Shrinking,
) -> list[Snapshot]:
    """Train a student while its cost follows a falling target; what the loss feels least goes.

    The target is exp(f log m) for a budget of m, where f rises from 0 to 1 between 8 % and 90 % of
    the steps. Whenever the route costs more, what can be taken out, a block or all behind an exit,
    is tried on three batches, and that goes whose removal raises the loss least by the cost that
    it saves (`nettailor.prune.shrink`). The learning rate stays where it is: fine-tune the size
    that is taken by `fit` and `TailorLoss.after_cut`.

    Args:
        student: with a block, or its identity, into each node: no proxies. It trains in place, on
            the device.
        teacher: the backbone, whose cost is 1 and whose logits are distilled.
        train_loader, val_loader: as for `fit`.
        max_flops, max_params: the budget, one of them: a share of the backbone's.
        epochs: of it all.
        lr: after an epoch of warm-up, of adamw.
        distill: λ, the weight of the distillation.
        seed, device, precision, verbose: as for `fit`.
        network: how the student is wrapped; another class chooses otherwise what goes.

    Returns:
        A snapshot an epoch, the dearest first; the last is within 2 % of the budget where what
        can be taken out allows it.

    Raises:
        UserError: a budget that no route meets, or a student with proxies.
    """
    unit, least = budget_of(max_flops, max_params)
    if least > 1:
        raise UserError(
            f"max_flops is {max_flops} and max_params {max_params}: expected one of them, a share "
            "above 0 and up to 1"
        )
    accelerator = accelerator_for(device, precision)
    size = next(checked(train_loader))[0].shape[-1]
    if student.wiring.of_kind("proxy"):
        raise UserError("the student has proxies: expected none, give it with skips=0")
    shrinking = network(student, shares_of(student, teacher, size, unit), least)
    if shrinking.leanest > least * 1.02:
        raise UserError(
            f"no route costs {least:g} of the backbone's or less: give a budget from "
            f"{shrinking.leanest:.3g} to 1"
        )
    place(shrinking, accelerator.device)
    place(teacher, accelerator.device)
    loss, batches = ShrinkLoss(teacher, distill), LoaderEpochs(train_loader, seed)
    looked_at = []
    for images, labels in islice(batches.epoch(0), _BATCHES):
        images = images.to(accelerator.device)
        looked_at.append((images, labels.to(accelerator.device), loss.teacher(images).logits))
    screen = Screen()
    screen.console.quiet = not verbose
    steps = epochs * batches.steps_per_epoch
    snapshots: list[Snapshot] = []
    removed: list[Removal] = []

    def target(done: float) -> float:
        """The cost after a part of the steps."""
        fallen = min(max((done - _FROM) / (_TO - _FROM), 0.0), 1.0)
        return math.exp(fallen * math.log(least))

    def before_step(step: int) -> bool:
        known, done = len(removed), step / steps if step + 1 < steps else 1.0
        while shrinking.cost > max(target(done), 1.02 * least):
            with accelerator.autocast():
                removals = shrinking.removals(looked_at, loss.of)
            found = shrinking.best(removals, target(done + _SOON))
            if found is None:
                break
            shrinking.take(found.route)
            removed.append(found)
        return len(removed) > known

    def validate(module: nn.Module) -> Scores:
        scores = Judge().of(classify(module, checked(val_loader), accelerator).scores())
        epoch, cost = len(snapshots) + 1, shrinking.cost
        plan = PrunePlan.keeping(f"epoch-{epoch}", student.wiring, shrinking.route)
        snapshots.append(Snapshot(epoch, cost, remove(student, plan), scores, tuple(removed)))
        removed.clear()
        screen.say(f"{plan.describe()}: {cost:.3f} of the backbone's {unit}")
        return scores

    schedule = Schedule(
        epochs=epochs, optimizer="adamw", lr=lr, weight_decay=5e-4, shape="constant",
        warmup_epochs=1,
    )  # fmt: skip
    with seeded(seed, "shrinking"):
        train_stage(
            "shrinking", shrinking, loss, batches, schedule, folder=None, screen=screen,
            accelerator=accelerator, validate=validate, keep="last", before_step=before_step,
        )  # fmt: skip
    return snapshots
