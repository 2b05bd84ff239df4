"""Which of the sizes that a student passed as it shrank are fine-tuned, and which one is kept."""

import math
from collections.abc import Mapping, Sequence
from itertools import count, takewhile

from nettailor.candidate import Candidate
from nettailor.candidates import Bench, keep_better, keep_first
from nettailor.prune.eliminate import first_blocks_beside
from nettailor.prune.plan import PrunePlan
from nettailor.student.costs import PathShares

_SAVES = 0.98  # of the backbone's cost: from there on nothing is saved


def keep_for_budget(
    bench: Bench, lasts: Sequence[PrunePlan], at: Mapping[int | None, PathShares], most: float
) -> list[Candidate]:
    """Fine-tune the sizes that keep a budget, and as many first blocks, see `keep_better`.

    Fixed removal is at times the better cut.

    Args:
        bench: fine-tunes.
        lasts: the last size at each resolution.
        at: what paths cost, by the side of the images, see `resolutions.tried`.
        most: the budget.
    """
    rivals = first_blocks_beside(lasts, [most] * len(lasts), at)
    return keep_better(bench, [*lasts, *rivals])


def keep_without_budget(
    bench: Bench,
    sizes: Sequence[PrunePlan],
    costs: Sequence[float],
    losses: Sequence[float],
    at: Mapping[int | None, PathShares],
    *,
    gamma: float,
    target: float,
) -> list[Candidate]:
    """Fine-tune the sizes of one resolution `in_order` until one reaches a target: `keep_first`.

    The rivals are as many first blocks as cost no more than each.

    Args:
        bench: fine-tunes.
        sizes: that students passed. costs: of each, a share of the backbone's. losses: of each on
            validation, in nats.
        at: what paths cost, by the side of the images.
        gamma: the price of cost, in nats for all of the backbone's.
        target: in %.
    """
    order = in_order(costs, losses, gamma)
    plans = [sizes[i] for i in order]
    rivals = first_blocks_beside(plans, [costs[i] for i in order], at)
    return keep_first(bench, plans, target, rivals)


def in_order(costs: Sequence[float], losses: Sequence[float], gamma: float) -> list[int]:
    """Positions of the sizes that a student passed, in the order in which they are fine-tuned.

    The first has the least loss + γ cost, as the paper's loss weighs them. Fine-tuning is taken to
    bring a loss half of the way back, in its logarithm, to the least of all. Then come dearer ones,
    by steps that double, and the dearest last: where validation is too coarse to tell, not each is
    trained to its end. What saves less than 2 % is left out where others are left: the teacher is
    such a network already.

    Args:
        costs: shares of the backbone's.
        losses: on validation, in nats.
        gamma: γ, nats for all of the backbone's cost.
    """
    leaner = [i for i, cost in enumerate(costs) if cost <= _SAVES] or range(len(costs))
    least = min(losses)
    first = min(leaner, key=lambda i: math.sqrt(losses[i] * least) + gamma * costs[i])
    dearer = sorted((i for i in leaner if costs[i] > costs[first]), key=costs.__getitem__)
    steps = takewhile(lambda step: step < len(dearer) - 1, (2**k - 1 for k in count()))
    return [first, *(dearer[step] for step in steps), *dearer[-1:]]
