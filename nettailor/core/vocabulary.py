"""Networks made of a list of blocks: the vocabulary that a search puts them together from."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from timm.models._efficientnet_blocks import (
    ConvBnAct,
    DepthwiseSeparableConv,
    InvertedResidual,
    SqueezeExcite,
)
from timm.models._efficientnet_builder import efficientnet_init_weights
from torch import nn

from nettailor.core.architecture import BlockKind, SearchedBlock, SearchedStructure
from nettailor.core.backbone import Backbone
from nettailor.core.classification import fresh_classifier
from nettailor.core.parts import Parts

# Of the channels that it looks at: those inside the block (MobileNetV3), or those that the block
# reads (EfficientNet).
_SQUEEZE = 0.25


def searched_chain(structure: SearchedStructure, classes: int) -> Backbone:
    """The network of a structure, with fresh weights.

    A 3×3 convolution with stride 2, the blocks, a 1×1 convolution, average pooling and a linear
    classifier. All activations are inside the blocks.
    """
    first, last = structure.blocks[0], structure.blocks[-1]
    stem = ConvBnAct(3, structure.stem, 3, stride=2, act_layer=first.activation)
    blocks: list[nn.Module] = []
    stages: list[int] = []
    channels = structure.stem
    for stage, row in enumerate(structure.blocks):
        for repeat in range(row.repeats):
            blocks.append(_block(row, channels, 1 if repeat else row.stride))
            stages.append(stage)
            channels = row.channels
    neck = nn.Sequential(
        OrderedDict(
            conv=ConvBnAct(channels, structure.head, 1, act_layer=last.activation),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(1),
        )
    )
    identities = [nn.Identity() for _ in blocks]
    classifier = fresh_classifier(structure.head, classes)
    parts = Parts("inverted-residual", stem, blocks, identities, neck, classifier, tuple(stages))
    chain = Backbone(parts)
    for part in (chain.stem, chain.blocks, chain.neck):
        efficientnet_init_weights(part)
    return chain


def _block(row: SearchedBlock, channels: int, stride: int) -> nn.Module:
    """A block that reads so many channels; it adds what it reads where shapes agree.

    Conv: convolution, norm, activation. DWConv: depthwise and pointwise convolution (MobileNet).
    The others expand, convolve depthwise and project: InvertedResidualV2 as in MobileNetV2;
    InvertedResidualV3 with squeeze-and-excitation gated by a hard sigmoid (MobileNetV3); MBConv
    with one gated by a sigmoid (EfficientNet).
    """
    kernel, activation = row.kernel, row.activation
    block: nn.Module
    match row.kind:
        case "Conv":
            block = ConvBnAct(
                channels, row.channels, kernel, stride=stride, skip=True, act_layer=activation
            )
        case "DWConv":
            block = DepthwiseSeparableConv(
                channels, row.channels, kernel, stride=stride, act_layer=activation
            )
        case _:
            block = InvertedResidual(
                channels,
                row.channels,
                kernel,
                stride=stride,
                exp_ratio=row.expansion,
                se_layer=_squeeze(row.kind, channels),
                act_layer=activation,
            )
    return block


def _squeeze(kind: BlockKind, channels: int) -> Callable[..., nn.Module] | None:
    """What makes the squeeze-and-excitation of a block that reads so many channels, if any."""
    match kind:
        case "InvertedResidualV3":
            return partial(
                SqueezeExcite,
                rd_ratio=_SQUEEZE,
                gate_layer="hard_sigmoid",
                force_act_layer=nn.ReLU,
            )
        case "MBConv":
            return partial(SqueezeExcite, rd_channels=max(1, round(channels * _SQUEEZE)))
        case _:
            return None
