"""What fine-tuning minimises."""

from torch import Tensor, nn

from nettailor.core.classification import logits_from
from nettailor.core.objective import cross_entropies


class CrossEntropy:
    """Plain fine-tuning: cross-entropy, with optional label smoothing in [0, 1).

    class_weights: what an image of each class weighs, (classes,), on the device; None: all 1.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: Tensor | None = None) -> None:
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """See `nettailor.core.objective.Objective`."""
        logits = logits_from(network(images)).float()
        losses = cross_entropies(logits, labels, self.label_smoothing, self.class_weights)
        return {"cross_entropy": losses.mean()}
