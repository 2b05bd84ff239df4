"""What a training step minimises."""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn


class Objective(Protocol):
    """Turns a batch into named scalars; the loss is their sum.

    `terms` names the scalars in the order in which they come.
    """

    terms: tuple[str, ...]

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Weighted terms, each a scalar with its gradient."""
        ...


class CrossEntropy:
    """Plain fine-tuning: cross-entropy with optional label smoothing in [0, 1)."""

    terms: tuple[str, ...] = ("cross_entropy",)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """See `Objective`."""
        logits = network(images).logits.float()
        return (F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing),)
