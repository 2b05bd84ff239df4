"""Which network to take: chosen on validation, told in plain words, judged by the test."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

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

TOLERANCE = 0.5  # points of validation accuracy, as when a depth is chosen
_ROUNDING = 1e-6


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (cost, accuracy) that no other point beats, by rising cost.

    A point is beaten by one that costs no more and is no less accurate, and better in one of them.
    """

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

    teacher: validation accuracy of the (most accurate) teacher.
    winner, tailored, fixed: the leanest method of all, of the tailored and of fixed removal; the
    most accurate one where `within` does not hold it; None where there is none at all.
    within: labels of the methods within tolerance of the teacher on validation.
    sentences: all this in plain words.
    """

    teacher: Spread
    winner: Method | None
    tailored: Method | None
    fixed: Method | None
    within: frozenset[str]
    sentences: tuple[str, ...]


def judge(methods: Sequence[Method]) -> Verdict:
    """The verdict on all methods; the teacher itself is no candidate."""
    name, teacher, teacher_test = _reference(methods)
    target = teacher.mean - TOLERANCE - _ROUNDING
    candidates = [method for method in methods if method.kind != "teacher"]
    holding = [method for method in candidates if _val(method) >= target]
    within = frozenset(method.label for method in holding)

    def best(kinds: Sequence[str]) -> Method | None:
        found = [method for method in holding if method.kind in kinds]
        if found:
            return min(found, key=lambda method: (*_size(method), -_val(method)))
        found = [method for method in candidates if method.kind in kinds]
        return max(found, key=_val, default=None)

    winner = best([method.kind for method in candidates])
    tailored, fixed = best(["tailored"]), best(["eliminated"])
    if winner is None:
        sentences = ["There is nothing beside the teacher yet."]
    elif winner.label in within:
        sentences = [
            f"{winner.label} is the leanest network within {TOLERANCE} points of the {name} on "
            f"validation ({_percent(winner.spread(accuracy_val))} against {_percent(teacher)}): "
            f"{_cost(winner)}. On the test images it reaches "
            f"{_percent(winner.spread(accuracy_test))}, the {name} {_percent(teacher_test)}."
        ]
    else:
        sentences = [
            f"No network is within {TOLERANCE} points of the {name} on validation "
            f"({_percent(teacher)}). The most accurate one is {winner.label} with "
            f"{_percent(winner.spread(accuracy_val))}: {_cost(winner)}. On the test images it "
            f"reaches {_percent(winner.spread(accuracy_test))}, the {name} "
            f"{_percent(teacher_test)}."
        ]
    if tailored and fixed:
        sentences.append(_families(tailored, fixed, within))
    elif tailored or fixed:
        there, lacking = (
            ("tailored", "fixed removal") if tailored else ("fixed removal", "tailored")
        )
        sentences.append(f"There is no run of {lacking} to set beside {there}.")
    return Verdict(teacher, winner, tailored, fixed, within, tuple(sentences))


def _val(method: Method) -> float:
    return _amount(method, accuracy_val)


def _size(method: Method) -> tuple[float, float]:
    """FLOPs, then parameters."""
    return _amount(method, flops), _amount(method, params)


def _reference(methods: Sequence[Method]) -> tuple[str, Spread, Spread | None]:
    """What to call the most accurate teacher, and its validation and test accuracy over seeds.

    Read from the teachers' own runs, or from what the others keep of them.
    """
    teachers: dict[tuple[str, int], Figures] = {}
    for method in methods:
        for run in method.runs:
            teachers.setdefault((run.summary.backbone, run.summary.seed), run.teacher)
    found = []
    for backbone, members in groupby(sorted(teachers), key=lambda key: key[0]):
        summaries = [teachers[key] for key in members]
        val = Spread.of(summary.accuracy.val for summary in summaries)
        assert val is not None, "every teacher has a validation accuracy"
        found.append((backbone, val, Spread.of(summary.accuracy.test for summary in summaries)))
    backbone, val, test = max(found, key=lambda row: row[1].mean)
    return ("teacher" if len(found) == 1 else f"{backbone} teacher"), val, test


def _families(tailored: Method, fixed: Method, within: frozenset[str]) -> str:
    """Which of the two families needs less."""
    for method, family in ((tailored, "tailored network"), (fixed, "network of fixed removal")):
        if method.label not in within:
            held = tailored.label in within or fixed.label in within
            other = fixed if method is tailored else tailored
            if not held:
                return f"Neither tailoring nor fixed removal comes within {TOLERANCE} points."
            return (
                f"No {family} is within {TOLERANCE} points (the most accurate is {method.label} "
                f"with {_percent(method.spread(accuracy_val))}); {other.label} is: {_cost(other)}."
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


def _percent(spread: Spread | None) -> str:
    if spread is None:
        return "an unknown share"
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.2f}"
    return f"{spread.mean:.2f}{deviation} %"


def _cost(method: Method) -> str:
    """FLOPs and parameters, with their ratios to the teacher's."""
    return (
        f"{_millions(_amount(method, flops))} FLOPs ({times(_amount(method, flops_ratio))} the "
        f"teacher's) and {_millions(_amount(method, params))} parameters "
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
