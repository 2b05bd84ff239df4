"""How well a network classifies a split."""

import math
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor, nn

from nettailor.core import ranks
from nettailor.core.classification import logits_from
from nettailor.core.memory import room_for
from nettailor.core.modes import evaluating


class Recall(NamedTuple):
    """How many of a class's images are taken for it."""

    right: int
    images: int

    @property
    def percent(self) -> float:
        """Their share in %; 100 of a class without images."""
        return 100 * self.right / self.images if self.images else 100.0

    @property
    def variance(self) -> float:
        """The square of the share's standard error.

        As with two more images, one of them right: a share of 0 or 1 is not taken for certain
        (Agresti and Caffo, 2000).
        """
        share = (self.right + 1) / (self.images + 2)
        return share * (1 - share) / (self.images + 2)


class Scores(NamedTuple):
    """Accuracy and macro F1 in per cent, mean cross-entropy in nats, the recall of each class.

    judged: what a choice goes by, in %, see `nettailor.core.judge`; None: the accuracy.
    error: points that `judged` is lower for what may be chance.
    right: a byte an image, 1 where it is taken for its class; empty where that is not known.
    """

    accuracy: float
    macro_f1: float
    loss: float
    recalls: tuple[Recall, ...] = ()
    judged: float | None = None
    error: float = 0.0
    right: bytes = b""

    @property
    def standing(self) -> float:
        """What a choice goes by, in %."""
        return self.accuracy if self.judged is None else self.judged

    @property
    def accuracy_error(self) -> float | None:
        """The standard error of the accuracy, in points; None where the images are not known."""
        images = sum(recall.images for recall in self.recalls)
        if not images:
            return None
        right = sum(recall.right for recall in self.recalls)
        return 100 * math.sqrt(Recall(right, images).variance)

    @property
    def worst_recall(self) -> float:
        """The lowest recall of a class, in %."""
        return min((recall.percent for recall in self.recalls), default=self.accuracy)

    def plain(self) -> tuple[Any, ...]:
        """As a state holds them, see `as_scores`; which images are right is not kept."""
        return (*self[:3], tuple(map(tuple, self.recalls)), self.judged, self.error)


def as_scores(values: Sequence[Any]) -> Scores:
    """The scores that a state holds as plain tuples."""
    accuracy, macro_f1, loss, recalls, judged, error = values
    return Scores(accuracy, macro_f1, loss, tuple(Recall(*one) for one in recalls), judged, error)


class Predictions(NamedTuple):
    """What a network says of a split: logits (N, classes), float32, and labels (N,), on the CPU."""

    logits: Tensor
    labels: Tensor

    def scores(self) -> Scores:
        """How often it is right."""
        truth, predicted = self.labels.numpy(), self.logits.argmax(dim=1).numpy()
        f1 = f1_score(truth, predicted, average="macro", zero_division=0)
        classes = self.logits.shape[1]
        images = self.labels.bincount(minlength=classes).tolist()
        right = self.labels[self.labels == self.logits.argmax(dim=1)]
        hits = right.bincount(minlength=classes).tolist()
        return Scores(
            accuracy=100 * float(accuracy_score(truth, predicted)),
            macro_f1=100 * float(f1),
            loss=float(F.cross_entropy(self.logits, self.labels)),
            recalls=tuple(map(Recall, hits, images)),
            right=(truth == predicted).tobytes(),
        )


@torch.inference_mode()
def classify(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], accelerator: Accelerator
) -> Predictions:
    """What a network in eval mode says of each image; its training mode is put back afterwards.

    It computes in float32, as it is handed over, whatever precision it trains in.

    Args:
        network: returns logits (B, classes), or a NetOutput, for images (B, 3, S, S).
        batches: (images, labels (B,)), each image once; of several ranks each gives the batches
            whose turn is its own, and gets what is said of all.
        accelerator: says where.

    Raises:
        UserError: there is not enough memory for a batch.
    """
    judged: list[tuple[Tensor, Tensor]] = []
    with evaluating(network):
        for images, targets in batches:
            with room_for(len(images), "an evaluation"):
                output = network(images.to(accelerator.device, non_blocking=True))
            judged.append((logits_from(output), targets))
    # once: each look at a GPU waits for it
    mine = [(logits.cpu(), labels.cpu()) for logits, labels in judged]
    turns = zip_longest(*ranks.gathered(mine))
    logits, labels = zip(*(batch for turn in turns for batch in turn if batch), strict=True)
    return Predictions(torch.cat(logits), torch.cat(labels))
