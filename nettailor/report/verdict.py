"""Which network to take: chosen on validation, told in plain words, judged by the test."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from nettailor.core.printable import printable
from nettailor.core.run_folder import KINDS, Kind
from nettailor.report.brief import decimals, times
from nettailor.report.measures import (
    accuracy_test,
    accuracy_val,
    flops,
    flops_ratio,
    params,
    params_ratio,
)
from nettailor.report.methods import Figure, Method, Spread
from nettailor.report.summary import Figures

TOLERANCE = 0.5  # points of validation accuracy, whatever prune.tolerance the runs had
_OTHER_ROADS: dict[Kind, str] = {
    "knapsack": "network of a knapsack", "scaled": "scaled network", "searched": "searched network",
}  # fmt: skip
_ROUNDING = 1e-4  # what accuracies in summaries may be off


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (cost, accuracy) that no other point beats, by rising cost.

    A point is beaten by one that costs no more and is no less accurate, and better in one of them.
    Accuracies, in %, count to three decimals: they are means of what was rounded.
    """
    points = [(cost, round(accuracy, 3)) for cost, accuracy in points]

    def beaten(cost: float, accuracy: float) -> bool:
        return any(
            other[0] <= cost and other[1] >= accuracy and other != (cost, accuracy)
            for other in points
        )

    kept = [position for position, point in enumerate(points) if not beaten(*point)]
    return sorted(kept, key=lambda position: points[position])


@dataclass(frozen=True)
class Verdict:
    """What the comparison comes to.

    winner, tailored, fixed: the leanest method of all, of the tailored and of fixed removal; the
    one nearest to its teachers where `within` does not hold it; None where there is none at all.
    within: labels of the methods that are, in the mean over their own seeds, within tolerance on
    validation of the most accurate teacher of the same seed.
    sentences: all this in plain words.
    """

    winner: Method | None
    tailored: Method | None
    fixed: Method | None
    within: frozenset[str]
    sentences: tuple[str, ...]


def judge(methods: Sequence[Method]) -> Verdict:
    """The verdict on all methods; the teacher itself is no candidate."""
    teachers = _Teachers(methods)
    candidates = [method for method in methods if method.kind != "teacher"]
    lead = {method: teachers.lead(method) for method in candidates}
    holding = [method for method in candidates if lead[method] >= -TOLERANCE - _ROUNDING]
    within = frozenset(method.label for method in holding)

    def best(kinds: Sequence[Kind]) -> Method | None:
        found = [method for method in holding if method.kind in kinds]
        if found:
            return min(found, key=lambda method: (*_size(method), -lead[method]))
        found = [method for method in candidates if method.kind in kinds]
        return max(found, key=lambda method: lead[method], default=None)

    winner, tailored, fixed = best(KINDS), best(["tailored"]), best(["eliminated"])
    if winner is None:
        sentences = ["There is nothing beside the teacher yet."]
    else:
        sentences = [_first(winner, teachers, holds=winner.label in within)]
    if tailored and fixed:
        sentences.append(_families(tailored, fixed, within, teachers))
    elif tailored or fixed:
        there, lacking = (
            ("tailored", "fixed removal") if tailored else ("fixed removal", "tailored")
        )
        sentences.append(f"There is no run of {lacking} to set beside {there}.")
    others = [(name, best([kind])) for kind, name in _OTHER_ROADS.items()]
    sentences += [
        _other_road(name, method, within, teachers)
        for name, method in others
        if method and method is not winner
    ]
    return Verdict(winner, tailored, fixed, within, tuple(sentences))


class _Teachers:
    """The most accurate teacher of each seed, from its own run or from what others keep of it."""

    def __init__(self, methods: Sequence[Method]) -> None:
        runs = [run for method in methods for run in method.runs]
        known: dict[tuple[str, int], Figures] = {}
        for run in sorted(runs, key=lambda run: run.summary.kind != "teacher"):
            known.setdefault((run.summary.backbone, run.summary.seed), run.teacher)
        self._best: dict[int, Figures] = {}
        for (_, seed), teacher in known.items():
            self._best[seed] = max(
                self._best.get(seed, teacher), teacher, key=lambda figures: figures.accuracy.val
            )
        self.several = len({backbone for backbone, _ in known}) > 1

    def of(self, method: Method) -> list[Figures]:
        """The teacher that each run of a method is judged by."""
        return [self._best[seed] for seed in method.seeds]

    def lead(self, method: Method) -> float:
        """Points of validation accuracy over the teacher of the same seed, mean over the runs."""
        return fmean(
            accuracy_val(run) - teacher.accuracy.val
            for run, teacher in zip(method.runs, self.of(method), strict=True)
        )

    def name(self, method: Method) -> str:
        """What to call those of a method."""
        backbones = {teacher.backbone for teacher in self.of(method)}
        if not self.several:
            return "teacher"
        return f"{printable(backbones.pop())} teacher" if len(backbones) == 1 else "best teacher"

    def val(self, method: Method) -> Spread | None:
        """Their validation accuracy."""
        return Spread.of(teacher.accuracy.val for teacher in self.of(method))

    def test(self, method: Method) -> Spread | None:
        """Their test accuracy."""
        return Spread.of(teacher.accuracy.test for teacher in self.of(method))


