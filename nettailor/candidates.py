"""Which cuts of a trained student are tried, in which order, and when it is enough."""

from collections.abc import Sequence
from typing import Protocol

from nettailor.candidate import Candidate
from nettailor.core.errors import UserError
from nettailor.core.judge import Judge
from nettailor.core.scores import Scores
from nettailor.core.trainer import Stop
from nettailor.halving import rungs
from nettailor.prune.depths import choose, decided, find_leanest
from nettailor.prune.ladder import NEAR, end_of, ladder, route_name
from nettailor.prune.plan import PrunePlan, decide
from nettailor.prune.routes import Route, Routes
from nettailor.student.costs import PathShares
from nettailor.student.network import Student

_ROUNDING = 1e-6  # per cent, of sums and differences
_FIRST = 5  # part of the epochs after which the first of a race drop out


class Bench(Protocol):
    """Cuts one trained student and fine-tunes what is left: where images, states and words go.

    student: trained. epochs: of the fine-tuning of a cut.
    """

    student: Student
    epochs: int

    def cut(self, plan: PrunePlan) -> tuple[Student, Scores]:
        """The student without what the plan drops, untrained, and its scores on validation."""

    def finetune(self, plan: PrunePlan, stop: Stop | None = None) -> Candidate:
        """Go on with a cut from where it stands until it is told to stop, or to its end."""

    def say(self, line: str, /) -> None:
        """What the user may want to see."""


def target_of(judge: Judge, tolerance: float) -> float:
    """What a cut has to reach, in %, to be within a tolerance of the teacher, in points."""
    return judge.aim - tolerance - _ROUNDING


def by_rank(bench: Bench, depths: Sequence[int], threshold: float) -> list[PrunePlan]:
    """A plan per depth that differs from the others, the deepest first.

    A depth that would leave no path from stem to logits is left out.

    Raises UserError where none is left.
    """
    student = bench.student
    alpha = student.path_weights().tolist()
    plans: dict[object, PrunePlan] = {}
    for depth in sorted(set(depths), reverse=True):
        try:
            plan = decide(student.wiring, alpha, threshold=threshold, remove=depth)
        except ValueError:
            bench.say(f"no path is left without the {depth} least blocks")
        else:
            plans.setdefault(plan.kept.paths, plan)
    if not plans:
        raise UserError(
            f"prune.remove = {sorted(set(depths))}: no such cut of this student leaves a path from "
            "stem to logits; give smaller numbers"
        )
    return list(plans.values())


def on_the_ladder(routes: Routes) -> dict[str, Route]:
    """By name the routes of which the leanest that is good enough is looked for, it first.

    Each is worth more and, the last one apart, at least 8 % dearer than the one before.
    """
    return {route_name(rung): rung for rung in ladder(routes.frontier())}


def of_each_end(routes: Sequence[Route]) -> dict[str, Route]:
    """By name the routes that race, which lead to the logits from different ends."""
    return {f"{route_name(route)}-{end_of(route)}": route for route in routes}


def keep_leanest(
    bench: Bench,
    plans: Sequence[PrunePlan],
    shares: PathShares,
    target: float,
    straight_after: Sequence[float] | None = None,
) -> list[Candidate]:
    """Fine-tune cuts until the leanest that reaches `target` per cent is known.

    Each stops as soon as it is known whether it reaches the target; the one that is kept, the best
    where none does, is then fine-tuned to its end.

    Args:
        plans: the leanest first.
        shares: what the student's paths cost.
        straight_after: accuracy of each plan when cut. The search begins with the leanest that is
            near the target, on the assumption that what a dearer plan cannot reach a leaner one
            cannot either. None: they are tried in their order.

    Returns those that were tried, the one that is kept first.
    """
    tried: list[Candidate] = []

    def enough(epoch: int, best: Scores) -> bool:
        return decided(epoch, bench.epochs, best.standing, target, best.error)

    def reaches(position: int) -> bool:
        plan = plans[position]
        bench.say(f"{plan.name}: {plan.describe()}")
        tried.append(bench.finetune(plan, enough))
        _tell(bench, tried[-1], tried[-1].verdict(target))
        return tried[-1].reached(target)

    if straight_after is None:
        next(filter(reaches, range(len(plans))), None)
    else:
        near = [i for i, accuracy in enumerate(straight_after) if accuracy >= target - NEAR]
        find_leanest(len(plans), near[0] if near else len(plans) - 1, reaches)
    costs = [shares.of(bench.student, candidate.plan.kept.paths) for candidate in tried]
    chosen = tried[choose([candidate.scores.standing for candidate in tried], costs, target)]
    others = [candidate for candidate in tried if candidate is not chosen]
    if not chosen.ended:
        chosen = bench.finetune(chosen.plan)
        _tell(bench, chosen, "kept")
    return [chosen, *others]


def keep_winner(bench: Bench, plans: Sequence[PrunePlan]) -> list[Candidate]:
    """Race cuts by accuracy on validation: successive halving (Jamieson and Talwalkar, 2016).

    After a fifth of the epochs, two fifths and so on, the better half goes on, until one is left;
    of equals the first. What a route is worth says little about routes of other ends: an early exit
    that was trained with everything before it answers straight after the cut, while a deep route
    of few blocks answers only after some epochs, and then better.

    Returns all of them, the winner first, which is fine-tuned to its end.
    """
    left, found = list(plans), dict[str, Candidate]()
    for plan in plans:
        bench.say(f"{plan.name}: {plan.describe()}")
    for rung in rungs(max(1, bench.epochs // _FIRST), bench.epochs):
        until = rung if len(left) > 1 else bench.epochs
        for plan in left:
            found[plan.name] = bench.finetune(plan, _after(until))
            _tell(bench, found[plan.name])
        standings = {plan.name: found[plan.name].standing(until) for plan in left}
        left.sort(key=lambda plan: standings[plan.name], reverse=True)
        if until == bench.epochs:
            break
        left = left[: max(1, len(left) // 2)]
    winner = found.pop(left[0].name)
    return [winner, *found.values()]


def _after(epochs: int) -> Stop:
    return lambda epoch, _: epoch >= epochs


def _tell(bench: Bench, candidate: Candidate, verdict: str = "") -> None:
    bench.say(
        f"{candidate.name}: straight after the cut {candidate.straight_after.accuracy:.2f} %, "
        f"after {len(candidate.fitted.history)} epochs {candidate.scores.accuracy:.2f} %"
        + (f": {verdict}" if verdict else "")
    )
