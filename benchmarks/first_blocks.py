"""Fixed removal of the top as the rival: as many first blocks as a budget allows, a fresh head."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from torch import nn

import nettailor as nt
from nettailor.core.cost import chain_costs
from nettailor.core.resize import at_side
from nettailor.fitting import seeded
from nettailor.prune.eliminate import eliminate
from nettailor.prune.plan import PrunePlan
from nettailor.student.wiring import Path, Wiring

Network = TypeVar("Network", bound=nn.Module)


def shorter(start: nt.Backbone, blocks: int, seed: int) -> nt.Backbone:
    """The first blocks under a fresh head."""
    with seeded(seed, "shorter"):
        return eliminate(deepcopy(start), blocks, replacement=False)


def longest(
    start: nt.Backbone, most: float, size: int, seed: int
) -> tuple[int, tuple[float, float]]:
    """How many first blocks cost at most a share of the FLOPs; their FLOPs and parameters."""
    whole = chain_costs(start, size).total
    for blocks in range(len(start.blocks) - 1, 0, -1):
        cost = chain_costs(shorter(start, blocks, seed), size).total
        if cost.flops <= most * whole.flops:
            return blocks, (cost.flops / whole.flops, cost.parameters / whole.parameters)
    raise ValueError(f"a head on the first block costs more than {most:g} of the network")


def best(
    makes: Callable[[], Network], train: Callable[..., Any], rates: tuple[float, ...]
) -> Network:
    """The network that is best on validation of one trained at each learning rate."""
    trained = [(train(one := makes(), lr=rate).scores.accuracy, one) for rate in rates]
    return max(trained, key=lambda pair: pair[0])[1]


def first_blocks(
    wiring: Wiring, cost: Callable[[Sequence[Path]], float], most: float, side: int | None = None
) -> PrunePlan | None:
    """Fixed removal as a cut of a student: as many first blocks as a cost allows, then an exit.

    Identities lead from the last block to the next exit.

    Args:
        wiring: of the student, with a block or its identity into each node.
        cost: of a route.
        most: that it may cost.
        side: of the images in pixels, None for their own.

    Returns a plan such as `first-7`, or `first-7-48px`; None where no exit can be reached within
    the cost.
    """
    blocks, exits = wiring.of_kind("block"), sorted(wiring.of_kind("exit"))
    identities = {path.target: path for path in wiring.of_kind("identity")}
    for count in range(len(blocks), 0, -1):
        for end in [one for one in exits if one.source >= count][:1]:
            nodes = range(count + 1, end.source + 1)
            if all(node in identities for node in nodes):
                route = (*blocks[:count], *(identities[node] for node in nodes), end)
                if cost(route) <= most:
                    name = at_side(f"first-{count}", side)
                    return PrunePlan.keeping(name, wiring, route, side)
    return None
