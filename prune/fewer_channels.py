"""As many channels as a budget allows: those that the loss would miss most."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from nettailor.core.cost import module_cost
from nettailor.core.device import place
from nettailor.core.sections import Unit
from nettailor.core.side_sections import ROUND_TO
from nettailor.prune.channels import trace_channels
from nettailor.prune.items import Channels
from nettailor.prune.narrow import Kept, narrow
from nettailor.prune.taylor import taylor_values
from nettailor.prune.widths import (
    Costs,
    Ranges,
    allowed,
    best_widths,
    count_flops,
    count_parameters,
)

Network = TypeVar("Network", bound=nn.Module)
VALUE_BATCHES = 20  # of training images, that channels are weighed on


def best_channels(
    channels: Channels,
    values: NDArray[np.float64],
    costs: Costs,
    ranges: Ranges,
    most: float,
) -> Kept:
    """The set of most value within a cost, see `widths.best_widths`.

    Args:
        channels: of a network.
        values: of each item, see `taylor.taylor_values`.
        costs: of the network. ranges: what may be kept.
        most: in the unit of the costs.

    Returns:
        Which items stay, (items,); where the fewest cost more than `most`, these.
    """
    ranked = [
        family.items[np.argsort(-values[family.items], kind="stable")]
        for family in channels.families
    ]
    most = max(most, float(costs.of(ranges.least[None])[0]))
    counts = best_widths([values[items] for items in ranked], costs, ranges, most)
    kept = np.zeros(channels.count, dtype=bool)
    for items, count in zip(ranked, counts, strict=True):
        kept[items[:count]] = True
    return kept


def deployed_cost(network: nn.Module, image_size: int, unit: Unit) -> int:
    """Multiply-adds on an image of image_size × image_size pixels, or parameters."""
    cost = module_cost(network, (3, image_size, image_size))
    return cost.flops if unit == "flops" else cost.parameters


def fewest_channels(network: nn.Module, image_size: int, unit: Unit) -> float:
    """What the fewest channels cost, as a share of what the network costs.

    Raises UserError where its channels cannot be grouped.
    """
    channels = trace_channels(network, image_size)
    ranges = allowed(channels.families, ROUND_TO)
    least, whole = _costs(channels, network, unit).of(np.stack([ranges.least, ranges.most]))
    return float(least / whole)


def with_fewer_channels(
    network: Network,
    batches: Iterable[tuple[Tensor, Tensor]],
    accelerator: Accelerator,
    *,
    image_size: int,
    unit: Unit,
    most: float,
) -> Network:
    """A copy with the channels that the loss would miss most; running statistics stay.

    Args:
        network: on the device, a `Backbone` or a `Student`; it stays as it is.
        batches: training images (B, 3, S, S) and labels (B,), that channels are weighed on.
        accelerator: says where.
        image_size: S, in pixels.
        unit: of the cost.
        most: what the copy may cost, multiply-adds or parameters. Where the fewest channels cost
            more, these are left.

    Raises:
        UserError: the channels cannot be grouped.
    """
    channels = trace_channels(network, image_size)
    ranges, costs = allowed(channels.families, ROUND_TO), _costs(channels, network, unit)
    values = taylor_values(network, channels, batches, accelerator)
    share = most / deployed_cost(network, image_size, unit)
    kept, _ = within_a_share(
        network, channels, values, costs, ranges, share, image_size=image_size, unit=unit
    )
    return place(narrow(network, channels, kept), accelerator.device)


def within_a_share(
    network: nn.Module,
    channels: Channels,
    values: NDArray[np.float64],
    costs: Costs,
    ranges: Ranges,
    share: float,
    *,
    image_size: int,
    unit: Unit,
) -> tuple[Kept, float]:
    """As `best_channels`, within a share of what the network costs as it is deployed.

    Where branches are fused, that is something else than what its layers cost.

    Returns:
        Which items stay, (items,), and their share of the cost. Where the fewest channels cost
        more than is asked, these.
    """
    least, whole = costs.of(np.stack([ranges.least, ranges.most])).tolist()
    deployed, aim = deployed_cost(network, image_size, unit), share * whole
    while True:
        kept = best_channels(channels, values, costs, ranges, aim)
        left = deployed_cost(narrow(network, channels, kept), image_size, unit) / deployed
        if left <= share or aim <= least:
            return kept, left
        aim *= 0.99 * share / left


def _costs(channels: Channels, network: nn.Module, unit: Unit) -> Costs:
    return count_flops(channels) if unit == "flops" else count_parameters(channels, network)
