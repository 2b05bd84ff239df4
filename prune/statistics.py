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
        norms = [norm for _, norm in _norms(network) if norm.training]
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
    """By how much a network's running statistics follow each batch."""

    def __init__(self, network: nn.Module) -> None:
        self._norms = _norms(network)
        self._own = {name: norm.momentum for name, norm in self._norms}

    def at_least(self, share: float) -> bool:
        """Set them to their own or a share, whichever is more; whether one has changed."""
        before = [norm.momentum for _, norm in self._norms]
        for name, norm in self._norms:
            own = self._own[name]
            norm.momentum = own if own is None else max(own, share)
        return before != [norm.momentum for _, norm in self._norms]

    def put_back(self, part: nn.Module) -> None:
        """Their own, in the network or in a copy of a part of it with the same names."""
        for name, norm in _norms(part):
            norm.momentum = self._own[name]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Inside, batch norms normalise by the batch and their running statistics stay."""
    norms = [norm for _, norm in _norms(network) if norm.track_running_stats]
    for norm in norms:  # a momentum of 0 would let one batch with an infinity into them
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _norms(network: nn.Module) -> list[tuple[str, _BatchNorm]]:
    return [one for one in network.named_modules() if isinstance(one[1], _BatchNorm)]
