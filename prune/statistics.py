"""Batch-norm statistics re-estimated after a cut, as a named step."""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

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
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
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
