"""A network's mode while it is looked at, and no longer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Eval mode inside; each network's own mode is put back afterwards."""
    with _in_mode(networks, training=False):
        yield


@contextmanager
def training(network: nn.Module) -> Iterator[None]:
    """Training mode inside; the network's own mode is put back afterwards."""
    with _in_mode([network], training=True):
        yield


@contextmanager
def _in_mode(networks: Sequence[nn.Module], *, training: bool) -> Iterator[None]:
    modes = [network.training for network in networks]
    for network in networks:
        network.train(training)
    try:
        yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
