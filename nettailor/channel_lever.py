"""The channels as a lever: small networks are larger ones with fewer channels."""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from torch import nn

from nettailor.core.errors import UserError
from nettailor.core.sections import Lever
from nettailor.prune.fewer_channels import fewest_channels
from nettailor.prune.plan import PrunePlan
from nettailor.student.costs import PathShares
from nettailor.student.network import Student

_BELOW = 0.3  # of all blocks at the same resolution: what costs less has fewer channels as well
_WIDER = 1.6  # its cost with all channels, over what is left of it
_ROOM = 0.5  # of the whole network's cost, that its fewest channels cost at most


class Size(NamedTuple):
    """A size to fine-tune. cost: a share of the backbone's. loss: on validation, in nats."""

    plan: PrunePlan
    cost: float
    loss: float


def refusal(
    network: nn.Module,
    image_size: int,
    unit: Literal["flops", "params", "latency"],
    levers: Collection[Lever],
) -> str | None:
    """Why no channels go, in words; empty where nobody asks for it, None where they go.

    Args:
        network: the whole backbone.
        image_size: side of its images in pixels.
        unit: of the cost. A time falls less than layers that are timed alone say.
        levers: that are asked for.
    """
    if "channels" not in levers or unit == "latency":
        return ""
    try:
        least = fewest_channels(network, image_size, unit)
    except UserError as error:
        return str(error)
    return None if least <= _ROOM else f"at least {least:.2f} of the cost is left without any more"


def before_channels(most: float, whole: float) -> float:
    """The cost down to which blocks go where channels take the rest of the way to `most`.

    whole: what all blocks cost at the resolution of the images.
    """
    return most * _WIDER if most < _BELOW * whole else most


def with_fewer(sizes: Sequence[Size], whole: float) -> list[Size]:
    """The sizes that cost enough as they are, and all that cost too little with fewer channels.

    What a size with fewer channels comes to is near to what it does with all of them: its loss is
    taken to be that.
    """
    narrowed = [
        Size(size.plan.narrowed(size.cost / _WIDER), size.cost / _WIDER, size.loss)
        for size in sizes
        if size.cost / _WIDER < _BELOW * whole
    ]
    return [*(size for size in sizes if size.cost >= _BELOW * whole), *narrowed]


def whole_cost(student: Student, shares: PathShares) -> float:
    """What all blocks cost at the side of a student's images."""
    wiring = student.wiring
    return shares.of(wiring, [*wiring.of_kind("block"), *wiring.of_kind("head")])
