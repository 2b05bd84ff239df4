"""What fine-tuning minimises."""

import torch.nn.functional as F
from torch import Tensor, nn


class CrossEntropy:
    """Plain fine-tuning: cross-entropy with optional label smoothing in [0, 1)."""

    terms: tuple[str, ...] = ("cross_entropy",)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """See `nettailor.core.objective.Objective`."""
        logits = network(images).logits.float()
        return (F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing),)
