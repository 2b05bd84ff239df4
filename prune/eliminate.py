"""Fixed removal of the top (ELimNet): the yardstick that cuts without learning where."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nettailor.core.backbone import Backbone, node_specs
from nettailor.core.classification import fresh_classifier
from nettailor.core.errors import UserError
from nettailor.core.layout import NodeSpec, bring
from nettailor.core.parts import Parts
from nettailor.student.exit import HEAD_EXPANSION, fresh_convolution, fresh_neck


class Replacement(nn.Module):
    """One fresh convolution in the place of removed blocks: same input, same output shape.

    Max-pooling to the output's resolution, as in a proxy, then a 3×3 convolution and batch norm.
    """

    def __init__(self, source: NodeSpec, target: NodeSpec) -> None:
        super().__init__()
        self.source, self.target = source, target
        self.conv = fresh_convolution(source.channels, target.channels, kernel=3)
        self.norm = nn.BatchNorm2d(target.channels)

    def forward(self, x: Tensor) -> Tensor:
        """A node like `source` -> one like `target`."""
        maps = self.target._replace(layout="nchw")
        out: Tensor = self.norm(self.conv(bring(x, self.source, maps)))
        return bring(out, maps, self.target)


def units(stages: Sequence[int], unit: Literal["stages", "blocks"]) -> int:
    """How many stages or blocks a backbone has; one less can be cut off.

    Args:
        stages: the stage of each block, from 0.
    """
    return len(stages) if unit == "blocks" else stages[-1] + 1


def kept_blocks(stages: Sequence[int], unit: Literal["stages", "blocks"], top: int) -> int:
    """How many blocks stay when `top` stages or blocks, 1 to all but one, are cut off the top."""
    if unit == "blocks":
        return len(stages) - top
    return sum(stage <= stages[-1] - top for stage in stages)


def eliminate(chain: Backbone, kept: int, *, replacement: bool) -> Backbone:
    """A chain of the first blocks only; takes over the modules of `chain`.

    Without a replacement, the head is a fresh one on the channels that are left: for inverted
    residuals a 1×1 convolution to 6 times as many, batch norm and activation, then average pooling
    and a linear classifier; the others as in `fresh_neck`. With a replacement, one convolution
    stands for the removed blocks and the pretrained neck stays.

    Args:
        chain: the whole pretrained network, with a classifier for this task.
        kept: how many blocks stay, from 1 to all but one.

    Raises:
        ValueError: `kept` is out of range.
        UserError: a replacement is asked for where tokens are no map.
    """
    if not 1 <= kept < len(chain.blocks):
        raise ValueError(f"cannot keep {kept} of {len(chain.blocks)} blocks")
    specs = node_specs(chain)
    node, last = specs[kept], specs[-1]
    blocks, activations = list(chain.blocks[:kept]), list(chain.activations[:kept])
    stages, neck, classifier = chain.stages[:kept], chain.neck, chain.classifier
    if replacement:
        if last.prefix or not node.leads_to(last):
            raise UserError(
                "a replacement is a convolution, and the tokens after the last block are no map "
                "of the image alone: leave the replacement out"
            )
        blocks.append(Replacement(node, last))
        activations.append(chain.activations[-1])
        stages = (*stages, chain.stages[-1])
    else:
        neck, features = fresh_neck(chain, node, last, HEAD_EXPANSION * node.channels)
        classifier = fresh_classifier(features, chain.classes)
    parts = Parts(chain.family, chain.stem, blocks, activations, neck, classifier, stages)
    return Backbone(parts, example=torch.empty(1, *chain.example, device="meta"))
