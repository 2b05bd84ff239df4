"""The resolution as a lever: lower ones cost less everywhere, the stem included."""

from collections.abc import Collection
from typing import Literal

from nettailor.core.backbone import Backbone
from nettailor.core.cost import chain_costs
from nettailor.core.errors import UserError
from nettailor.core.sections import Lever

_LOWER = (3 / 4, 1 / 2)  # of the side of the images
_STEP = 8  # sides are its multiples


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


def stage_name(side: int | None) -> str:
    """Of the student that shrinks at a side, such as `student-48px`."""
    return "student" if side is None else f"student-{side}px"


def _takes(chain: Backbone, side: int) -> bool:
    try:
        chain_costs(chain, side)
    except UserError:
        return False
    return True