def _first(winner: Method, teachers: _Teachers, *, holds: bool) -> str:
    """The winner beside the teachers of its seeds."""
    name = teachers.name(winner)
    against = f"{_percent(winner.spread(accuracy_val))} against {_percent(teachers.val(winner))}"
    if holds:
        told = (
            f"{winner.label} is the leanest network within {TOLERANCE} points of the {name} on "
            f"validation ({against})"
        )
    else:
        told = (
            f"No network is within {TOLERANCE} points of the {name} on validation. The nearest "
            f"one is {winner.label} ({against})"
        )
    return (
        f"{told}: {_cost(winner, teachers)}. On the test images it reaches "
        f"{_percent(winner.spread(accuracy_test))}, the {name} {_percent(teachers.test(winner))}."
    )


def _size(method: Method) -> tuple[float, float]:
    """FLOPs, then parameters."""
    return _amount(method, flops), _amount(method, params)


def _families(tailored: Method, fixed: Method, within: frozenset[str], teachers: _Teachers) -> str:
    """Which of the two families needs less."""
    for method, family in ((tailored, "tailored network"), (fixed, "network of fixed removal")):
        if method.label not in within:
            held = tailored.label in within or fixed.label in within
            other = fixed if method is tailored else tailored
            if not held:
                return f"Neither tailoring nor fixed removal comes within {TOLERANCE} points."
            return (
                f"{_none_within(family, method, teachers)}; {other.label} is: "
                f"{_cost(other, teachers)}."
            )
    parts = []
    for figure, what in ((flops, "FLOPs"), (params, "parameters")):
        mine, theirs = _amount(tailored, figure), _amount(fixed, figure)
        if mine == theirs:
            parts.append(("both", f"the same {what} ({_millions(mine)})"))
        else:
            leader = "tailoring" if mine < theirs else "fixed removal"
            less, more = sorted((mine, theirs))
            parts.append((leader, f"fewer {what} ({_millions(less)} against {_millions(more)})"))
    (first, lean), (second, small) = parts
    verbs = {"both": "need"}
    if first == second:
        sentence = f"{first} {verbs.get(first, 'needs')} {lean} and {small}"
    else:
        sentence = (
            f"{first} {verbs.get(first, 'needs')} {lean}, {second} {verbs.get(second, 'needs')} "
            f"{small}"
        )
    return f"{sentence[0].upper()}{sentence[1:]}: {tailored.label} beside {fixed.label}."


def _other_road(name: str, method: Method, within: frozenset[str], teachers: _Teachers) -> str:
    """What the leanest network of another road needs, or how near it comes."""
    if method.label not in within:
        return f"{_none_within(name, method, teachers)}."
    return (
        f"The leanest {name} within {TOLERANCE} points needs {_cost(method, teachers)}: "
        f"{method.label}."
    )


def _none_within(name: str, nearest: Method, teachers: _Teachers) -> str:
    against = f"{_percent(nearest.spread(accuracy_val))} against {_percent(teachers.val(nearest))}"
    return f"No {name} is within {TOLERANCE} points (the nearest is {nearest.label}, {against})"


def _percent(spread: Spread | None) -> str:
    if spread is None:
        return "an unknown share"
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.2f}"
    return f"{spread.mean:.2f}{deviation} %"


def _cost(method: Method, teachers: _Teachers) -> str:
    """FLOPs and parameters, with their ratios to those of the teacher of the same backbone."""
    whose = "its own teacher's" if teachers.several else "the teacher's"
    return (
        f"{_millions(_amount(method, flops))} FLOPs ({times(_amount(method, flops_ratio))} "
        f"{whose}) and {_millions(_amount(method, params))} parameters "
        f"({times(_amount(method, params_ratio))})"
    )


def _amount(method: Method, figure: Figure) -> float:
    """The mean of a figure that every run has."""
    mean = method.mean(figure)
    assert mean is not None, "every run has this figure"
    return mean


def _millions(amount: float) -> str:
    amount /= 1e6
    return f"{amount:,.{decimals(amount)}f} M"
