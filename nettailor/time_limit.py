"""A time that a whole procedure is given, and the epochs that fit into it."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from nettailor.core.errors import UserError

_SECONDS = {"s": 1, "m": 60, "h": 3600}


class TimeLimit(NamedTuple):
    """As a user gives it."""

    text: str
    seconds: float


def read_time(text: str) -> TimeLimit:
    """`90s`, `30m` or `1.5h`, as --time has it; UserError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text, re.ASCII)
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"--time {text}: expected a number and its unit, such as 90s, 30m or 1.5h")
    return TimeLimit(text, seconds)


def fitting(
    room: float, wanted: Mapping[str, int], takes: Mapping[str, float]
) -> dict[str, int] | None:
    """As many epochs of each stage as there is room for: all of them, or the same part of each.

    An epoch of each is the least; None where that is too much.

    Args:
        room: in epochs of the whole network.
        wanted: of each stage, where time is no matter.
        takes: what an epoch of each stage takes, in those of the whole network.
    """
    for percent in range(100, -1, -1):
        epochs = {stage: max(1, number * percent // 100) for stage, number in wanted.items()}
        if sum(takes[stage] * number for stage, number in epochs.items()) <= room:
            return epochs
    return None
