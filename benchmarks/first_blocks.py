"""Fixed removal of the top as the rival: as many first blocks as a budget allows, a fresh head."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from torch import nn

import nettailor as nt
from nettailor.core.cost import chain_costs
from nettailor.fitting import seeded
from nettailor.prune.eliminate import eliminate


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
    makes: Callable[[], nn.Module], train: Callable[..., Any], rates: tuple[float, ...]
) -> nn.Module:
    """The network that is best on validation of one trained at each learning rate."""
    trained = [(train(one := makes(), lr=rate).scores.accuracy, one) for rate in rates]
    return max(trained, key=lambda pair: pair[0])[1]
