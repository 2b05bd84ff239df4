"""Lean heads: what may read a node early and say the class."""

import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn

from nettailor.core.backbone import Backbone, head_activation
from nettailor.core.classification import fresh_classifier, logits_of
from nettailor.core.layout import Layout, NodeSpec, features_of
from nettailor.core.meta import copy_with, meta_copy

HEAD_EXPANSION = 6  # channels of an inverted-residual head over those that it reads
_LEAN_WIDTH = 256  # channels at most of an exit's convolution
_TOKEN_NORM_EPS = 1e-6  # as in vision transformers and ConvNeXt


class Head(nn.Module):
    """From a node to the logits: a neck, global pooling included, and a linear classifier."""

    def __init__(self, neck: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.neck = neck
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """A node -> logits (B, classes)."""
        return logits_of(self.classifier, self.neck(x))


class Features(nn.Module):
    """A node's class token, the first of its tokens, or the mean of its positions: (B, C)."""

    def __init__(self, node: NodeSpec, *, class_token: bool) -> None:
        super().__init__()
        self.layout: Layout = node.layout
        self.prefix, self.class_token = node.prefix, class_token

    def forward(self, x: Tensor) -> Tensor:
        """A node -> its features."""
        return x[:, 0] if self.class_token else features_of(x, self.layout, self.prefix)


def fresh_neck(
    chain: Backbone, node: NodeSpec, last: NodeSpec, width: int
) -> tuple[nn.Module, int]:
    """A new neck on a node, and its number of features.

    For inverted residuals a 1×1 convolution to `width` channels, batch norm and activation, then
    average pooling; for ConvNeXt pooling and layer norm; for others of (B, C, H, W) pooling alone.
    For tokens and (B, H, W, C) a layer norm, then the class token, if the pretrained head reads no
    position, or the mean; where the node is like the last one, a copy of the pretrained neck, if
    its weights are those of norms alone.

    last: the node that the pretrained head reads.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    features = node.channels
    if node.layout != "nchw":
        neck, classifier = chain.neck, chain.classifier
        lean = all(weight.ndim <= 1 for weight in neck.parameters())
        if lean and isinstance(classifier, nn.Linear) and node == last:
            return copy.deepcopy(neck), classifier.in_features
        class_token = node.prefix > 0 and not _reads_positions(chain, last)
        layers["norm"] = nn.LayerNorm(features, eps=_TOKEN_NORM_EPS)
        layers["pool"] = Features(node, class_token=class_token)
        return nn.Sequential(layers), features
    if chain.family == "inverted-residual":
        features = width
        layers["conv"] = fresh_convolution(node.channels, features, kernel=1)
        layers["norm"] = nn.BatchNorm2d(features)
        layers["act"] = copy.deepcopy(head_activation(chain))
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten(1)
    if chain.family == "convnext":
        layers["norm"] = nn.LayerNorm(features)
    return nn.Sequential(layers), features


def _reads_positions(chain: Backbone, last: NodeSpec) -> bool:
    """Whether the pretrained head reads positions of the last node, or prefix tokens alone.

    Registers and class tokens that no head reads say nothing of the class. Where a position is not
    a number, neither are the logits that depend on it, whatever the weights.
    """
    device = next(chain.parameters()).device
    device = torch.device("cpu") if device.type == "meta" else device
    with torch.no_grad():
        shape = meta_copy(chain)(torch.empty(1, *chain.example, device="meta")).nodes[-1].shape
        node = torch.zeros(shape, device=device)
        (node[:, last.prefix :] if last.layout == "tokens" else node).fill_(torch.nan)
        head = copy_with(
            nn.Sequential(chain.neck, chain.classifier),
            lambda tensor: torch.full_like(tensor, tensor.is_floating_point(), device=device),
        )
        return bool(head(node).isnan().any())


def exit_from(chain: Backbone, node: NodeSpec, last: NodeSpec) -> Head:
    """An exit that reads a node; last: the node that the pretrained head reads.

    Like the head of fixed removal (ELimNet), but no wider than 256 channels, and its convolution
    reads the node average-pooled to the resolution of the last one, which the pretrained head
    reads.
    """
    width = min(HEAD_EXPANSION * node.channels, _LEAN_WIDTH)
    neck, features = fresh_neck(chain, node, last, width)
    finer = int(last.stride // node.stride)
    if finer > 1 and chain.family == "inverted-residual":
        pool = nn.AvgPool2d(finer, ceil_mode=True)
        neck = nn.Sequential(OrderedDict([("pool", pool), ("neck", neck)]))
    return Head(neck, fresh_classifier(features, chain.classes))


def fresh_convolution(channels_in: int, channels_out: int, *, kernel: int) -> nn.Conv2d:
    """A convolution that keeps the resolution, without bias, its filters drawn anew."""
    convolution = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
