"""Which method is best at each budget of multiply-adds, chosen on validation."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from nettailor.report.measures import accuracy_val, flops
from nettailor.report.methods import Method

BUDGETS = (1.0, 0.6, 0.4, 0.25, 0.15)  # of the teacher's FLOPs
_ROUNDING = 1e-9


class Best(NamedTuple):
    """The best method within a budget, None where nothing fits it.

    budget: share of the teacher's FLOPs. share: what the method takes of them.
    """

    budget: float
    method: Method | None
    share: float | None


def best_at_budgets(methods: Sequence[Method]) -> list[Best]:
    """The method of the highest mean validation accuracy among those whose mean FLOPs fit, for each
    of `BUDGETS`; of equals the leanest.

    Budgets are shares of one teacher's FLOPs for all methods: where runs have teachers of several
    backbones, of the most accurate one's on validation.
    """
    teachers = [run.teacher for method in methods for run in method.runs]
    whole = max(teachers, key=lambda teacher: teacher.accuracy.val).flops
    shares = {method: fmean(map(flops, method.runs)) / whole for method in methods}
    # of figures that are rounded themselves: equals must not differ by that
    accuracy = {method: round(fmean(map(accuracy_val, method.runs)), 3) for method in methods}
    found = []
    for budget in BUDGETS:
        fitting = [method for method in methods if shares[method] <= budget + _ROUNDING]
        best = max(
            fitting,
            key=lambda method: (accuracy[method], -shares[method]),
            default=None,
        )
        found.append(Best(budget, best, None if best is None else shares[best]))
    return found
