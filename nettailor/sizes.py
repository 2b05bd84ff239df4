"""Which of the sizes that a student passed as it shrank are fine-tuned, and which one is kept."""

import math
from collections.abc import Sequence
from itertools import accumulate, count, takewhile

_SAVES = 0.98  # of the backbone's cost: from there on nothing is saved
_WORTH = 0.95  # of the least loss of all leaner sizes: what loses more is not worth its cost


def saving(costs: Sequence[float]) -> list[int]:
    """Positions of the sizes that save 2 % of the backbone's cost; of all, where none does."""
    return [i for i, cost in enumerate(costs) if cost <= _SAVES] or list(range(len(costs)))


def in_order(costs: Sequence[float], losses: Sequence[float], gamma: float) -> list[int]:
    """Positions of the sizes that a student passed, in the order in which they are fine-tuned.

    The first has the least loss + γ cost, as the paper's loss weighs them. Fine-tuning is taken to
    bring a loss half of the way back, in its logarithm, to the least of all. Then come dearer ones
    whose loss is 5 % below that of all leaner ones or more, by steps that double, and the dearest
    last: where validation is too coarse to tell, not each is trained to its end. What saves less
    than 2 % is left out where others are left: the teacher is such a network already.

    Args:
        costs: shares of the backbone's.
        losses: on validation, in nats.
        gamma: γ, nats for all of the backbone's cost.
    """
    leaner = saving(costs)
    least = min(losses)
    first = min(leaner, key=lambda i: math.sqrt(losses[i] * least) + gamma * costs[i])
    dearer = sorted((i for i in leaner if costs[i] > costs[first]), key=costs.__getitem__)
    lowest = accumulate((losses[i] for i in (first, *dearer)), min)
    better = [i for i, least in zip(dearer, lowest, strict=False) if losses[i] <= _WORTH * least]
    better = list(dict.fromkeys([*better, *dearer[-1:]]))
    steps = takewhile(lambda step: step < len(better) - 1, (2**k - 1 for k in count()))
    return [first, *(better[step] for step in steps), *better[-1:]]
