"""How many channels of each family to keep under a budget: a multiple-choice knapsack, in plain
numbers.

Each family offers options, and exactly one of each is taken: maximise Σ V_f(o_f) subject to
Σ C_f(o_f) ≤ budget. Costs are whole numbers.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Options(NamedTuple):
    """What one family offers: values and costs, shape (options,) each; neither falls.

    The first option is the least that has to be kept, and costs nothing.
    """

    values: Floats
    costs: Ints


# the option of each family that a budget of 0 or more affords
Solution = Callable[[int], list[int]]


def exact(families: Sequence[Options]) -> Solution:
    """Dynamic programming: the best choice for every budget at once.

    best_f(c) = max over the options of f of best_{f-1}(c - C) + V.
    """
    most = sum(int(costs[-1]) for _, costs in families)
    best = np.zeros(most + 1)
    taken: list[Ints] = []
    for values, costs in families:
        reached = np.full(len(best), -np.inf)
        option = np.zeros(len(best), dtype=np.int64)
        for position, (value, cost) in enumerate(zip(values, costs, strict=True)):
            candidate = best[: len(best) - cost] + value
            better = candidate > reached[cost:]
            reached[cost:][better] = candidate[better]
            option[cost:][better] = position
        best = reached
        taken.append(option)

    def solution(budget: int) -> list[int]:
        left = min(budget, most)
        chosen = []
        for (_, costs), option in zip(reversed(families), reversed(taken), strict=True):
            chosen.append(int(option[left]))
            left -= int(costs[chosen[-1]])
        return chosen[::-1]

    return solution
