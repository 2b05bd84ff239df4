"""A race between cuts of one student: all are fine-tuned a little, the better ones go on."""

from collections.abc import Callable, Sequence

from nettailor.candidate import Candidate
from nettailor.halving import rungs

_FIRST = 5  # part of the epochs after which the first of them drop out


def race(
    contenders: Sequence[str], train: Callable[[str, int], Candidate], epochs: int
) -> list[Candidate]:
    """Successive halving (Jamieson and Talwalkar, 2016) by accuracy on validation.

    After a fifth of the epochs, two fifths and so on, the better half goes on, until one is left.

    Args:
        contenders: names; of equals the first goes on.
        train: fine-tunes one until so many of the epochs are over, from where it stands.
        epochs: of the whole fine-tuning.

    Returns:
        All of them, the winner first, which is fine-tuned to its end.
    """
    left = list(contenders)
    found: dict[str, Candidate] = {}
    for rung in rungs(max(1, epochs // _FIRST), epochs):
        until = rung if len(left) > 1 else epochs
        found |= {name: train(name, until) for name in left}
        standings = {name: found[name].standing(until) for name in left}
        left.sort(key=lambda name: standings[name], reverse=True)
        if until == epochs:
            break
        left = left[: max(1, len(left) // 2)]
    winner, *_ = left
    return [found[winner], *(one for name, one in found.items() if name != winner)]
