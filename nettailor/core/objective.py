"""What a training step minimises."""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn


class Objective(Protocol):
    """Turns a batch into named scalars; the loss is their sum."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Weighted terms by name, each a scalar with its gradient; the same names at each step.

        Args:
            network: what is trained.
            images: (B, C, H, W).
            labels: (B,), int64.
        """
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
