"""Measured time of a forward pass, networks taken in turn so that a drifting machine is fair."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from nettailor.core.modes import evaluating

BATCHES = (1, 64)  # an image at a time, as on a device; many, as on a server
_WARM_UP = 3


@torch.inference_mode()
def measure_latency(
    networks: Mapping[str, nn.Module],
    image_size: int,
    device: torch.device,
    *,
    batches: Sequence[int] = BATCHES,
    seconds: float = 3.0,
) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds per batch: {network: {batch: {"median", "iqr"}}}.

    float32, channels last, torch's own number of threads. The networks run one after the other,
    round after round, for about `seconds` per batch size; `iqr` is the range of the middle half.
    Training modes are put back afterwards.
    """
    result: dict[str, dict[str, dict[str, float]]] = {name: {} for name in networks}
    with evaluating(*networks.values()):
        for batch in batches:
            images = torch.randn(batch, 3, image_size, image_size, device=device)
            images = images.to(memory_format=torch.channels_last)
            times: dict[str, list[float]] = {name: [] for name in networks}
            until = time.perf_counter() + seconds
            rounds = 0
            while rounds < _WARM_UP + 5 or time.perf_counter() < until:
                for name, network in networks.items():
                    started = time.perf_counter()
                    network(images)
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
                    if rounds >= _WARM_UP:
                        times[name].append(1000 * (time.perf_counter() - started))
                rounds += 1
            for name, measured in times.items():
                low, median, high = np.percentile(measured, [25, 50, 75]).tolist()
                result[name][str(batch)] = {"median": round(median, 4), "iqr": round(high - low, 4)}
    return result
