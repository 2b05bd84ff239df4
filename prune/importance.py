"""What each path of a trained student is worth: by its weight, or measured."""

import math
from collections.abc import Callable, Sequence

import torch

from nettailor.core.console import Tell, untold
from nettailor.student.network import Student

_ALONE = 40.0  # a logit above all others by so much leaves them e⁻⁴⁰ of the weight


def by_path_weights(alpha: Sequence[float]) -> list[float]:
    """log α of each path: the sum along a route is the log of the odds of drawing it."""
    return [math.log(max(weight, 1e-12)) for weight in alpha]


@torch.no_grad()
def measured(student: Student, loss: Callable[[], float], tell: Tell = untold) -> list[float]:
    """By how much the loss falls when a node takes one path alone, by path; mostly below 0.

    Each path is tried with the rest of the student as it is: what a route loses in all is taken to
    be the sum of what its paths lose. A node's only path is worth 0.

    Args:
        student: its path weights are put back afterwards.
        loss: of the student as it stands, in nats, on the same images each time.
        tell: called after each path with how many were tried, and how many there are to try.
    """
    logits = student.path_weights.logits
    before = logits.clone()
    as_it_is = loss()
    values = [0.0] * len(student.wiring.paths)
    groups = [group for group in student.wiring.incoming if len(group) > 1]
    tried = 0
    for group in groups:
        for position in group:
            logits[position] = before[list(group)].max() + _ALONE
            values[position] = as_it_is - loss()
            logits.copy_(before)
            tried += 1
            tell(tried, sum(map(len, groups)))
    return values
