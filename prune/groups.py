"""What trains of a student that shrinks, and how fast."""

from typing import Any

from nettailor.core.schedule import Schedule, parameter_groups
from nettailor.prune.shrink import Shrinking

_EXITS = 3  # times the learning rate of the others, at which exits train


def shrinking_groups(network: Shrinking, schedule: Schedule) -> list[dict[str, Any]]:
    """As `parameter_groups`, but exits train at three times the rate.

    They are fresh, and what they read is not.
    """
    keys = tuple(f"student.heads.{path.key}." for path in network.wiring.of_kind("exit"))
    named = list(network.named_parameters())
    exits = [one for one in named if one[0].startswith(keys)]
    others = [one for one in named if not one[0].startswith(keys)]
    quick = parameter_groups(exits, schedule)
    for group in quick:
        group["lr"] = _EXITS * schedule.lr
    return [*parameter_groups(others, schedule), *quick]
