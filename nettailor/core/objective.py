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


def cross_entropies(
    logits: Tensor, labels: Tensor, label_smoothing: float, class_weights: Tensor | None
) -> Tensor:
    """The cross-entropy of each image, (B,), in nats.

    Its mean is over images, whatever they weigh: torch's own divides by the weights of the batch,
    and ranks could not add up their parts.

    Args:
        logits: (B, classes), float32.
        labels: (B,).
        label_smoothing: in [0, 1).
        class_weights: what an image of each class weighs, (classes,), on the device; None: all 1.
    """
    return F.cross_entropy(
        logits, labels, class_weights, label_smoothing=label_smoothing, reduction="none"
    )
