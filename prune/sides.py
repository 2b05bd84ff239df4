"""One student at several resolutions: a side is drawn for each step, and each has its own sizes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from random import Random

from accelerate import Accelerator
from torch import Tensor

from nettailor.prune.shrink import Shrinking
from nettailor.prune.statistics import reestimate
from nettailor.student.network import Student

_BATCHES = 5  # that running statistics of a size are averaged over; it is trained on if it is taken


def drawn(sides: Sequence[int | None], step: int) -> int | None:
    """The side of a step's images in pixels, None for their own; whoever goes on draws the same."""
    return Random(f"side {step}").choice(sides)


def cuts(
    network: Shrinking,
    sides: Sequence[int | None],
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    accelerator: Accelerator,
) -> Iterator[Student]:
    """What is left, at each side as a network of its own.

    Of several sides, running statistics belong to none: they are averaged anew for each.

    Args:
        network: that shrinks; its side is put back.
        sides: in pixels, None for the images' own.
        batches: gives training images (B, 3, S, S) and labels (B,), from the first on.
        accelerator: says where.
    """
    before = network.student.side
    for network.student.side in sides:
        size = network.cut("passed")
        if len(sides) > 1:
            reestimate(size, islice(batches(), _BATCHES), accelerator)
        yield size
    network.student.side = before
