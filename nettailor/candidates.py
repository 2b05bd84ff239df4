"""Which cuts of a trained student are tried, in which order, and when it is enough."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from nettailor.candidate import ROUNDING, Candidate
from nettailor.core.errors import UserError
from nettailor.core.judge import Judge
from nettailor.core.printable import counted
from nettailor.core.scores import Scores
from nettailor.core.trainer import Stop
from nettailor.prune.depths import half_of, ruled_out
from nettailor.prune.plan import PrunePlan, decide
from nettailor.student.network import Student


class Bench(Protocol):
    """Fine-tunes what cuts leave: where images, states and words go.

    epochs: of the fine-tuning of a cut.
    """

    epochs: int

    def finetune(self, plan: PrunePlan, stop: Stop | None = None) -> Candidate:
        """Go on with a cut from where it stands until it is told to stop, or to its end."""

    def say(self, line: str, /) -> None:
        """What the user may want to see."""


def target_of(judge: Judge, tolerance: float) -> float:
    """What a cut has to reach, in %, to be within a tolerance of the teacher, in points."""
    return judge.aim - tolerance - ROUNDING


def by_rank(
    student: Student, depths: Sequence[int], threshold: float, say: Callable[[str], None]
) -> list[PrunePlan]:
    """A plan per depth that differs from the others, the deepest first.

    A depth that would leave no path from stem to logits is left out, which is said.

    Raises UserError where none is left.
    """
    alpha = student.path_weights().tolist()
    plans: dict[object, PrunePlan] = {}
    for depth in sorted(set(depths), reverse=True):
        try:
            plan = decide(student.wiring, alpha, threshold=threshold, remove=depth)
        except ValueError:
            say(f"no path is left without the {depth} least blocks")
        else:
            plans.setdefault(plan.kept.paths, plan)
    if not plans:
        raise UserError(
            f"prune.remove = {sorted(set(depths))}: no such cut of this student leaves a path from "
            "stem to logits; give smaller numbers"
        )
    return list(plans.values())


def keep_first(
    bench: Bench, plans: Sequence[PrunePlan], target: float, aim: float
) -> list[Candidate]:
    """Fine-tune cuts in their order until one reaches `target` per cent.

    Each goes to its end, where it has to stand at the target, or until it is ruled out. No more are
    tried where validation has too few images to tell: after one that is as good as the teacher
    there, and only its margin of error keeps from the target; and where one is no better after half
    of the epochs than an earlier one that only its margin keeps from it. The one that is kept, the
    first of the best where none reaches the target, is then fine-tuned to its end.

    Args:
        bench: fine-tunes.
        plans: the cuts.
        target: in %.
        aim: what the teacher stands at, in %.

    Returns those that were tried, the one that is kept first.
    """
    tried: dict[str, Candidate] = {}
    told: dict[str, int] = {}  # after which epoch of each
    unsure = -math.inf  # by half of the epochs, of those that may reach the target

    def stop(epoch: int, last: Scores) -> bool:
        return ruled_out(epoch, bench.epochs, last.standing, target, last.error, unsure)

    chosen = None
    for plan in plans:
        bench.say(f"{plan.name}: {plan.describe()}")
        found = tried[plan.name] = bench.finetune(plan, stop)
        told[plan.name] = found.told(target, unsure)
        by_half, *_ = found.by_half
        standing, _, error = found.after(told[plan.name])
        verdict, ended = found.verdict(target), told[plan.name] == bench.epochs
        if ended and (found.reaches(target) or found.as_good_as(aim)):
            chosen = found
            if not found.reaches(target):
                verdict = f"as good as the teacher, {verdict}: no more are tried"
        if by_half <= unsure:
            verdict = "no better than a leaner one that may be within tolerance: no more are tried"
        _tell(bench, found, verdict)
        if chosen or by_half <= unsure:
            break
        if standing + error >= target:
            unsure = max(unsure, by_half)
    chosen = chosen or max(tried.values(), key=lambda one: one.after(told[one.name])[0])
    others = [candidate for candidate in tried.values() if candidate is not chosen]
    if not chosen.ended:
        chosen = bench.finetune(chosen.plan)
        _tell(bench, chosen, "kept")
    return [chosen, *others]


def keep_better(bench: Bench, plans: Sequence[PrunePlan]) -> list[Candidate]:
    """Fine-tune cuts for half of the epochs, and the one that is best by then to its end.

    Returns those that were tried, the one that is kept first.
    """
    half = half_of(bench.epochs)
    tried = []
    for plan in plans:
        bench.say(f"{plan.name}: {plan.describe()}")
        tried.append(bench.finetune(plan, lambda epoch, _: len(plans) > 1 and epoch >= half))
    kept = max(tried, key=lambda one: one.by_half)
    others = [one for one in tried if one is not kept]
    for one in others:
        _tell(bench, one, f"behind {kept.name}")
    if not kept.ended:
        kept = bench.finetune(kept.plan)
    _tell(bench, kept, "kept")
    return [kept, *others]


def _tell(bench: Bench, candidate: Candidate, verdict: str = "") -> None:
    bench.say(
        f"{candidate.name}: before fine-tuning {candidate.before.accuracy:.2f} %, "
        f"after {counted(len(candidate.fitted.history), 'epoch')} {candidate.scores.accuracy:.2f} %"
        + (f": {verdict}" if verdict else "")
    )
