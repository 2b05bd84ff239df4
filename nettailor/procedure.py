"""From a network to one of the size of the task, in Python: routes, cuts, and all of it at once."""

from copy import deepcopy
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from nettailor.candidate import Candidate
from nettailor.core.backbone import Backbone
from nettailor.core.device import place
from nettailor.core.epochs import LoaderEpochs, checked
from nettailor.core.errors import UserError
from nettailor.core.judge import Judge
from nettailor.core.scores import Scores, classify
from nettailor.core.trainer import Fitted, Stop
from nettailor.fitting import Loader, Precision, Run, accelerator_for, fit, run_or_temporary, seeded
from nettailor.network import find_run, load_network
from nettailor.prune.depths import choose, decided, find_leanest
from nettailor.prune.fold import fold
from nettailor.prune.importance import measured_on
from nettailor.prune.ladder import NEAR, end_of, ladder, route_name
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.routes import Routes
from nettailor.prune.statistics import STATISTICS_BATCHES, reestimate
from nettailor.race import race
from nettailor.student.costs import shares_of
from nettailor.student.loss import TailorLoss
from nettailor.student.network import Student
from nettailor.teacher.objective import CrossEntropy

Device = Literal["auto", "cpu", "cuda"]
_ROUNDING = 1e-6  # per cent, of sums and differences


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
    most = _budget(max_flops, max_params)
    size = next(checked(train_loader))[0].shape[-1]
    shares = shares_of(student, teacher, size, "flops" if max_params is None else "params")
    values = weigh(student, train_loader, batches=batches, seed=seed, device=device)
    routes = Routes(student.wiring, values, shares.paths, fixed=shares.fixed)
    route = routes.best(most)
    if route is None:
        raise _out_of_reach(routes, most)
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
        verbose: print a line an epoch.

    Returns:
        A plain module in eval mode: images (B, C, S, S) -> logits (B, classes).

    Raises:
        UserError: the network cannot be taken apart, no route meets the budget, or a loader gives
            something else than it should.
    """
    teacher = deepcopy(network) if isinstance(network, Backbone) else Backbone(network)
    most = _budget(max_flops, max_params)
    unit: Literal["flops", "params"] = "flops" if max_params is None else "params"
    with seeded(seed, "shapes"):
        size = next(checked(val_loader))[0].shape[-1]
        grown = Student(teacher)
    shares = shares_of(grown, teacher, size, unit)
    free = Routes(grown.wiring, [0.0] * len(shares.paths), shares.paths, fixed=shares.fixed)
    if free.best(most) is None:
        raise _out_of_reach(free, most)
    with seeded(seed, "tailor"), run_or_temporary(run) as kept:
        train = partial(
            fit,
            train_loader=train_loader,
            val_loader=val_loader,
            seed=seed,
            device=device,
            precision=precision,
            run=kept,
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
        search = _Search(student, teacher, loss.after_cut(), train, finetune_epochs, seed)
        values = weigh(student, train_loader, seed=seed, device=device)
        routes = Routes(student.wiring, values, shares.paths, fixed=shares.fixed)
        found = search.race(routes, most) if most < inf else search.leanest(routes, tolerance)
        return fold(found.network)


class _Search:
    """Cuts of one student that are fine-tuned to find out which is kept."""

    def __init__(
        self,
        student: Student,
        teacher: Backbone,
        loss: TailorLoss,
        train: "partial[Fitted]",
        epochs: int,
        seed: int,
    ) -> None:
        self._student, self._loss, self._train = student, loss, train
        self._epochs, self._seed = epochs, seed
        self._device = next(student.parameters()).device.type
        self._taught = self._scores(place(teacher, torch.device(self._device)))

    def _scores(self, network: nn.Module) -> Scores:
        batches = checked(self._train.keywords["val_loader"])
        return classify(network, batches, accelerator_for(self._device, "auto")).scores()

    def _cut(self, plan: PrunePlan) -> Student:
        return cut(self._student, plan, self._train.keywords["train_loader"], seed=self._seed)

    def _finetune(self, plan: PrunePlan, judge: Judge, stop: Stop | None) -> Candidate:
        """Go on with a cut until it is told to stop."""
        network = self._cut(plan)
        straight_after = self._scores(network)
        fitted = self._train(
            network, self._loss, epochs=self._epochs, name=plan.name, judge=judge, stop=stop
        )
        return Candidate(plan, network, straight_after, fitted, self._epochs)

    def race(self, routes: Routes, most: float) -> Candidate:
        """The best route of each end within a budget, by successive halving."""
        found = [by_end.best(most) for by_end in routes.by_end().values()]
        named = {f"{route_name(one)}-{end_of(one)}": one for one in found if one is not None}
        judge = Judge(teacher=self._taught)

        def until(name: str, epochs: int) -> Candidate:
            plan = PrunePlan.keeping(name, self._student.wiring, named[name].paths)
            return self._finetune(plan, judge, lambda epoch, _: epoch >= epochs)

        return race(list(named), until, self._epochs)[0]

    def leanest(self, routes: Routes, tolerance: float) -> Candidate:
        """The leanest route within tolerance of the teacher, or the best where none is."""
        rungs = ladder(routes.frontier())
        wiring = self._student.wiring
        plans = [PrunePlan.keeping(route_name(one), wiring, one.paths) for one in rungs]
        judge = Judge(teacher=self._taught, sure=True)
        target = judge.aim - tolerance - _ROUNDING
        tried: dict[int, Candidate] = {}

        def enough(epoch: int, best: Scores) -> bool:
            return decided(epoch, self._epochs, best.standing, target, best.error)

        def reaches(position: int) -> bool:
            tried[position] = self._finetune(plans[position], judge, enough)
            return tried[position].reached(target)

        at_once = [self._scores(self._cut(plan)).accuracy for plan in plans]
        near = [i for i, accuracy in enumerate(at_once) if accuracy >= target - NEAR]
        find_leanest(len(plans), near[0] if near else len(plans) - 1, reaches)
        standings = [one.scores.standing for one in tried.values()]
        costs = [rungs[position].cost for position in tried]
        kept = list(tried.values())[choose(standings, costs, target)]
        return kept if kept.ended else self._finetune(kept.plan, judge, None)


def _budget(max_flops: float | None, max_params: float | None) -> float:
    if max_flops is not None and max_params is not None:
        raise UserError("max_flops and max_params are given: expected one of them")
    given = max_flops if max_params is None else max_params
    if given is not None and not given > 0:
        raise UserError(f"the budget is {given:g}: expected a share above 0")
    return inf if given is None else given


def _out_of_reach(routes: Routes, most: float) -> UserError:
    leanest, dearest = routes.reach()
    return UserError(
        f"no route costs {most:g} of the backbone's or less: give a budget from {leanest:.3g} to "
        f"{dearest:.3g}"
    )
