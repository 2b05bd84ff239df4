"""A network's mode while it is looked at, and no longer."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Eval mode inside; each network's own mode is put back afterwards."""
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network, training in zip(networks, modes, strict=True):
            network.train(training)
