"""What a student loses as it shrinks: at its own end, and at those that it may yet end in."""

import torch
from torch import Tensor, nn

from nettailor.core.backbone import Backbone
from nettailor.core.objective import cross_entropies
from nettailor.prune.shrink import Shrinking
from nettailor.student.loss import divergence
from nettailor.teacher.target import as_target

_OTHERS = 0.5  # the weight of the exits that are trained beside the route's own end


class ShrinkLoss:
    """CE + λ KD: at half the weight of the route's end, and of the exits that it may yet end in.

    Exits are fresh, and have to be trained, with what leads to them, before their loss says what it
    is worth to go on behind them (deep supervision: Lee and others, 2015). Until something is taken
    out the student is the teacher, which then is not asked: CE alone. One that sees its images at
    a lower resolution is not.
    """

    def __init__(
        self,
        teacher: Backbone,
        distill: float = 0.5,
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        """
        Args:
            teacher: fine-tuned; it stays as it is.
            distill: λ ≥ 0.
            label_smoothing: in [0, 1).
            class_weights: what an image of each class weighs, (classes,); None: all 1.
        """
        self.teacher, self.distill = as_target(teacher), distill
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    def of(self, logits: Tensor, labels: Tensor, target: Tensor | None) -> Tensor:
        """What an end loses, a scalar in nats.

        Args:
            logits: (B, classes), the end's. labels: (B,). target: the teacher's logits; None: they
                are not known, and only the labels count.
        """
        entropies = cross_entropies(
            logits.float(), labels, self.label_smoothing, self.class_weights
        )
        if target is None:
            return entropies.mean()
        return entropies.mean() + self.distill * divergence(logits, target)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """See `nettailor.core.objective.Objective`; the network is a `Shrinking`."""
        assert isinstance(network, Shrinking), "the loss is of a network that shrinks"
        end, *others = network.at_ends(images)
        same = network.whole and network.student.side is None
        target = None if same else self.teacher(images).logits
        loss = self.of(end, labels, target)
        if not others:
            return {"end": loss, "exits": torch.zeros_like(loss)}
        mean = torch.stack([self.of(logits, labels, target) for logits in others]).mean()
        return {"end": (1 - _OTHERS) * loss, "exits": _OTHERS * mean}
