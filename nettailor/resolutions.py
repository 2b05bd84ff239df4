"""The resolution as a lever: lower ones cost less everywhere, the stem included."""

from collections.abc import Callable, Collection, Sequence

from nettailor.channel_lever import whole_cost
from nettailor.core.backbone import Backbone
from nettailor.core.cost import chain_costs
from nettailor.core.errors import UserError
from nettailor.core.sections import CostUnit, Lever
from nettailor.prune.routes import ROUNDING
from nettailor.prune.shrink import leanest_route
from nettailor.student.costs import PathShares
from nettailor.student.network import Student

_LOWER = (1 / 2, 3 / 4)  # of the side of the images
_STEP = 8  # sides are its multiples
_ROOM = 2  # budgets that the whole network costs at a lower side


def may_lower(levers: Collection[Lever], unit: CostUnit) -> bool:
    """Whether lower resolutions are tried: not where parameters count, which they do not save."""
    return "resolution" in levers and unit != "params"


def sides(
    chain: Backbone,
    image_size: int,
    unit: CostUnit,
    levers: Collection[Lever],
) -> tuple[int | None, ...]:
    """At which sides in pixels students shrink, the lowest first, None for that of the images.

    The others are about half and three quarters of it, where they are tried and the backbone takes
    them.
    """
    if not may_lower(levers, unit):
        return (None,)
    found = dict.fromkeys(_STEP * round(share * image_size / _STEP) for share in _LOWER)
    return (*(side for side in found if 0 < side < image_size and _takes(chain, side)), None)


def tried(
    student: Student,
    at: Sequence[int | None],
    cost: Callable[[Student], PathShares],
    most: float | None,
    leanest: Callable[[Student, PathShares], float] = leanest_route,
) -> dict[int | None, PathShares]:
    """What paths cost, by each side at which it is worth while to shrink to a budget.

    A lower one is too low where resolution alone does half of what is asked for: whole, the network
    costs less than two budgets there. Where no other is left, it is the highest that keeps it.

    Args:
        student: not cut; its side is put back.
        at: sides, as of `sides`.
        cost: of its paths, at its side.
        most: the budget; None: there is none, and all may be tried.
        leanest: the least that a network may cost, of its paths' costs at its side.
    """
    found, keep = dict[int | None, PathShares](), dict[int | None, PathShares]()
    for student.side in at:
        found[student.side] = cost(student)
        if most is not None and leanest(student, found[student.side]) <= most + ROUNDING:
            keep[student.side] = found[student.side]
    student.side = None
    if most is None:
        return found
    roomy = {
        side: shares
        for side, shares in keep.items()
        if side is None or whole_cost(student, shares) >= _ROOM * most
    }
    return roomy or dict([*keep.items()][-1:])


def _takes(chain: Backbone, side: int) -> bool:
    try:
        chain_costs(chain, side)
    except UserError:
        return False
    return True
