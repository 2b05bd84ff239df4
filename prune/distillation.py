"""The loss of a network that lost channels: cross-entropy, and distillation from the whole one."""

from collections.abc import Callable

from torch import Tensor, nn

from nettailor.core.backbone import NetOutput
from nettailor.core.objective import cross_entropies
from nettailor.student.loss import divergence

_DISTILL = 0.5  # λ


class Distillation:
    """L = CE + λ KD, see `student.loss.divergence`.

    Holds the whole network as a function, so that no trained module can swallow it.
    """

    def __init__(
        self,
        whole: Callable[[Tensor], NetOutput],
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        """Fix the terms.

        Args:
            whole: images -> output without gradients.
            label_smoothing: in [0, 1).
            class_weights: of the cross-entropy, see `teacher.objective.CrossEntropy`.
        """
        self.whole = whole
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """See `nettailor.core.objective.Objective`."""
        logits = network(images).logits.float()
        losses = cross_entropies(logits, labels, self.label_smoothing, self.class_weights)
        distance = divergence(logits, self.whole(images).logits)
        return {"cross_entropy": losses.mean(), "distillation": _DISTILL * distance}
