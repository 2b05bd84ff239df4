"""Successive halving: who trains on, when every network has trained for a while.

Optuna's pruners stop single trials of studies with one objective only (with several,
`trial.should_prune` raises). Here all networks train to a rung, then the better half goes on to the
next (Jamieson and Talwalkar, 2016). Better is within bands of cost: with three objectives most
networks are on the front, above all the smallest, which recognise nothing; and by macro F1 alone
the largest would win.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Standing(NamedTuple):
    """A network at a rung.

    number: of its trial. macro_f1: in %, 0 where training broke down. parameters: how many.
    latency: of a forward pass, in any unit.
    """

    number: int
    macro_f1: float
    parameters: float
    latency: float

    @property
    def cost(self) -> float:
        """Parameters × latency: what is cheap in both comes first."""
        return self.parameters * self.latency


def rungs(first: int, last: int) -> list[int]:
    """Numbers of epochs at which networks are compared: `first`, doubled below `last`, `last`."""
    found = []
    while first < last:
        found.append(first)
        first *= 2
    return [*found, last]


def better_half(standings: Sequence[Standing]) -> list[int]:
    """Numbers of the trials that go on, rising.

    Of two neighbours in cost, the one of higher macro F1, the cheaper one where they are alike; the
    last band has three where the number is odd. Networks whose training broke down never go on.
    """
    sound = [standing for standing in standings if standing.macro_f1 > 0]
    ordered = sorted(sound, key=lambda standing: (standing.cost, standing.number))
    count = max(1, len(ordered) // 2)
    bands = [ordered[2 * band : 2 * band + 2] for band in range(count)]
    bands[-1] += ordered[2 * count :]
    # max takes the first of equals
    best = [max(band, key=lambda standing: standing.macro_f1) for band in bands if band]
    return sorted(standing.number for standing in best)
