"""The resolution as a lever: lower ones cost less everywhere, the stem included."""

from collections.abc import Callable, Collection, Sequence
from typing import Literal

from nettailor.core.backbone import Backbone
from nettailor.core.cost import chain_costs
from nettailor.core.errors import UserError
from nettailor.core.sections import Lever
from nettailor.prune.shrink import Shrinking
from nettailor.student.costs import PathShares
from nettailor.student.network import Student

_LOWER = (3 / 4, 1 / 2)  # of the side of the images
_STEP = 8  # sides are its multiples
_ROOM = 2  # budgets that the whole network costs at a lower side


def sides(
    chain: Backbone,
    image_size: int,
    unit: Literal["flops", "params", "latency"],
    levers: Collection[Lever] | None,
) -> tuple[int | None, ...]:
    """At which sides in pixels students shrink, None for that of the images, the first.

    The others are about three quarters and half of it; none where parameters count, which they do
    not save, and none that the backbone does not take.

    levers: of resolved settings.
    """
    if levers is None or "resolution" not in levers or unit == "params":
        return (None,)
    found = dict.fromkeys(_STEP * round(share * image_size / _STEP) for share in _LOWER)
    return (None, *(side for side in found if 0 < side < image_size and _takes(chain, side)))


def tried(
    student: Student,
    at: Sequence[int | None],
    cost: Callable[[Student], PathShares],
    most: float | None,
) -> dict[int | None, PathShares]:
    """What paths cost, by each side at which it is worth while to shrink to a budget.

    No network may keep it at the images' own side, and a lower one is too low where resolution
    alone does half of what is asked for: whole, the network costs less than two budgets there.

    Args:
        student: not cut; its side is put back.
        at: sides, as of `sides`.
        cost: of its paths, at its side.
        most: the budget; None: there is none, and all are tried.
    """
    found: dict[int | None, PathShares] = {}
    whole = [*student.wiring.of_kind("block"), *student.wiring.of_kind("head")]
    for student.side in at:
        shares = cost(student)
        if most is not None:
            keeps = Shrinking(student, shares, most).leanest <= most
            if not keeps or (found and shares.of(student.wiring, whole) < _ROOM * most):
                continue
        found[student.side] = shares
    student.side = None
    return found


def _takes(chain: Backbone, side: int) -> bool:
    try:
        chain_costs(chain, side)
    except UserError:
        return False
    return True
