"""The loss of a network that lost channels: cross-entropy and distillation, inner and outer."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor.core.backbone import NetOutput
from nettailor.core.objective import cross_entropies
from nettailor.student.loss import divergence


class InnerDistillation:
    """L = CE + λ KD + μ Ω (Aflalo and others, 2020, with the distances of this project).

    KD is taken of the logits, see `student.loss.divergence`. Ω = Σ scale_l MSE(x_l, y_l) is
    taken of the activations at block ends, on the channels that are left: what the whole network
    has there besides is no target, and nothing is added to the narrow one.

    Holds the whole network as a function, so that no trained module can swallow it.
    """

    def __init__(
        self,
        whole: Callable[[Tensor], NetOutput],
        *,
        distill: float,
        mimic: float,
        scales: Sequence[float],
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        """Fix the terms.

        Args:
            whole: images -> output without gradients, its nodes those of the narrow network that
                are there, with the channels that are left.
            distill: λ ≥ 0; at 0 the term is left out.
            mimic: μ ≥ 0; at 0 the term is left out.
            scales: of each block end, such as `nettailor.student.mimicry.node_scales` gives.
            label_smoothing: in [0, 1).
            class_weights: of the cross-entropy, see `teacher.objective.CrossEntropy`.
        """
        self.whole = whole
        self.distill, self.mimic, self.scales = distill, mimic, scales
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """See `nettailor.core.objective.Objective`."""
        output = network(images)
        logits = output.logits.float()
        losses = cross_entropies(logits, labels, self.label_smoothing, self.class_weights)
        terms = {"cross_entropy": losses.mean()}
        if self.distill or self.mimic:
            target = self.whole(images)
        if self.distill:
            terms["distillation"] = self.distill * divergence(logits, target.logits)
        if self.mimic:
            _, *mine = (node for node in output.nodes if node is not None)
            _, *theirs = (node for node in target.nodes if node is not None)
            distances = [
                F.mse_loss(one.float(), other.float()) * scale
                for one, other, scale in zip(mine, theirs, self.scales, strict=True)
            ]
            terms["inner_distillation"] = self.mimic * torch.stack(distances).sum()
        return terms


def on_kept_channels(
    whole: Callable[[Tensor], NetOutput], kept: Sequence[Tensor | None]
) -> Callable[[Tensor], NetOutput]:
    """The whole network's output with the channels that a narrow one has.

    Args:
        whole: images -> output.
        kept: where its channels are among those of each node; None for nodes that are not there.
    """

    def target(images: Tensor) -> NetOutput:
        output = whole(images)
        nodes = [
            node[:, left]
            for node, left in zip(output.nodes, kept, strict=True)
            if node is not None and left is not None
        ]
        return NetOutput(output.logits, [*nodes])

    return target
