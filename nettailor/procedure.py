"""From a network to one of the size of the task, in Python: routes, cuts, and all of it at once."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from typing import Literal

from torch import nn

from nettailor.candidate import Candidate
from nettailor.candidates import keep_leanest, keep_winner, of_each_end, on_the_ladder, target_of
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
from nettailor.prune.ladder import route_name
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.routes import Route, Routes
from nettailor.prune.statistics import STATISTICS_BATCHES, reestimate
from nettailor.share import budget_of
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
    `nettailor.prune.importance`; the best sum within the budget is found exactly. Routes of
    different exits compare badly straight after a cut: `tailor` fine-tunes the best of each.

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
    return PrunePlan.keeping(route_name(route), student.wiring, route.paths)


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
    student_epochs: int = 12,
    finetune_epochs: int = 10,
    seed: int = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    run: Run | None = None,
    verbose: bool = True,
) -> nn.Module:
    """Fine-tune a teacher, grow and train a student of it, cut it, and fine-tune what is left.

    With a budget the best routes of all ends within it race; without one the leanest that is within
    tolerance of the teacher on validation is kept, chance allowed for (`core.judge.margin`).

    Args:
        network: a `Backbone`, or what one can be made of; it stays as it is.
        train_loader: (images, labels); images are float and normalised, labels int64.
        val_loader: the same, each image once; all choices are made on it.
        max_flops, max_params: the budget, one of them or none: a share of the network's.
        tolerance: points of validation accuracy that the teacher may be ahead.
        gamma: weight of the expected complexity.
        teacher_epochs: 0 where the network is fine-tuned already.
        student_epochs, finetune_epochs: of the student, and of a cut.
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
    with seeded(seed, "shapes"):
        size = next(checked(val_loader))[0].shape[-1]
        grown = Student(teacher)
    shares = shares_of(grown, teacher, size, unit)
    # whatever the paths turn out to be worth
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
        loss = TailorLoss(
            teacher, gamma=gamma, costs=lambda one: shares_of(one, teacher, size, unit).paths
        )
        train(student, loss, epochs=student_epochs, name="student")
        values = weigh(student, train_loader, seed=seed, device=device)
        routes = Routes(student.wiring, values, shares.paths, fixed=shares.fixed)
        place(teacher, next(student.parameters()).device)
        judge = Judge(teacher=_scores(teacher, val_loader), sure=most == inf)
        bench = _Bench(student, loss.after_cut(), train, finetune_epochs, judge)
        if most < inf:
            within = [by_end.best(most) for by_end in routes.by_end().values()]
            named = of_each_end([route for route in within if route is not None])
            kept, *_ = keep_winner(bench, _plans(student, named))
        else:
            plans = _plans(student, on_the_ladder(routes))
            at_once = [bench.cut(plan)[1].accuracy for plan in plans]
            kept, *_ = keep_leanest(bench, plans, shares, target_of(judge, tolerance), at_once)
        return fold(kept.network)


@dataclass
class _Bench:
    """The `Bench` of a program's own loaders. train: `fit` with all that stages share."""

    student: Student
    loss: TailorLoss
    train: "partial[Fitted]"
    epochs: int
    judge: Judge

    def cut(self, plan: PrunePlan) -> tuple[Student, Scores]:
        """See `nettailor.candidates.Bench`."""
        shared = self.train.keywords
        network = cut(self.student, plan, shared["train_loader"], seed=shared["seed"])
        return network, _scores(network, shared["val_loader"])

    def finetune(self, plan: PrunePlan, stop: Stop | None = None) -> Candidate:
        """See `nettailor.candidates.Bench`."""
        network, straight_after = self.cut(plan)
        fitted = self.train(
            network, self.loss, epochs=self.epochs, name=plan.name, judge=self.judge, stop=stop
        )
        return Candidate(plan, network, straight_after, fitted, self.epochs)

    def say(self, line: str, /) -> None:
        """See `nettailor.candidates.Bench`."""
        if self.train.keywords["verbose"]:
            print(line)


def _plans(student: Student, routes: Mapping[str, Route]) -> list[PrunePlan]:
    """The cuts that leave these routes, the leanest first."""
    by_cost = sorted(routes.items(), key=lambda one: one[1].cost)
    return [PrunePlan.keeping(name, student.wiring, route.paths) for name, route in by_cost]


def _scores(network: nn.Module, val_loader: Loader) -> Scores:
    device = next(network.parameters()).device.type
    return classify(network, checked(val_loader), accelerator_for(device, "auto")).scores()


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
