"""Latency of networks and of their parts, measured in turn so that a shared machine's moods hit
all of them."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nettailor.core import ranks
from nettailor.core.modes import evaluating

BATCHES = (1, 64)  # an image at a time, as on a device; many, as on a server
_WARM_UP = 3


def measure_latency(
    networks: Mapping[str, nn.Module],
    image_size: int | Mapping[str, int],
    device: torch.device,
    *,
    batches: Sequence[int] = BATCHES,
    seconds: float = 3.0,
) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds a forward pass: {network: {batch size: {"median", "iqr"}}}.

    image_size is the side of the input in pixels, of all networks or of each by its name.
    The networks, each on `device` and in channels-last layout, take turns, one pass each,
    round after round, for about `seconds` per batch size; `iqr` is the range of the middle half.
    Training modes are put back afterwards.
    """
    result: dict[str, dict[str, dict[str, float]]] = {name: {} for name in networks}
    sides = dict.fromkeys(networks, image_size) if isinstance(image_size, int) else image_size
    for batch in batches:
        images = {side: sample(batch, 3, side, device) for side in dict.fromkeys(sides.values())}
        inputs = {name: images[sides[name]] for name in networks}
        for name, measured in time_in_turn(networks, inputs, device, seconds=seconds).items():
            low, median, high = np.percentile(measured, [25, 50, 75]).tolist()
            result[name][str(batch)] = {"median": round(median, 4), "iqr": round(high - low, 4)}
    return result


def share_of_time(
    network: nn.Module,
    whole: nn.Module,
    image_size: int,
    device: torch.device,
    *,
    batch: int,
    seconds: float = 5.0,
) -> float:
    """The latency of a network over another's, both measured now; see `measure_latency`."""
    networks = {"whole": whole, "part": network}
    times = measure_latency(networks, image_size, device, batches=(batch,), seconds=seconds)
    return times["part"][str(batch)]["median"] / times["whole"][str(batch)]["median"]


def sample(batch: int, channels: int, side: int, device: torch.device) -> Tensor:
    """Random activations (B, C, S, S) in channels-last layout."""
    values = torch.randn(batch, channels, side, side, device=device)
    return values.to(memory_format=torch.channels_last)


def time_in_turn(
    modules: Mapping[str, nn.Module],
    inputs: Mapping[str, Tensor],
    device: torch.device,
    *,
    seconds: float,
) -> dict[str, list[float]]:
    """Milliseconds of every forward pass of each module, taken one after the other in rounds.

    Of several ranks one measures, while the others keep still.

    Args:
        modules: on the device; put in eval mode for the while.
        inputs: of each module, under its name.
        seconds: for all rounds together; there are at least five, after a warm-up.
    """
    return ranks.from_main(lambda: _time(modules, inputs, device, seconds))


@torch.inference_mode()
def _time(
    modules: Mapping[str, nn.Module],
    inputs: Mapping[str, Tensor],
    device: torch.device,
    seconds: float,
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in modules}
    until = time.perf_counter() + seconds
    rounds = 0
    with evaluating(*modules.values()):
        while rounds < _WARM_UP + 5 or time.perf_counter() < until:
            for name, module in modules.items():
                started = time.perf_counter()
                module(inputs[name])
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if rounds >= _WARM_UP:
                    times[name].append(1000 * (time.perf_counter() - started))
            rounds += 1
    return times
