"""A budget of milliseconds, kept by the clock.

What a network is chosen by, its paths or layers timed alone, adds up to some per cent more or less
than the whole network takes.
"""

from collections.abc import Callable
from typing import TypeVar

from nettailor.prune.shrink import WITHIN

_CHOICES = 5

Found = TypeVar("Found")


def keep_by_the_clock(
    most: float, choose: Callable[[float], Found], share_of_time: Callable[[Found], float]
) -> tuple[Found, float]:
    """The choice that keeps a latency budget when what was chosen is timed itself.

    The budget that choices are made by is corrected up to four times by what the last choice
    really took. Of those that keep the budget it is the one that takes most of it. Where none
    does, the leanest of all is timed, too.

    Args:
        most: the budget as a share of the whole network's time.
        choose: the best choice within a share of the time, as its parts add up; the leanest there
            is where none is within it.
        share_of_time: what a choice takes over the whole network, timed in turn.

    Returns:
        The choice and its share of the time: over `most` only if every choice that was tried is,
        and then it is the quickest.
    """
    tried: list[tuple[float, Found]] = []

    def time(aim: float) -> float:
        found = choose(aim)
        tried.append((share_of_time(found), found))
        return tried[-1][0]

    aim = most
    for _ in range(_CHOICES):
        share = time(aim)
        if (1 - WITHIN) * most <= share <= most:
            break
        aim *= (1 - WITHIN / 2) * most / share
    if all(share > most for share, _ in tried):
        time(0.0)
    kept = [one for one in tried if one[0] <= most]
    share, found = max(kept, key=lambda one: one[0]) if kept else min(tried, key=lambda one: one[0])
    return found, share
