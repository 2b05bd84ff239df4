"""Latency of networks and of their parts, measured in turn so that a shared machine's moods hit
all of them."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core import ranks
from nettailor.core.console import Tell, untold
from nettailor.core.kept_rounds import KeptRounds
from nettailor.core.memory import room_for
from nettailor.core.modes import evaluating
from nettailor.core.program import as_timed

BATCHES = (1, 64)  # an image at a time, as on a device; many, as on a server
_WARM_UP, _ROUNDS = 3, 5  # rounds that do not count, and the least that do
_FEWER = "give the budget of milliseconds a --budget.batch of {fewer}"
_REPLAYS = 10  # of a CUDA graph between two looks at the clock; on a CPU before the one that counts
_WARM = 2.0  # milliseconds of passes after which the caches are a network's own


def measure_latency(
    networks: Mapping[str, nn.Module],
    image_size: int | Mapping[str, int],
    device: torch.device,
    *,
    batches: Sequence[int] = BATCHES,
    seconds: float = 3.0,
    tell: Tell = untold,
) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds a forward pass: {network: {batch size: {"median", "iqr"}}}.

    image_size is the side of the input in pixels, of all networks or of each by its name.
    The networks, each on `device` and in channels-last layout, take turns, round after round, for
    about `seconds` per batch size: ten passes each or those of 2 ms, of which the last counts, as
    where a network works alone; `iqr` is the range of the middle half.
    On a CPU in float32; on a GPU copies in half precision (`serving_dtype`), as CUDA graphs.
    Training modes are put back afterwards. `tell` as in `time_in_turn`, for each batch size anew.
    """
    result: dict[str, dict[str, dict[str, float]]] = {name: {} for name in networks}
    sides = dict.fromkeys(networks, image_size) if isinstance(image_size, int) else image_size
    for batch in batches:
        images = {side: sample(batch, 3, side, device) for side in dict.fromkeys(sides.values())}
        inputs = {name: images[sides[name]] for name in networks}
        for name, measured in time_in_turn(
            networks, inputs, device, seconds=seconds, tell=tell
        ).items():
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
    side: int | None = None,
    seconds: float = 5.0,
    keep: KeptRounds | None = None,
    tell: Tell = untold,
) -> float:
    """The latency of a network over another's, both as they are deployed (`as_timed`), measured in
    turn; see `time_in_turn`.

    side: of the network's own images, in pixels, where they are others than the whole one's.
    """
    sides = {"whole": image_size, "part": side or image_size}
    networks = {
        name: as_timed(one, sides[name], device)
        for name, one in {"whole": whole, "part": network}.items()
    }
    images = {one: sample(batch, 3, one, device) for one in dict.fromkeys(sides.values())}
    inputs = {name: images[one] for name, one in sides.items()}
    times = time_in_turn(networks, inputs, device, seconds=seconds, keep=keep, tell=tell)
    return float(np.median(times["part"]) / np.median(times["whole"]))


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
    keep: KeptRounds | None = None,
    tell: Tell = untold,
) -> dict[str, list[float]]:
    """Milliseconds of every forward pass of each module, taken one after the other in rounds.

    Of several ranks one measures, while the others keep still. UserError where memory does not
    suffice.

    Args:
        modules: on the device; put in eval mode for the while. They are timed as they are: give
            a network as it is handed over, by `fold`.
        inputs: of each module, under its name.
        seconds: for all rounds together; there are at least five, after a warm-up.
        keep: where whole rounds are kept: those that are there count, and are not taken again.
        tell: called after each pass with how many are done, and how many there will be.
    """
    return ranks.from_main(lambda: _time(modules, inputs, device, seconds, keep, tell))


@torch.inference_mode()
def _time(
    modules: Mapping[str, nn.Module],
    inputs: Mapping[str, Tensor],
    device: torch.device,
    seconds: float,
    keep: KeptRounds | None,
    tell: Tell,
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in modules}
    spent = 0.0
    if keep is not None:
        shapes = {
            name: f"{module} of {tuple(inputs[name].shape)}" for name, module in modules.items()
        }
        file = keep.file(shapes, device)
        times, spent = keep.read(file, list(modules))
    before = min(map(len, times.values()))
    least, left = max(0, _ROUNDS - before), seconds - spent
    if not least and left <= 0:
        return times
    most = max(len(x) for x in inputs.values())
    with evaluating(*modules.values()), room_for(most, "timing", _FEWER):
        passes: dict[str, Callable[[], float]]
        if device.type == "cuda":
            # one pool for all: they run one after the other, and nobody reads what they compute
            pool = torch.cuda.graph_pool_handle()
            passes = {
                name: _replay(module, inputs[name], serving_dtype(device), pool)
                for name, module in modules.items()
            }
        else:
            passes = {
                name: partial(_pass, module, inputs[name]) for name, module in modules.items()
            }
        started = time.perf_counter()
        rounds, expected = 0, _WARM_UP + least
        try:
            while rounds < _WARM_UP + least or time.perf_counter() - started < left:
                for number, (name, one) in enumerate(passes.items(), 1):
                    milliseconds = one()
                    if rounds >= _WARM_UP:
                        times[name].append(milliseconds)
                    tell(rounds * len(passes) + number, max(expected, rounds + 1) * len(passes))
                rounds += 1
                took = time.perf_counter() - started
                expected = max(_WARM_UP + least, math.ceil(left / took * rounds))
                if keep is not None:
                    keep.save(file, times, spent + took, now=False)
        finally:
            if keep is not None and rounds > _WARM_UP:
                keep.save(file, times, spent + time.perf_counter() - started, now=True)
    return times


def _pass(module: nn.Module, x: Tensor) -> float:
    """Milliseconds of a pass, after some that take the caches back from the module before."""
    spent = 0.0
    for _ in range(_REPLAYS):
        started = time.perf_counter()
        module(x)
        took = 1000 * (time.perf_counter() - started)
        spent += took
        if spent > _WARM:
            break
    return took


def serving_dtype(device: torch.device) -> torch.dtype:
    """What networks are timed in: on a GPU the half precision that it computes quickly in."""
    if device.type != "cuda":
        return torch.float32
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def as_served(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy that takes and gives activations of this type; batch norms keep float32 inside."""
    copied = copy.deepcopy(module)
    for part in copied.modules():
        if not isinstance(part, _BatchNorm):
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(dtype)
    return copied.requires_grad_(False)


def _replay(module: nn.Module, x: Tensor, dtype: torch.dtype, pool: Any) -> Callable[[], float]:
    """Milliseconds of a pass on the GPU, as a CUDA graph: without the time that launches take.

    A pass at batch 1, started operator by operator, takes as long as its launches, whatever the
    widths of its layers.
    """
    module, x = as_served(module, dtype), x.to(dtype)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            module(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        module(x)
    first = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    last = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    # the graph reads the memory of both, which holds only as long as somebody has them
    def run(_read: tuple[nn.Module, Tensor] = (module, x)) -> float:
        first.record()
        for _ in range(_REPLAYS):
            graph.replay()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) / _REPLAYS

    return run
