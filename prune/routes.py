"""The best route from the stem to the logits under a budget: an exact knapsack over paths."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nettailor.student.wiring import Path, Wiring

_STEPS = 200_000  # of a budget of 1; a path's cost is rounded to one of them
ROUNDING = 1e-9  # what the last digits of sums of costs may differ by


class Route(NamedTuple):
    """One path into each node that is passed.

    value: the sum of its paths' values. cost: the sum of their costs and what is always there.
    """

    paths: tuple[Path, ...]
    value: float
    cost: float

    @property
    def name(self) -> str:
        """Such as `route-0.250`, by its cost."""
        return f"route-{self.cost:#.3g}"


class Routes:
    """Every route of a student, by value and cost.

    A route's value and cost are sums over its paths, so the best one within each cost follows from
    the best ones into the nodes before: best_j(c) = max over paths i→j of best_i(c - C_ij) + V_ij,
    on a grid of 200 000 steps of cost. Nothing is lost but what the grid rounds.
    """

    def __init__(
        self, wiring: Wiring, value: Sequence[float], cost: Sequence[float], *, fixed: float
    ) -> None:
        """Solve for all costs at once.

        Args:
            wiring: a student's paths.
            value: what it is worth that a path is kept, by path; finite.
            cost: of each path, as a share of the budget's unit, each in [0, 1].
            fixed: cost of what every route needs, the stem.
        """
        self._wiring, self._value, self._cost, self._fixed = wiring, value, cost, fixed
        self._steps = [round(share * _STEPS) for share in cost]
        # no route costs more than its dearest path into every node
        top = round(fixed * _STEPS) + sum(
            max((self._steps[position] for position in group), default=0)
            for group in wiring.incoming
        )
        nodes = wiring.depth + 1
        self._best: list[NDArray[np.float64]] = [np.full(top + 1, -np.inf) for _ in range(nodes)]
        self._last = [np.full(top + 1, -1) for _ in range(nodes)]
        self._best[0][round(fixed * _STEPS)] = 0.0
        for node in range(1, nodes):
            for position in wiring.incoming[node]:
                steps = self._steps[position]
                before = self._best[wiring.paths[position].source][: top + 1 - steps]
                reached = np.full(top + 1, -np.inf)
                reached[steps:] = before + value[position]
                better = reached > self._best[node]
                self._best[node][better] = reached[better]
                self._last[node][better] = position

    def best(self, most: float) -> Route | None:
        """The most valuable route whose exact cost is at most so much; None when there is none.

        Of the routes that the grid takes for equally dear the most valuable is known only.
        """
        high = math.floor((min(most, len(self._best[-1]) / _STEPS) + self._slack) * _STEPS)
        within = self._best[-1][: max(high + 1, 0)]
        for step in np.argsort(-within, kind="stable"):
            if not np.isfinite(within[step]):
                break
            route = self._trace(int(step))
            if route.cost <= most + ROUNDING:
                return route
        return None

    def reach(self) -> tuple[float, float]:
        """The costs of the leanest and of the dearest route."""
        there = np.flatnonzero(np.isfinite(self._best[-1]))
        return self._trace(int(there[0])).cost, self._trace(int(there[-1])).cost

    @property
    def _slack(self) -> float:
        """By how much the grid can be off from a route's exact cost: half a step a path."""
        return (self._wiring.depth + 1) / (2 * _STEPS)

    def _trace(self, step: int) -> Route:
        """The route that ends at a step of the grid, with its exact cost."""
        positions: list[int] = []
        node, left = self._wiring.depth, step
        while node:
            position = int(self._last[node][left])
            positions.append(position)
            left -= self._steps[position]
            node = self._wiring.paths[position].source
        positions.reverse()
        return Route(
            tuple(self._wiring.paths[position] for position in positions),
            sum(self._value[position] for position in positions),
            self._fixed + sum(self._cost[position] for position in positions),
        )


def most_valuable(wiring: Wiring, value: Sequence[float]) -> Route:
    """The best route whatever it costs; ValueError where no path leads from stem to logits."""
    route = Routes(wiring, value, [0.0] * len(value), fixed=0.0).best(0.0)
    if route is None:
        raise ValueError("no path leads from the stem to the logits")
    return route
