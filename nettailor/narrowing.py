"""Which channels of a network a budget leaves: decided once, and written down in the run."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from nettailor.core.architecture import Closed, read_checked
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.files import write_json
from nettailor.core.latency import measure_latency
from nettailor.session import Session
from prune.channels import FIXED, Channels, trace_channels
from prune.knapsack import SOLVERS
from prune.layer_times import measure_times
from prune.narrow import narrow, positions
from prune.taylor import taylor_values
from prune.widths import (
    Costs,
    Ranges,
    allowed,
    best_widths,
    count_flops,
    count_parameters,
)

CHOICE_FILE = "channels.json"
_VALUE_BATCHES = 20
_WITHIN = 0.02  # a latency budget is met when the cost is no more than this part of it below
_CORRECTIONS = 5  # of a latency budget, at most

Kept = NDArray[np.bool_]


class Choice(Closed):
    """Which channels stay: the content of `channels.json`.

    whole: SHA-256 of the weights of the network that they were chosen from. kept: by tensor,
    where the channels that stay are among its first dimension's. value: what they are worth over
    the worth of all. cost: in the budget's unit, over the whole network's.
    """

    whole: str
    kept: dict[str, tuple[int, ...]]
    value: float
    cost: float


class Budget(NamedTuple):
    """A budget made ready: what networks cost, what may be kept, the most that it may cost."""

    channels: Channels
    costs: Costs
    ranges: Ranges
    most: float


def ready_budget(session: Session, network: nn.Module) -> Budget:
    """Find the channels of a network, and what they cost.

    Args:
        network: on the device; its weights do not matter.

    Raises:
        UserError: its channels cannot be grouped, or no choice meets the budget.
    """
    config, settings = session.config, session.config.knapsack
    channels = trace_channels(network, config.image_size)
    ranges = allowed(channels.families, settings.round_to)
    cost, most = settings.budget
    unit = 1.0
    if cost == "flops":
        costs, name = count_flops(channels), " of the multiply-adds"
    elif cost == "params":
        costs, name = count_parameters(channels, network), " of the parameters"
    else:
        device, batch = session.accelerator.device, settings.batch
        costs, unit = measure_times(network, channels, config.image_size, device, batch=batch)
        name = " ms"
    least, whole = costs.of(np.stack([ranges.least, ranges.most])).tolist()
    if not least <= most / unit * whole < whole:
        lowest = f"{least / whole * unit * 1.005:.3g}"  # rounded up, so that it can be given
        raise UserError(
            f"no choice of channels costs {most:g}{name}: give a budget from {lowest} to below "
            f"{unit:.4g}{name}"
        )
    return Budget(channels, costs, ranges, most / unit * whole)


def choose(session: Session, network: nn.Module, budget: Budget, digest: str) -> Choice:
    """Weigh the channels of a trained network, and keep the best set within the budget.

    Args:
        network: on the device; its running statistics stay.
        budget: of this network.
        digest: SHA-256 of its weights.
    """
    settings = session.config.knapsack
    channels = budget.channels
    batches = islice(session.train_loader.epoch(0), _VALUE_BATCHES)
    values = taylor_values(network, channels, batches, session.accelerator)
    # the best of each family first
    ranked = [
        family.items[np.argsort(-values[family.items], kind="stable")]
        for family in channels.families
    ]
    worth = [values[items] for items in ranked]
    whole = float(budget.costs.of(budget.ranges.most[None])[0])

    def within(most: float) -> tuple[Kept, float]:
        counts = best_widths(worth, budget.costs, budget.ranges, most, SOLVERS[settings.solver])
        kept = np.zeros(channels.count, dtype=bool)
        for items, count in zip(ranked, counts, strict=True):
            kept[items[:count]] = True
        return kept, float(budget.costs.of(counts[None])[0]) / whole

    if settings.max_latency_ms is None:
        kept, cost = within(budget.most)
    else:
        kept, cost = _by_the_clock(session, network, budget, within)
    total = float(values.sum())
    return Choice(
        whole=digest,
        kept=_places(channels, kept),
        value=float(values[kept].sum()) / total if total else 1.0,
        cost=cost,
    )


def _by_the_clock(
    session: Session,
    network: nn.Module,
    budget: Budget,
    within: Callable[[float], tuple[Kept, float]],
) -> tuple[Kept, float]:
    """The choice that keeps a latency budget when the narrow network itself is timed.

    Layers alone add up to more or less than a network takes, so the budget that they are given is
    corrected by what the last network really took, beside the whole one.
    """
    size, device = session.config.image_size, session.accelerator.device
    batch = session.config.knapsack.batch
    least = float(budget.costs.of(budget.ranges.least[None])[0])
    tried: list[tuple[float, Kept]] = []
    aim = budget.most
    for _ in range(_CORRECTIONS):
        kept, _ = within(max(aim, least))
        narrowed = place(narrow(network, budget.channels, kept), device)
        networks = {"whole": network, "narrow": narrowed}
        times = measure_latency(networks, size, device, batches=(batch,), seconds=5.0)
        share = times["narrow"][str(batch)]["median"] / times["whole"][str(batch)]["median"]
        tried.append((share, kept))
        if (1 - _WITHIN) * budget.most <= share <= budget.most:
            break
        aim *= (1 - _WITHIN / 2) * budget.most / share
    share, kept = min(tried, key=lambda one: abs(one[0] / budget.most - 1 + _WITHIN / 2))
    return kept, share


def _places(channels: Channels, kept: Kept) -> dict[str, tuple[int, ...]]:
    """What stays, at the first place of each family."""
    names = list(channels.places)
    found = {}
    for family in channels.families:
        name, dim = names[min(family.places)]
        items = channels.places[name, dim]
        found[name] = tuple(positions(items, kept).tolist())
    return found


def kept_items(choice: Choice, channels: Channels, file: Path) -> Kept:
    """Which items a choice keeps; UserError, which names the file, for one of other channels."""
    kept = np.zeros(channels.count, dtype=bool)
    try:
        for name, places in choice.kept.items():
            items = channels.places[name, 0][list(places)]
            kept[items[items != FIXED]] = True
    except (KeyError, IndexError) as error:
        raise UserError(
            f"{file}: holds channels of another network; give --overwrite to choose again"
        ) from error
    return kept


def read_choice(file: Path) -> Choice:
    """The choice of a run; raises UserError when the file is damaged."""
    return read_checked(file, Choice, "give --overwrite to choose again")


def write_choice(file: Path, choice: Choice) -> None:
    """Write a run's choice."""
    write_json(file, choice.model_dump(mode="json"))
