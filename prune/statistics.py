"""Batch-norm statistics: re-estimated after a cut, kept, or moved faster for a while."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core.memory import room_for
from nettailor.core.modes import training

STATISTICS_BATCHES = 20  # of training images, over which statistics are averaged after a cut


@torch.no_grad()
def reestimate(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], accelerator: Accelerator
) -> None:
    """Replace running statistics by plain averages over the batches.

    A cut changes the sums that later layers see, so the old statistics belong to another network.
    Only norms that train move: frozen ones, in eval mode when the network trains, keep theirs.

    Args:
        network: on the accelerator's device; its training mode is put back afterwards.
        batches: training batches (images (B, 3, S, S), labels), at least one.
    """
    with training(network):
        norms = [
            module
            for module in network.modules()
            if isinstance(module, _BatchNorm) and module.training
        ]
        if not norms:
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
        for number, (images, _) in enumerate(batches, 1):
            for norm in norms:
                norm.momentum = 1 / number  # a plain average; with None each norm waits for the GPU
            with accelerator.autocast(), room_for(len(images), "re-estimating statistics"):
                network(images.to(accelerator.device, memory_format=torch.channels_last))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


class Momenta:
    """By how much running statistics follow each batch, by the names of a network's norms."""

    def __init__(self, network: nn.Module) -> None:
        self._own = {name: norm.momentum for name, norm in _norms(network)}

    def at_least(self, share: float, network: nn.Module) -> bool:
        """Set those of a network, or of a part of it, to their own or a share; whether any rose."""
        rose = False
        for name, norm in _norms(network):
            own = self._own[name]
            norm.momentum = own if own is None else max(own, share)
            rose |= norm.momentum != own
        return rose


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Inside, batch norms normalise by the batch and their running statistics stay."""
    norms = [norm for _, norm in _norms(network)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _norms(network: nn.Module) -> list[tuple[str, _BatchNorm]]:
    return [one for one in network.named_modules() if isinstance(one[1], _BatchNorm)]
