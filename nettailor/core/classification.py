"""The linear layer that ends a network: how it starts, and in which precision it answers."""

from typing import cast

import torch
from torch import Tensor, nn

# Small enough that training starts at a loss of about log(classes).
_CLASSIFIER_STD = 0.01


def logits_of(classifier: nn.Module, features: Tensor) -> Tensor:
    """Logits (B, classes) of features (B, F); under autocast in the classifier's own precision.

    Rounded to bfloat16, the two largest of a thousand logits are often the same number.
    """
    device = features.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        features = features.to(next(classifier.parameters()).dtype)
        with torch.autocast(device, enabled=False):
            return cast(Tensor, classifier(features))
    return cast(Tensor, classifier(features))


def logits_from(output: object) -> Tensor:
    """The logits of what a network gives: themselves, or those of a `NetOutput`."""
    return output if isinstance(output, Tensor) else cast(Tensor, output.logits)  # type: ignore[attr-defined]


def fresh_classifier(features: int, classes: int) -> nn.Linear:
    """A linear classifier (B, features) -> (B, classes) whose training starts at log(classes)."""
    classifier = nn.Linear(features, classes)
    start_small(classifier)
    return classifier


def start_small(classifier: nn.Linear | nn.Conv2d) -> None:
    """Fresh weights for a classifier, in place: training starts at a loss of log(classes)."""
    # timm's EfficientNets draw from ±1/√classes: logits of ±10, whose first gradients tear the
    # pretrained blocks apart (a cosine of 0.47 with the stem's own filters was measured)
    nn.init.trunc_normal_(classifier.weight, std=_CLASSIFIER_STD)
    if classifier.bias is not None:
        nn.init.zeros_(classifier.bias)
