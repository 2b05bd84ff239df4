"""From a network to one of the size of the task, in Python: routes, cuts, and all of it at once."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from typing import Literal

from torch import nn

from nettailor.candidate import Candidate
from nettailor.candidates import target_of
from nettailor.core.backbone import Backbone
from nettailor.core.device import place
from nettailor.core.epochs import LoaderEpochs, checked
from nettailor.core.errors import UserError
from nettailor.core.judge import Judge
from nettailor.core.scores import Scores, classify
from nettailor.core.trainer import Stop
from nettailor.core.training_state import Fitted
from nettailor.fitting import Loader, Precision, Run, accelerator_for, fit, run_or_temporary, seeded
from nettailor.network import find_run, load_network
from nettailor.prune.fold import fold
from nettailor.prune.importance import measured_on
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.routes import Route, Routes
from nettailor.prune.statistics import STATISTICS_BATCHES, reestimate
from nettailor.resolve import EPOCHS_TO_A_BUDGET, EPOCHS_WITHOUT
from nettailor.share import budget_of
from nettailor.shrinking import shrink
from nettailor.sizes import keep_for_budget, keep_without_budget
from nettailor.student.costs import shares_of
from nettailor.student.loss import TailorLoss
from nettailor.student.network import Student
from nettailor.teacher.objective import CrossEntropy

Device = Literal["auto", "cpu", "cuda"]


def best_route(
    student: Student,
    teacher: Backbone,
    train_loader: Loader,
    *,
    max_flops: float | None = None,
    max_params: float | None = None,
    batches: int = 8,
    seed: int = 0,
    device: Device = "auto",
) -> PrunePlan:
    """The most valuable route from stem to logits within a budget: what `cut` leaves.

    Each path is worth what the loss falls by when its node takes it alone, see
    `nettailor.prune.importance`; the best sum within the budget is found exactly.

    Args:
        student: trained; it stays as it is.
        teacher: the backbone, whose cost is 1.
        train_loader: (images, labels).
        max_flops, max_params: the budget, one of them or none: a share of the multiply-adds or
            parameters of the backbone.
        batches: how many to weigh paths on.
        seed: of their order.
        device: "auto" takes a GPU where there is one.

    Raises:
        UserError: no route is within the budget; the text says what can be reached.
    """
    unit, most = budget_of(max_flops, max_params)
    size = next(checked(train_loader))[0].shape[-1]
    shares = shares_of(student, teacher, size, unit)
    values = weigh(student, train_loader, batches=batches, seed=seed, device=device)
    route = _best(Routes(student.wiring, values, shares.paths, fixed=shares.fixed), most)
    return PrunePlan.keeping(route.name, student.wiring, route.paths)


def weigh(
    student: Student,
    train_loader: Loader,
    *,
    batches: int = 8,
    seed: int = 0,
    device: Device = "auto",
) -> list[float]:
    """What each path is worth, in the wiring's order; arguments as for `best_route`."""
    accelerator = accelerator_for(device, "auto")
    place(student, accelerator.device)
    looked_at = list(islice(LoaderEpochs(train_loader, seed).epoch(0), batches))
    return measured_on(student, looked_at, accelerator)


def cut(
    student: Student, plan: PrunePlan, train_loader: Loader | None = None, *, seed: int = 0
) -> Student:
    """A copy of the student without the paths that the plan drops.

    Args:
        student: trained; it stays as it is.
        plan: such as `best_route` gives.
        train_loader: running statistics of batch norms are averaged anew over its first 20 batches,
            since a cut changes what later layers see; None: they stay.
        seed: of their order.
    """
    smaller = remove(student, plan)
    if train_loader is not None:
        device = next(student.parameters()).device
        batches = islice(LoaderEpochs(train_loader, seed).epoch(0), STATISTICS_BATCHES)
        reestimate(smaller, batches, accelerator_for(device.type, "auto"))
    return smaller


def load(folder: str | Path) -> nn.Module:
    """A network that a command wrote, on the CPU, in eval mode; nothing is unpickled.

    Args:
        folder: of a finished run, or of an exported network.

    Returns:
        A `Backbone` or `Student`: images (B, 3, S, S) -> `NetOutput`; `fold` makes it plain.

    Raises:
        UserError: a file is missing, damaged, or of another network.
    """
    return load_network(find_run(Path(folder).expanduser()))[0]


