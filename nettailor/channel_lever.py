"""The channels as a lever: to a small budget blocks go most of the way, channels the rest."""

from collections.abc import Collection

from torch import nn

from nettailor.core.errors import UserError
from nettailor.core.sections import CostUnit, Lever
from nettailor.prune.fewer_channels import fewest_channels
from nettailor.student.costs import PathShares
from nettailor.student.network import Student

_BELOW = 0.3  # of all blocks at the same resolution: what costs less has fewer channels as well
_WIDER = 1.6  # its cost with all channels, over what is left of it
_ROOM = 0.5  # of the whole network's cost, that its fewest channels cost at most


def refusal(
    network: nn.Module,
    image_size: int,
    unit: CostUnit,
    levers: Collection[Lever],
) -> str | None:
    """Why no channels go, in words; empty where nobody asks for it, None where they go.

    Args:
        network: the whole backbone.
        image_size: side of its images in pixels.
        unit: of the cost; a time is asked for where channels are about to go (`Narrowing.down_to`).
        levers: that are asked for.
    """
    if "channels" not in levers:
        return ""
    try:
        least = fewest_channels(network, image_size, "flops" if unit == "latency" else unit)
    except UserError as error:
        return str(error)
    return too_few(least) if "blocks" in levers else None


def too_few(least: float) -> str | None:
    """Why no channels go where the fewest cost such a share of the whole network; None: they do."""
    return None if least <= _ROOM else f"at least {least:.2f} of the cost is left without any more"


def before_channels(most: float, whole: float) -> float:
    """The cost down to which blocks go where channels take the rest of the way to `most`.

    whole: what all blocks cost at the resolution of the images.
    """
    return most * _WIDER if most < _BELOW * whole else most


def whole_cost(student: Student, shares: PathShares) -> float:
    """What all blocks cost at the side of a student's images."""
    wiring = student.wiring
    return shares.of(wiring, [*wiring.of_kind("block"), *wiring.of_kind("head")])
