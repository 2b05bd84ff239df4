"""Shrink a student as it trains: every size that it passes is a trained network."""

from collections.abc import Sequence
from itertools import islice
from math import inf
from pathlib import Path
from typing import NamedTuple

from torch import nn

from nettailor.core.backbone import Backbone
from nettailor.core.console import Screen
from nettailor.core.device import place
from nettailor.core.epochs import LoaderEpochs
from nettailor.core.errors import UserError
from nettailor.core.files import (
    load_exactly,
    read_json,
    read_weights,
    write_json,
    write_weights,
)
from nettailor.core.judge import Judge
from nettailor.core.resize import at_side
from nettailor.core.schedule import Schedule
from nettailor.core.scores import Scores, as_scores
from nettailor.core.sections import Unit
from nettailor.fitting import (
    Device,
    Loader,
    Precision,
    Run,
    accelerator_for,
    scores_on,
    seeded,
    side_of,
)
from nettailor.prune.choice import Choice, least_lost
from nettailor.prune.descent import TRIED_ON, Descent
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.shrink import Shrinking
from nettailor.prune.shrink_loss import ShrinkLoss
from nettailor.prune.sides import cuts
from nettailor.prune.statistics import STATISTICS_BATCHES, reestimate
from nettailor.resolve import EPOCHS_TO_A_BUDGET, EPOCHS_WITHOUT
from nettailor.share import budget_of
from nettailor.stage import train_stage
from nettailor.student.costs import shares_of
from nettailor.student.network import Student
from nettailor.student.wiring import Wiring

FLOOR = 0.1  # of the backbone's cost: where a student that shrinks without a budget would end
_HOPELESS = 10.0  # points below what it has to reach at which a student is not shrunk further


def hopeless(network: Shrinking, judge: Judge, last: Scores, target: float) -> bool:
    """Whether a student has lost too much to be shrunk further.

    It is 10 points and the standard error of its accuracy below what it has to reach, or, where it
    never was that good, below the best that it was: at a learning rate that does not fall it is
    behind a teacher that was trained to its end.

    Args:
        last: on validation, now; the best is noted.
        target: in %, of the judge's metric.
    """
    now, before, error = judge.value(last), float(network.reached), last.accuracy_error or 0.0
    network.reached.fill_(max(now, before))
    return now + error < min(target, before) - _HOPELESS


def below_the_leanest(most: float, unit: str, leanest: float) -> UserError:
    """What is said of a budget that no network keeps."""
    return UserError(
        f"no network costs {most:g} of the backbone's {unit} or less: give a budget from "
        f"{min(1.005 * leanest, 1):.3g} to 1"  # rounded up, so that it can be given
    )


class Snapshot(NamedTuple):
    """A size that the student passed.

    epoch: at whose end. cost: a share of the backbone's. network: one route, trained. scores: on
    validation. before: the paths that there were at first.
    """

    epoch: int
    cost: float
    network: Student
    scores: Scores
    before: Wiring

    @property
    def plan(self) -> PrunePlan:
        """What is left, by a name such as `epoch-7`."""
        left = self.network
        name = at_side(f"epoch-{self.epoch}", left.side)
        return PrunePlan.keeping(name, self.before, left.wiring.paths, left.side)


