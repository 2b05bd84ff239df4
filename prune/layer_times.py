"""What a network's layers take of the time by how many channels they have, measured."""

import copy
from functools import cache, partial
from itertools import product
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import RegularGridInterpolator
from torch import nn

from nettailor.core.backbone import Backbone
from nettailor.core.console import Tell, untold
from nettailor.core.device import place
from nettailor.core.kept_rounds import KeptRounds
from nettailor.core.latency import sample, time_in_turn
from nettailor.core.program import as_timed
from nettailor.prune.attention import heads_of
from nettailor.prune.fold import fold
from nettailor.prune.items import FIXED, Channels, Ints, Layer
from nettailor.prune.narrow import take
from nettailor.prune.widths import Costs, Floats
from nettailor.student.network import Student

_SHARES = (0.25, 0.5, 0.75, 1.0)  # of a layer's channels, on each side, beside a single one


def measure_times(
    network: Backbone | Student,
    channels: Channels,
    image_size: int,
    device: torch.device,
    *,
    batch: int,
    seconds: float = 20.0,
    keep: KeptRounds | None = None,
    tell: Tell = untold,
) -> tuple[Costs, float]:
    """The time of a network by its widths, as a share of what it takes whole.

    Every convolution is timed with one, a quarter, half, three quarters and all of its channels on
    each side, with the activation that follows in these networks; linear layers and the products of
    attention likewise, alone. What is between is interpolated. All of them take turns with the
    network itself, as it is handed over, and are scaled so that its layers add up to 1.

    Args:
        network: on the device.
        channels: its items.
        image_size: side of the input in pixels.
        batch: images at a time.
        seconds: for all measurements together.
        keep, tell: see `time_in_turn`.

    Returns:
        The costs, and the milliseconds of the whole network.
    """
    modules: dict[str, nn.Module] = {"whole": as_timed(fold(network), image_size, device)}
    inputs = {"whole": sample(batch, 3, image_size, device)}
    shared = cache(partial(_activations, device=device))
    grids: list[tuple[list[int], list[int]]] = []
    for number, layer in enumerate(channels.layers):
        module = network.get_submodule(layer.name)
        outs = _grid(layer, module)
        reads = [1] if layer.read is None else _some(layer.read)
        grids.append((outs, reads))
        for out, read in product(outs, reads):
            key = f"{number} {out} {read}"
            modules[key] = place(_part(module, out, None if layer.read is None else read), device)
            # one for all that read the same shape: of each its own, a batch of large images would
            # take gigabytes
            inputs[key] = shared(_shape(modules[key], layer, batch, out))
    times = {
        name: median(measured)
        for name, measured in time_in_turn(
            modules, inputs, device, seconds=seconds, keep=keep, tell=tell
        ).items()
    }
    tables = [
        np.array([[times[f"{number} {out} {read}"] for read in reads] for out in outs])
        for number, (outs, reads) in enumerate(grids)
    ]
    total = sum(float(table[-1, -1]) for table in tables)
    curves = [
        _interpolated(outs, reads, table / total)
        for (outs, reads), table in zip(grids, tables, strict=True)
    ]

    def price(out: Floats, read: Floats) -> Floats:
        total = np.zeros(len(out))
        for number, curve in enumerate(curves):
            total += curve(np.stack([out[:, number], read[:, number]], axis=1))
        return np.maximum(total, 0.0)

    return Costs(channels, channels.layers, price), times["whole"]


def _some(items: Ints) -> list[int]:
    if (items == FIXED).all():
        return [len(items)]
    return sorted({1, *(max(1, round(share * len(items))) for share in _SHARES)})


def _grid(layer: Layer, module: nn.Module) -> list[int]:
    """Numbers of output channels; of a grouped convolution whole groups."""
    groups = getattr(module, "groups", 1)
    each = len(layer.out) // groups if groups > 1 else 1
    return [each * number for number in _some(layer.out[::each])]


def _part(module: nn.Module, out: int, read: int | None) -> nn.Module:
    if heads_of(module):
        return _Products()
    part = copy.deepcopy(module)
    take(part, torch.arange(out), None if read is None else torch.arange(read))
    if isinstance(part, nn.Linear):
        return part
    return nn.Sequential(part, nn.ReLU6())


class _Products(nn.Module):
    """What attention does between its linear layers, to (windows, heads, tokens, width)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x)


def _shape(part: nn.Module, layer: Layer, batch: int, out: int) -> tuple[int, ...]:
    """Of what a part reads."""
    if isinstance(part, _Products):
        windows, *tokens = layer.sides
        return batch * windows, out, *tokens
    first = next(module for module in part.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    if isinstance(first, nn.Linear):
        return batch, *layer.sides, first.in_features
    return batch, first.in_channels, *layer.sides


def _activations(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    x = torch.randn(shape, device=device)
    return x.to(memory_format=torch.channels_last) if x.ndim == 4 else x


def _interpolated(outs: list[int], reads: list[int], table: Floats) -> RegularGridInterpolator:
    """Linear between the widths that were measured."""
    # an axis of one width would leave nothing to interpolate between
    for axis, widths in enumerate((outs, reads)):
        if len(widths) == 1:
            widths.append(widths[0] + 1)
            table = np.repeat(table, 2, axis=axis)
    return RegularGridInterpolator((outs, reads), table, bounds_error=False, fill_value=None)
