"""What a training step minimises, and that it stays a number."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor.core.errors import NotFiniteError

_ADVICE = (
    "what earlier epochs saved is kept. Try a lower learning rate (other settings need --overwrite "
    "or another --out)"
)


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


def require_finite(losses: Sequence[Tensor], names: Sequence[str], epoch: int, before: int) -> None:
    """Raise NotFiniteError for the first step and term that is not finite.

    Args:
        losses: of steps in a row of an epoch, after `before` others: (terms,) each.
        names: of the terms.
    """
    course = torch.stack(list(losses)) if losses else torch.empty(0)
    bad = (~torch.isfinite(course)).nonzero()
    if len(bad):
        step, term = bad[0].tolist()
        raise NotFiniteError(
            f"the loss term {names[term]!r} became {float(course[step, term])} at epoch {epoch}, "
            f"step {before + step + 1}; {_ADVICE}"
        )


def require_finite_validation(loss: float, epoch: int) -> None:
    """Raise NotFiniteError where the validation loss after an epoch is not finite."""
    if not math.isfinite(loss):
        raise NotFiniteError(
            f"the validation loss became {loss} after epoch {epoch}: its last steps broke the "
            f"weights; {_ADVICE}"
        )
