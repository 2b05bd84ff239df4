"""What each path of a student takes of the time, measured on the device."""

from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nettailor.core.backbone import Backbone
from nettailor.core.console import Tell, untold
from nettailor.core.cost import chain_costs
from nettailor.core.deployed import as_deployed
from nettailor.core.kept_rounds import KeptRounds
from nettailor.core.latency import sample, time_in_turn
from nettailor.core.layout import Brought
from nettailor.core.program import Logits, as_timed
from nettailor.student.network import Student
from nettailor.student.wiring import Path


class LatencyTable(NamedTuple):
    """Milliseconds a forward pass.

    paths: of each path alone, by its key. stem: of the stem. whole: of the backbone.
    """

    paths: dict[str, float]
    stem: float
    whole: float


class _Both(nn.Module):
    """A block and its adapter."""

    def __init__(self, block: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.block, self.adapter = block, adapter

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x) + self.adapter(x)
        return out


def measure_paths(
    student: Student,
    chain: Backbone,
    image_size: int,
    device: torch.device,
    *,
    batch: int,
    seconds: float = 20.0,
    keep: KeptRounds | None = None,
    tell: Tell = untold,
) -> LatencyTable:
    """The time of each path, scaled so that the backbone's paths add up to the whole backbone.

    Parts and whole take turns, as they are deployed. Alone, a part pays for its own start and finds
    its input in the cache or not: the sum is off by some per cent, which the scale takes out on
    average.

    Args:
        student: on the device.
        chain: the whole backbone, on the device.
        image_size: side of the input in pixels.
        batch: images at a time.
        seconds: for all measurements together.
        keep, tell: see `time_in_turn`.
    """
    parts: dict[str, nn.Module] = {"whole": chain, "stem": student.stem}
    image = sample(batch, chain.example[0], image_size, device)
    if not chain.channels_last:
        image = image.contiguous()
    inputs = {"whole": image, "stem": image}
    nodes = chain_costs(chain, image_size).nodes
    for path in student.wiring.paths:
        if path.kind != "identity":
            parts[path.key] = _module(student, path)
            values = torch.randn(batch, *nodes[path.source].shape[1:], device=device)
            maps = student.specs[path.source].layout == "nchw" and chain.channels_last
            inputs[path.key] = values.to(memory_format=torch.channels_last) if maps else values
        if path.key in student.adapters:  # which the whole backbone lacks
            parts[_bare(path.key)] = student.blocks[path.key]
            inputs[_bare(path.key)] = inputs[path.key]
    told = {name: None if name == "whole" else tuple(x.shape) for name, x in inputs.items()}
    parts = {name: as_deployed(part, told[name])[0] for name, part in parts.items()}
    parts["whole"] = as_timed(Logits(parts["whole"]), image_size, device)
    times = {
        name: median(measured)
        for name, measured in time_in_turn(
            parts, inputs, device, seconds=seconds, keep=keep, tell=tell
        ).items()
    }
    backbone = [p.key for p in student.wiring.paths if p.kind in ("block", "head")]
    alone = sum(times.get(_bare(key), times[key]) for key in backbone)
    scale = times["whole"] / (times["stem"] + alone)
    return LatencyTable(
        {path.key: scale * times.get(path.key, 0.0) for path in student.wiring.paths},
        scale * times["stem"],
        times["whole"],
    )


def _bare(key: str) -> str:
    """The name of a block's time without its adapter."""
    return f"{key} alone"


def _module(student: Student, path: Path) -> nn.Module:
    if path.kind in ("head", "exit"):
        return student.heads[path.key]
    brought = Brought(student.specs[path.source], student.specs[path.target])
    if path.kind == "proxy":
        return nn.Sequential(brought, student.proxies[path.key])
    block = student.blocks[path.key]
    if path.key not in student.adapters:
        return block
    return _Both(block, nn.Sequential(brought, student.adapters[path.key]))
