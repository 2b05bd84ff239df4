"""How deep to cut: which depths to try, and which one to keep."""

import math

_DEPTHS = 6
_GAINED_LATER = 5.0  # points, in the second half of a fine-tuning


def default_depths(blocks: int) -> tuple[int, ...]:
    """About six numbers of blocks to remove, from three quarters of them down to an eighth.

    >>> default_depths(16)
    (12, 10, 8, 6, 4, 2)
    """
    shares = (0.75 * (_DEPTHS - step) / _DEPTHS for step in range(_DEPTHS))
    return tuple(dict.fromkeys(max(1, math.floor(share * blocks + 0.5)) for share in shares))


def half_of(epochs: int) -> int:
    """Of a fine-tuning, after which candidates are compared: half of its epochs, or one more."""
    return -(-epochs // 2)


def ruled_out(
    epoch: int,
    epochs: int,
    accuracy: float,
    target: float,
    error: float = 0.0,
    unsure: float = -math.inf,
) -> bool:
    """Whether a candidate is given up before its fine-tuning ends.

    Args:
        epoch: finished epochs of its fine-tuning, of `epochs`.
        accuracy: on validation by then, per cent.
        target: what it has to reach, per cent.
        error: points that `accuracy` is lower for what it may owe to chance.
        unsure: what it has to be better than after half of the epochs, per cent.

    Returns:
        True once half of the epochs are over and it is more than 5 points short, chance apart. The
        gains that later epochs bring are smaller: at most 4.4 points were seen, by hand, in twelve
        fine-tunings on photographs.
    """
    half = half_of(epochs)
    short = accuracy + error < target - _GAINED_LATER
    return (epoch >= half and short) or (epoch == half and accuracy <= unsure)