def shrink(
    student: Student,
    teacher: Backbone,
    train_loader: Loader,
    val_loader: Loader,
    *,
    max_flops: float | None = None,
    max_params: float | None = None,
    side: int | None = None,
    sides: Sequence[int | None] = (),
    epochs: int | None = None,
    lr: float = 0.001,
    distill: float = 0.5,
    judge: Judge | None = None,
    target: float | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    run: Run | None = None,
    name: str = "student",
    verbose: bool = True,
    choose: Choice = least_lost,
) -> list[Snapshot]:
    """Train a student while its cost follows a falling target, by the routes that lose least.

    The target is m^f for a budget of m, where f rises from 0 to 1 between 25 % and 90 % of the
    steps. In the middle of an epoch, where the route costs more, parts go on the way to the route
    within the budget, or without one within the target, that loses least on three batches
    (`nettailor.prune.choice`). The learning rate stays where it is: fine-tune the size that is
    taken by `fit` and `TailorLoss.after_cut`.

    Args:
        student: with a block, or its identity, into each node: no proxies. It trains in place, on
            the device.
        teacher: the backbone, whose cost is 1 and whose logits are distilled.
        train_loader, val_loader: as for `fit`.
        max_flops, max_params: the budget, one of them or none: a share of the backbone's. None:
            m is 0.1 of the multiply-adds.
        side: in pixels, that images are resized to: a lower resolution than the teacher's costs
            less, and leaves room for more blocks; None: as they come.
        sides: several of these, None for the images' own among them, in the place of `side`: one is
            drawn for each step, and each epoch passes a size at each. Costs are those of the
            images' own side; the budget has to be None.
        epochs: of it all; None: 4 to a budget, 8 without one.
        lr: after an epoch of warm-up, of adamw; exits have three times as much.
        distill: λ, the weight of the distillation.
        target: ends where the student has fallen 10 points below it, in % of the judge's metric on
            validation, or, where it was never that good, below its own best; None: never.
        judge, seed, device, precision, run, verbose: as for `fit`.
        name: of this call in the run.
        choose: where it goes.

    Returns:
        A snapshot an epoch and side, the dearest first. With a budget the last one keeps it.

    Raises:
        UserError: a budget that no route meets, a student with proxies, or a run in which a call of
            this name has begun with other settings.
    """
    unit, most = budget_of(max_flops, max_params)
    accelerator = accelerator_for(device, precision)
    size = side_of(train_loader, seed)
    if student.wiring.of_kind("proxy"):
        raise UserError("the student has proxies: expected none, give it with skips=0")
    least = most if most < inf else FLOOR
    if epochs is None:
        epochs = (EPOCHS_TO_A_BUDGET if most < inf else EPOCHS_WITHOUT)[0]
    if epochs < 1:
        raise UserError(f"epochs is {epochs}: expected at least 1")
    if sides and (most < inf or None not in sides):
        raise UserError("sides are for a student without a budget, the images' own among them")
    sides, shares = sides or [side], {}
    for student.side in sides:
        shares[student.side] = shares_of(student, teacher, size, unit)
    student.side = side
    shrinking = Shrinking(student, shares[side], least)
    if most < shrinking.leanest:
        raise below_the_leanest(most, unit, shrinking.leanest)
    place(shrinking, accelerator.device)
    place(teacher, accelerator.device)
    if run is not None:
        run.begin(
            name, max_flops=max_flops, max_params=max_params, side=side, sides=[*sides],
            epochs=epochs, lr=lr, distill=distill, seed=seed,
        )  # fmt: skip
    loss, batches = ShrinkLoss(teacher, distill), LoaderEpochs(train_loader, seed)
    with seeded(seed, "removals"):
        descent = Descent(
            shrinking, loss, islice(batches.epoch(0), TRIED_ON), accelerator,
            epochs=epochs, steps_per_epoch=batches.steps_per_epoch, far=most < inf,
            choose=choose, sides=sides,
        )  # fmt: skip
    screen = Screen()
    screen.console.quiet = not verbose
    snapshots: dict[tuple[int, int | None], Snapshot] = {}
    finished, judging = 0, judge or Judge()

    def stem(epoch: int, at: int | None) -> Path:
        assert run is not None, "without a run every epoch is of this call"
        file = at_side(f"{name}-{epoch}", at if len(sides) > 1 else None)
        return run.folder.path / "sizes" / file

    def validate(_: nn.Module) -> Scores:
        found = []
        for left in cuts(shrinking, sides, lambda: batches.epoch(0), accelerator):
            found.append(judging.of(scores_on(val_loader, left, accelerator)))
            cost = shares[left.side].of(student.wiring, shrinking.route)
            passed = Snapshot(finished + 1, cost, left, found[-1], student.wiring)
            snapshots[passed.epoch, left.side] = passed
            if run is not None:
                _write(stem(passed.epoch, left.side), passed)
            screen.say(f"{passed.plan.describe()}: {passed.cost:.3f} of the backbone's {unit}")
        return max(found, key=judging.value)

    def ends(epoch: int, scores: Scores) -> bool:
        nonlocal finished
        finished = epoch
        return target is not None and hopeless(shrinking, judging, scores, target)

    schedule = Schedule(
        epochs=int(epochs), optimizer="adamw", lr=float(lr), weight_decay=5e-4, shape="constant",
        warmup_epochs=1,
    )  # fmt: skip
    with seeded(seed, "shrinking"):
        fitted = train_stage(
            name, shrinking, loss, batches, schedule, screen=screen,
            folder=None if run is None else run.folder, accelerator=accelerator,
            validate=validate, stop=ends, before_step=descent.before_step,
        )  # fmt: skip
    shrinking.end()
    epochs_done = range(1, len(fitted.history) + 1)
    return [
        snapshots.get((one, at)) or _read(stem(one, at), one, student, at)
        for one in epochs_done
        for at in reversed(sides)
    ]


def as_it_is(
    student: Student,
    teacher: Backbone,
    train_loader: Loader,
    val_loader: Loader,
    *,
    unit: Unit,
    side: int | None,
    judge: Judge,
    seed: int,
    device: Device,
) -> Snapshot:
    """The whole backbone as a size, of which nothing is taken out and nothing trained.

    Its running statistics are averaged anew, on images of its side. Arguments as for `shrink`.
    """
    accelerator = accelerator_for(device)
    student.side = side
    shares = shares_of(student, teacher, side_of(train_loader, seed), unit)
    whole = Shrinking(student, shares, 1.0)
    network = place(whole.cut("whole"), accelerator.device)
    with seeded(seed, "statistics"):
        batches = islice(LoaderEpochs(train_loader, seed).epoch(0), STATISTICS_BATCHES)
        reestimate(network, batches, accelerator)
    scores = scores_on(val_loader, network, accelerator)
    return Snapshot(0, whole.cost, network, judge.of(scores), student.wiring)


def _write(stem: Path, snapshot: Snapshot) -> None:
    """A snapshot of a run, for a call that goes on."""
    rows = snapshot.network.wiring.to_json()
    content = {"paths": rows, "cost": snapshot.cost, "scores": snapshot.scores.plain()}
    write_weights(stem.with_suffix(".safetensors"), snapshot.network)
    write_json(stem.with_suffix(".json"), content)


def _read(stem: Path, epoch: int, student: Student, side: int | None) -> Snapshot:
    """The inverse; UserError where it is gone or damaged."""
    file = stem.with_suffix(".json")
    content = read_json(file)
    try:
        wiring = Wiring.from_json(student.wiring.depth, content["paths"])
        plan = PrunePlan(file.name, student.wiring, wiring, side=side)
        network = remove(student, plan)
        cost, scores = float(content["cost"]), as_scores(content["scores"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: is damaged; begin anew in another folder") from error
    weights = stem.with_suffix(".safetensors")
    load_exactly(network, read_weights(weights), weights)
    return Snapshot(epoch, cost, network, scores, student.wiring)
