"""Which channels of a network a budget leaves: decided once, and written down in the run."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nettailor.core.architecture import Closed, read_checked
from nettailor.core.backbone import Backbone
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.files import write_json
from nettailor.core.kept_rounds import KeptRounds
from nettailor.core.latency import share_of_time
from nettailor.core.sections import Unit
from nettailor.latency_budget import keep_by_the_clock
from nettailor.prune.channels import trace_channels
from nettailor.prune.fewer_channels import (
    VALUE_BATCHES,
    best_channels,
    within_a_share,
)
from nettailor.prune.fold import fold
from nettailor.prune.items import ATTENTION, FIXED, Channels
from nettailor.prune.layer_times import measure_times
from nettailor.prune.narrow import Kept, narrow, positions
from nettailor.prune.shrink import WITHIN
from nettailor.prune.taylor import taylor_values
from nettailor.prune.widths import (
    Costs,
    Ranges,
    allowed,
    count_flops,
    count_parameters,
)
from nettailor.session import Session
from nettailor.student.network import Student

CHOICE_FILE = "channels.json"


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
    """A budget made ready: what networks cost, what may be kept, the most that it may cost.

    most: in the unit of `costs`; for milliseconds these are shares of the whole network's time.
    times: where what is timed is kept.
    """

    channels: Channels
    costs: Costs
    ranges: Ranges
    most: float
    times: KeptRounds


def ready_budget(session: Session, network: Backbone | Student, *, fresh: bool = False) -> Budget:
    """Find the channels of a network, and what they cost.

    Args:
        network: on the device; its weights do not matter.
        fresh: times that were measured before do not count.

    Raises:
        UserError: its channels cannot be grouped, or no choice meets the budget.
    """
    config, round_to = session.config, session.config.knapsack.round_to
    channels = trace_channels(network, session.preprocessing.image_size)
    if channels.stays:
        session.screen.say(_staying(channels))
    ranges = allowed(channels.families, round_to)
    given = config.budget.given
    assert given is not None, "the command takes half where there is none"
    cost, most = given
    unit, times = 1.0, KeptRounds(session.places.times, fresh=fresh)
    if cost == "flops":
        costs, name = count_flops(channels), " of the multiply-adds"
    elif cost == "params":
        costs, name = count_parameters(channels, network), " of the parameters"
    else:
        size, name = session.preprocessing.image_size, " ms"
        costs, unit = timed_layers(session, network, channels, size, times)
    least, whole = costs.of(np.stack([ranges.least, ranges.most])).tolist()
    if not least <= most / unit * whole < whole:
        lowest = f"{least / whole * unit * 1.005:.3g}"  # rounded up, so that it can be given
        too_few = most / unit * whole < least and round_to > 1
        raise UserError(
            f"no choice of channels costs {most:g}{name}: give a budget from {lowest} to below "
            f"{unit:.4g}{name}{', or --round-to 1' if too_few else ''}"
        )
    return Budget(channels, costs, ranges, most / unit * whole, times)


def timed_layers(
    session: Session,
    network: Backbone | Student,
    channels: Channels,
    image_size: int,
    times: KeptRounds,
) -> tuple[Costs, float]:
    """See `measure_times`; says what is timed, and how far it is."""
    device, batch = session.accelerator.device, session.config.budget.batch
    session.screen.say(f"timing {len(channels.layers)} layers at some widths, {batch} images")
    with session.screen.counting("timing layers") as tell:
        return measure_times(
            network, channels, image_size, device, batch=batch, keep=times, tell=tell
        )


def _staying(channels: Channels) -> str:
    stays = channels.stays
    layer = next((name for name, does in stays.items() if does == ATTENTION), next(iter(stays)))
    heads = sum(len(set(items.tolist()) - {FIXED}) for items in channels.heads.values())
    return (
        f"{channels.count} groups of channels can go, {heads} of them heads of attention; channels "
        f"that meet what is not followed stay, in {len(stays)} layers: such as {layer} "
        f"({stays[layer]})"
    )


def choose(session: Session, network: Backbone | Student, budget: Budget, digest: str) -> Choice:
    """Weigh the channels of a trained network, and keep the best set within the budget.

    Args:
        network: on the device; its running statistics stay.
        budget: of this network.
        digest: SHA-256 of its weights.

    Raises:
        UserError: a budget of milliseconds that no network keeps which was timed.
    """
    max_latency_ms, step = session.config.budget.max_latency_ms, session.config.knapsack.round_to
    channels = budget.channels
    batches = islice(session.loaders.train.epoch(0), VALUE_BATCHES)
    watched = session.screen.each("weighing channels", batches, VALUE_BATCHES)
    values = taylor_values(network, channels, watched, session.accelerator)
    costs, ranges = budget.costs, budget.ranges
    if max_latency_ms is None:
        share = budget.most / float(costs.of(ranges.most[None])[0])
        unit: Unit = "flops" if session.config.budget.max_params is None else "params"
        size = session.preprocessing.image_size
        kept, cost = within_a_share(
            network, channels, values, costs, ranges, share, image_size=size, unit=unit
        )
        if cost < (1 - WITHIN) * share:
            widths = f"multiples of {step}" if step > 1 else "whole channels"
            session.screen.say(f"{widths} leave {cost:.3f} of the cost, where {share:g} is allowed")
    else:
        within = partial(best_channels, channels, values, costs, ranges)
        kept, cost = _by_the_clock(session, network, budget, within)
        if cost > budget.most:
            quickest = cost / budget.most * max_latency_ms
            raise UserError(
                f"no choice of channels keeps {max_latency_ms:g} ms by the clock: the "
                f"quickest network that was timed takes {quickest:.4g} ms; give a budget above that"
            )
    total = float(values.sum())
    return Choice(
        whole=digest,
        kept=_places(channels, kept),
        value=float(values[kept].sum()) / total if total else 1.0,
        cost=cost,
    )


def _by_the_clock(
    session: Session, network: Backbone | Student, budget: Budget, within: Callable[[float], Kept]
) -> tuple[Kept, float]:
    """The choice that keeps a latency budget when the narrow network itself is timed."""
    size, device = session.preprocessing.image_size, session.accelerator.device
    batch = session.config.budget.batch
    whole = fold(network)

    def share(kept: Kept) -> float:
        narrowed = place(narrow(network, budget.channels, kept), device)
        with session.screen.counting("timing a choice") as tell:
            found = share_of_time(
                fold(narrowed), whole, size, device, batch=batch, keep=budget.times, tell=tell
            )
        took = found / budget.most * (session.config.budget.max_latency_ms or 0)
        session.screen.say(f"{int(kept.sum())} groups of channels take {took:.4g} ms by the clock")
        return found

    return keep_by_the_clock(budget.most, within, share)


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
    with suppress(KeyError, IndexError):
        for name, places in choice.kept.items():
            items = channels.places[name, 0][list(places)]
            kept[items[items != FIXED]] = True
    left = ((items == FIXED) | kept[items] for items in channels.places.values())
    if choice.kept != _places(channels, kept) or not all(some.any() for some in left):
        raise UserError(
            f"{file}: holds channels of another network; give --overwrite to choose again"
        )
    return kept


def read_choice(file: Path) -> Choice:
    """The choice of a run; raises UserError when the file is damaged."""
    return read_checked(file, Choice, "give --overwrite to choose again")


def write_choice(file: Path, choice: Choice) -> None:
    """Write a run's choice."""
    write_json(file, choice.model_dump(mode="json"))
