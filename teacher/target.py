"""The teacher as the student sees it: a function, nobody's child module."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nettailor.core.backbone import NetOutput


def as_target(teacher: nn.Module) -> Callable[[Tensor], NetOutput]:
    """A fine-tuned network as a function without gradients.

    The network goes into eval mode whenever it is asked. Because no module holds the function's
    network, no student's `train()`, `parameters()` or `state_dict()` reaches it.

    Args:
        teacher: gives logits and nodes, as a `Backbone` does.

    Returns:
        images (B, 3, S, S) -> logits (B, classes) and nodes x_0 … x_L.
    """

    def target(images: Tensor) -> NetOutput:
        teacher.eval()
        with torch.no_grad():
            output = teacher(images)
        return NetOutput(output.logits, output.nodes)

    return target
