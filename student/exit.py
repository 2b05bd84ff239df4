"""Lean heads: what may read a node early and say the class."""

import copy
from collections import OrderedDict

from torch import Tensor, nn

from nettailor.core.backbone import Backbone, head_activation
from nettailor.core.classification import fresh_classifier, logits_of

HEAD_EXPANSION = 6  # channels of an inverted-residual head over those that it reads
_LEAN_WIDTH = 256  # channels at most of an exit's convolution


class Head(nn.Module):
    """From a node to the logits: a neck, global pooling included, and a linear classifier."""

    def __init__(self, neck: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.neck = neck
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, classes)."""
        return logits_of(self.classifier, self.neck(x))


def fresh_neck(chain: Backbone, channels: int, width: int) -> tuple[nn.Module, int]:
    """A new neck on a node of so many channels, and its number of features.

    For inverted residuals a 1×1 convolution to `width` channels, batch norm and activation, then
    average pooling; for ConvNeXt pooling and layer norm; for the others pooling alone.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    features = channels
    if chain.family == "inverted-residual":
        features = width
        layers["conv"] = fresh_convolution(channels, features, kernel=1)
        layers["norm"] = nn.BatchNorm2d(features)
        layers["act"] = copy.deepcopy(head_activation(chain))
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten(1)
    if chain.family == "convnext":
        layers["norm"] = nn.LayerNorm(features)
    return nn.Sequential(layers), features


def exit_from(chain: Backbone, channels: int) -> Head:
    """An exit that reads a node of so many channels.

    It is the head of fixed removal (ELimNet), no wider than 256 channels.
    """
    neck, features = fresh_neck(chain, channels, min(HEAD_EXPANSION * channels, _LEAN_WIDTH))
    return Head(neck, fresh_classifier(features, chain.classes))


def fresh_convolution(channels_in: int, channels_out: int, *, kernel: int) -> nn.Conv2d:
    """A convolution that keeps the resolution, without bias, its filters drawn anew."""
    convolution = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
