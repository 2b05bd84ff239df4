"""What a training step minimises."""

from typing import Protocol

from torch import Tensor, nn


class Objective(Protocol):
    """Turns a batch into named scalars; the loss is their sum.

    `terms` names the scalars in the order in which they come.
    """

    terms: tuple[str, ...]

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Weighted terms, each a scalar with its gradient."""
        ...
