"""From a network to one of the size of the task, in Python, all of it at once."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from math import inf
from typing import get_args

from torch import nn

from nettailor.candidate import Candidate
from nettailor.candidates import keep_better, keep_first, target_of
from nettailor.channel_lever import before_channels, refusal, whole_cost
from nettailor.core.backbone import Backbone
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.judge import Judge
from nettailor.core.resize import at_side
from nettailor.core.scores import Scores
from nettailor.core.sections import Lever, Unit
from nettailor.core.trainer import Stop
from nettailor.core.training_state import Fitted
from nettailor.cutting import narrow
from nettailor.fitting import (
    STUDENT_LR,
    Device,
    Loader,
    Precision,
    Run,
    accelerator_for,
    fit,
    run_or_temporary,
    scores_on,
    seeded,
    side_of,
)
from nettailor.prune.fewer_channels import fewest_channels
from nettailor.prune.fold import fold
from nettailor.prune.plan import PrunePlan
from nettailor.prune.shrink import leanest_route
from nettailor.resolutions import sides, tried
from nettailor.resolve import EPOCHS_TO_A_BUDGET, EPOCHS_WITHOUT, GOES_ON
from nettailor.share import budget_of
from nettailor.shrinking import Snapshot, as_it_is, below_the_leanest, shrink
from nettailor.sizes import in_order, saving
from nettailor.student.costs import PathShares, shares_of
from nettailor.student.loss import TailorLoss
from nettailor.student.network import Student
from nettailor.teacher.objective import CrossEntropy


def tailor(
    network: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    *,
    max_flops: float | None = None,
    max_params: float | None = None,
    tolerance: float = 0.5,
    gamma: float = 0.3,
    levers: Sequence[Lever] = ("blocks", "channels", "resolution"),
    teacher_epochs: int = 20,
    student_epochs: int | None = None,
    finetune_epochs: int | None = None,
    seed: int = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    run: Run | None = None,
    verbose: bool = True,
) -> nn.Module:
    """Fine-tune a teacher, shrink a student of it as it trains, and fine-tune what is left.

    With a budget that is the last size, at the resolution where it is best on validation after half
    of the fine-tuning. Without one it is the size of the least loss + γ cost as fine-tuning is
    thought to leave it, or a dearer one that is within tolerance of the teacher, all on validation
    and chance allowed for (`core.judge.margin`).

    Args:
        network: a `Backbone`, or what one can be made of; it stays as it is.
        train_loader: (images, labels); images are float and normalised, labels int64.
        val_loader: the same, each image once; all choices are made on it.
        max_flops, max_params: the budget, one of them or none: a share of the network's.
        tolerance: points of validation accuracy that the teacher may be ahead.
        gamma: without a budget, the price of cost: nats for all of the network's multiply-adds.
        levers: one or more. "blocks"; "channels", which go to a budget, beside blocks to one that
            is small enough; "resolution": half and three quarters of the images' side are tried
            too, and what is kept resizes them itself; without a budget one student shrinks at all
            of them at once.
        teacher_epochs: 0 where the network is fine-tuned already.
        student_epochs, finetune_epochs: of the student as it shrinks, and of what is left; None: 4
            and 20 to a budget, 8 and 6 without one.
        seed: of everything random.
        device, precision: see `fit`.
        run: where to keep what is trained and to go on from; None: nowhere.
        verbose: print a line an epoch, and what became of each cut.

    Returns:
        A plain module in eval mode: images (B, C, S, S) -> logits (B, classes).

    Raises:
        UserError: the network cannot be taken apart, no route meets the budget, a loader gives
            something else than it should, or the run was begun with other settings.
    """
    teacher = deepcopy(network) if isinstance(network, Backbone) else Backbone(network)
    unit, most = budget_of(max_flops, max_params)
    epochs = EPOCHS_TO_A_BUDGET if most < inf else EPOCHS_WITHOUT
    for name, given in (("student", student_epochs), ("finetune", finetune_epochs)):
        if given is not None and given < 1:
            raise UserError(f"{name}_epochs is {given}: expected at least 1")
    if not levers or {*levers} - {*get_args(Lever)}:
        raise UserError(
            f"levers are {', '.join(map(repr, levers)) or 'none'}: expected one or more of "
            f"{', '.join(get_args(Lever))}"
        )
    if most == inf and not {"blocks", "resolution"} & {*levers}:
        raise UserError("channels go to a budget: give max_flops or max_params, or other levers")
    accelerator_for(device, precision)  # what comes between the stages keeps to it
    size = side_of(val_loader, seed)
    with seeded(seed, "shapes"):
        grown = Student(teacher)
        shown, shrinks = sides(teacher, size, unit, levers), "blocks" in levers
        reason = refusal(teacher, size, unit, levers) if most < inf else ""

        def narrowest(student: Student, shares: PathShares) -> float:
            whole = whole_cost(student, shares)
            if reason is not None:
                return whole
            return whole * fewest_channels(teacher, student.side or size, unit)

        # a budget can be kept before anything is trained
        leanest = leanest_route if shrinks else narrowest
        cost = partial(shares_of, chain=teacher, image_size=size, unit=unit)
        at = tried(grown, shown, cost, most if most < inf else None, leanest)
        if not at:
            grown.side = shown[0]
            raise below_the_leanest(most, unit, leanest(grown, cost(grown)))
    with seeded(seed, "tailor"), run_or_temporary(run) as folder:
        train = partial(
            fit,
            train_loader=train_loader,
            val_loader=val_loader,
            seed=seed,
            device=device,
            precision=precision,
            run=folder,
            verbose=verbose,
        )
        if teacher_epochs:
            train(teacher, CrossEntropy(), epochs=teacher_epochs, name="teacher")
        judge = Judge(teacher=_scores(teacher, val_loader, device), sure=most == inf)
        target = target_of(judge, tolerance)

        def grow() -> Student:
            with seeded(seed, "student"):
                return Student(teacher)

        if reason and verbose:
            print(f"channels stay: {reason}")

        def budget(side: int | None) -> float | None:
            if most == inf:
                return None
            if reason is not None:
                return most
            return before_channels(most, whole_cost(grown, at[side]))

        def shrunk(side: int | None = None, sides: Sequence[int | None] = ()) -> list[Snapshot]:
            return shrink(
                grow(), teacher, train_loader, val_loader,
                max_flops=budget(side) if unit == "flops" else None,
                max_params=budget(side) if unit == "params" else None,
                side=side, sides=sides, epochs=student_epochs or epochs[0], judge=judge,
                seed=seed, device=device, target=target if most == inf else None,
                precision=precision, run=folder, name=at_side("student", side), verbose=verbose,
            )  # fmt: skip

        def whole(side: int | None) -> list[Snapshot]:
            one = as_it_is(
                grow(), teacher, train_loader, val_loader, unit=unit, side=side, judge=judge,
                seed=seed, device=device,
            )  # fmt: skip
            return [one]

        if most == inf and shrinks:
            fronts = [shrunk(sides=[*at])]
        else:
            fronts = [shrunk(side) if shrinks else whole(side) for side in at]
        sizes = [one for front in fronts for one in front]
        bench = _Bench(
            {one.plan.name: one for one in sizes}, unit,
            TailorLoss(teacher).after_cut(), train, finetune_epochs or epochs[1], judge,
            lr=STUDENT_LR * (GOES_ON if most == inf else 1),
        )  # fmt: skip
        if most < inf:
            lasts = [front[-1] for front in fronts]
            kept, *_ = keep_better(
                bench,
                [one.plan.narrowed(most) if one.cost > most else one.plan for one in lasts],
            )
        else:
            costs, losses = [one.cost for one in sizes], [one.scores.loss for one in sizes]
            order = in_order(costs, losses, gamma) if shrinks else saving(costs)
            kept, *_ = keep_first(bench, [sizes[i].plan for i in order], target, judge.aim)
        return fold(kept.network)


class _Bench:
    """The `Bench` of a program's own loaders.

    sizes: that students passed, by the names of their plans. unit: of what they cost. train: `fit`
    with what stages share.
    """

    def __init__(
        self,
        sizes: Mapping[str, Snapshot],
        unit: Unit,
        loss: TailorLoss,
        train: "partial[Fitted]",
        epochs: int,
        judge: Judge,
        *,
        lr: float,
    ) -> None:
        self._sizes, self._unit, self._loss, self._train = sizes, unit, loss, train
        self.epochs, self._judge, self._lr = epochs, judge, lr
        self._narrowed: dict[str, tuple[Student, Scores]] = {}

    def finetune(self, plan: PrunePlan, stop: Stop | None = None) -> Candidate:
        """See `nettailor.candidates.Bench`."""
        start, scores = self._start(plan)
        network = deepcopy(start)
        fitted = self._train(
            network, self._loss, epochs=self.epochs, name=plan.name, judge=self._judge, stop=stop,
            lr=self._lr,
        )  # fmt: skip
        lost = tuple(map(str, self._judge.lost(fitted.scores)))
        return Candidate(plan, network, scores, fitted, self.epochs, lost)

    def _start(self, plan: PrunePlan) -> tuple[Student, Scores]:
        if plan.wide is None:
            size = self._sizes[plan.name]
            return size.network, size.scores
        if plan.name not in self._narrowed:
            wide, how = self._sizes[plan.wide], self._train.keywords
            budget = {f"max_{self._unit}": plan.most / wide.cost}
            try:
                network = narrow(
                    wide.network, how["train_loader"], **budget, seed=how["seed"],
                    device=how["device"],
                )  # fmt: skip
            except UserError as error:
                raise UserError(
                    f"{plan.wide} keeps more than {plan.most:g} with its fewest channels: give a "
                    "larger budget, or other levers"
                ) from error
            scores = self._judge.of(_scores(network, how["val_loader"], how["device"]))
            self._narrowed[plan.name] = network, scores
        return self._narrowed[plan.name]

    def say(self, line: str, /) -> None:
        """See `nettailor.candidates.Bench`."""
        if self._train.keywords["verbose"]:
            print(line)


def _scores(network: nn.Module, val_loader: Loader, device: Device) -> Scores:
    accelerator = accelerator_for(device)
    return scores_on(val_loader, place(network, accelerator.device), accelerator)