def tailor(
    network: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    *,
    max_flops: float | None = None,
    max_params: float | None = None,
    tolerance: float = 0.5,
    gamma: float = 0.3,
    teacher_epochs: int = 10,
    student_epochs: int | None = None,
    finetune_epochs: int | None = None,
    seed: int = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    run: Run | None = None,
    verbose: bool = True,
) -> nn.Module:
    """Fine-tune a teacher, shrink a student of it as it trains, and fine-tune what is left.

    With a budget that is the last size, or as many first blocks as the budget allows: which of both
    is better on validation after half of the fine-tuning. Without one it is the size of the least
    loss + γ cost as fine-tuning is thought to leave it, as many first blocks, or a dearer one of
    the better kind that is within tolerance of the teacher, all on validation and chance allowed
    for (`core.judge.margin`).

    Args:
        network: a `Backbone`, or what one can be made of; it stays as it is.
        train_loader: (images, labels); images are float and normalised, labels int64.
        val_loader: the same, each image once; all choices are made on it.
        max_flops, max_params: the budget, one of them or none: a share of the network's.
        tolerance: points of validation accuracy that the teacher may be ahead.
        gamma: without a budget, the price of cost: nats for all of the network's multiply-adds.
        teacher_epochs: 0 where the network is fine-tuned already.
        student_epochs, finetune_epochs: of the student as it shrinks, and of what is left; None: 4
            and 10 to a budget, 8 and 6 without one.
        seed: of everything random.
        device, precision: see `fit`.
        run: where to keep what is trained and to go on from; None: nowhere.
        verbose: print a line an epoch, and what became of each cut.

    Returns:
        A plain module in eval mode: images (B, C, S, S) -> logits (B, classes).

    Raises:
        UserError: the network cannot be taken apart, no route meets the budget, or a loader gives
            something else than it should.
    """
    teacher = deepcopy(network) if isinstance(network, Backbone) else Backbone(network)
    unit, most = budget_of(max_flops, max_params)
    shrinks, finetunes = EPOCHS_TO_A_BUDGET if most < inf else EPOCHS_WITHOUT
    with seeded(seed, "shapes"):
        size = next(checked(val_loader))[0].shape[-1]
        grown = Student(teacher)
    shares = shares_of(grown, teacher, size, unit)
    # the budget can be met before anything is trained
    _best(Routes(grown.wiring, [0.0] * len(shares.paths), shares.paths, fixed=shares.fixed), most)
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
        with seeded(seed, "student"):
            student = Student(teacher)
        judge = Judge(teacher=_scores(teacher, val_loader, device), sure=most == inf)
        target = target_of(judge, tolerance)

        passed = shrink(
            student, teacher, train_loader, val_loader, max_flops=max_flops, max_params=max_params,
            epochs=student_epochs or shrinks, judge=judge, seed=seed, device=device,
            target=target if most == inf else None, precision=precision, run=folder,
            verbose=verbose,
        )  # fmt: skip
        starts = {one.plan.name: (one.network, one.scores) for one in passed}

        def start(plan: PrunePlan) -> tuple[Student, Scores]:
            if plan.name not in starts:
                with seeded(seed, "student"):
                    first = remove(Student(teacher), plan)
                starts[plan.name] = first, judge.of(_scores(first, val_loader, device))
            return starts[plan.name]

        loss, epochs = TailorLoss(teacher).after_cut(), finetune_epochs or finetunes
        bench, cost = _Bench(start, loss, train, epochs, judge), partial(shares.of, student.wiring)
        if most < inf:
            kept, *_ = keep_for_budget(bench, passed[-1].plan, cost, most)
        else:
            sizes, losses = [one.plan for one in passed], [one.scores.loss for one in passed]
            kept, *_ = keep_without_budget(bench, sizes, losses, cost, gamma=gamma, target=target)
        return fold(kept.network)


class _Bench:
    """The `Bench` of a program's own loaders.

    start: what a cut leaves before it is fine-tuned, and its scores. train: `fit` with what stages
    share.
    """

    def __init__(
        self,
        start: Callable[[PrunePlan], tuple[Student, Scores]],
        loss: TailorLoss,
        train: "partial[Fitted]",
        epochs: int,
        judge: Judge,
    ) -> None:
        self._start, self._loss, self._train = start, loss, train
        self._judge, self.epochs = judge, epochs

    def finetune(self, plan: PrunePlan, stop: Stop | None = None) -> Candidate:
        """See `nettailor.candidates.Bench`."""
        start, scores = self._start(plan)
        network = deepcopy(start)
        fitted = self._train(
            network, self._loss, epochs=self.epochs, name=plan.name, judge=self._judge,
            start=scores, stop=stop,
        )  # fmt: skip
        return Candidate(plan, network, scores, fitted, self.epochs)

    def say(self, line: str, /) -> None:
        """See `nettailor.candidates.Bench`."""
        if self._train.keywords["verbose"]:
            print(line)


def _scores(network: nn.Module, val_loader: Loader, device: Device) -> Scores:
    accelerator = accelerator_for(device, "auto")
    place(network, accelerator.device)
    return classify(network, checked(val_loader), accelerator).scores()


def _best(routes: Routes, most: float) -> Route:
    """The best route within a budget; UserError where there is none."""
    route = routes.best(most)
    if route is None:
        leanest, dearest = routes.reach()
        raise UserError(
            f"no route costs {most:g} of the backbone's or less: give a budget from {leanest:.3g} "
            f"to {dearest:.3g}"
        )
    return route
