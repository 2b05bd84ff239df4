"""The student's loss: cross-entropy, distillation, expected complexity and mimicry."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor.core.backbone import NetOutput
from student.complexity import ExpectedComplexity
from student.mimicry import mimicry
from student.network import Student, StudentOutput

_TEMPERATURE = 2.0  # of the distillation
# Part of the loss that all heads share alike: exits begin untrained beside a head that is not, and
# without it the head would have all the weight before they could answer
_EXPLORED = 0.3


class TailorObjective:
    """L = CE + λ KD + γ1 E[C] + γ2 Ω (NetTailor, section 3.3, and distillation).

    CE and KD are expectations over the heads, Σ w CE_h with w = 0.7 α + 0.3 / heads: the mean of
    several heads' logits would let one that says nothing take a share of the weight at no loss.
    KD = T² KL(teacher ‖ student) at T = 2 (Hinton and others, 2015).

    Holds the teacher as a function, so that no trained module can swallow it.
    """

    def __init__(
        self,
        teacher: Callable[[Tensor], NetOutput],
        *,
        distill: float,
        gamma: float,
        complexity: ExpectedComplexity,
        cost: Tensor,
        mimic: float,
        mimic_scales: Sequence[float],
        label_smoothing: float = 0.0,
    ) -> None:
        """Fix the terms.

        Args:
            teacher: images -> output without gradients, at the nodes of the student's backbone.
            distill: λ ≥ 0; at 0 the term is left out.
            gamma: γ1 ≥ 0; at 0 the term is left out.
            complexity: one of `student.complexity.FORMS`.
            cost: cost of each path over the pretrained total, shape (paths,), on the device.
            mimic: γ2 ≥ 0; at 0 the term is left out.
            mimic_scales: see `student.mimicry.node_scales`.
            label_smoothing: in [0, 1).
        """
        self.teacher = teacher
        self.distill = distill
        self.gamma, self.complexity, self.cost = gamma, complexity, cost
        self.mimic, self.mimic_scales = mimic, mimic_scales
        self.label_smoothing = label_smoothing
        self.terms: tuple[str, ...] = (
            "cross_entropy",
            *(["distillation"] if distill else []),
            *(["complexity"] if gamma else []),
            *(["mimicry"] if mimic else []),
        )

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """See `nettailor.core.objective.Objective`."""
        assert isinstance(network, Student)
        output: StudentOutput = network(images)
        weights = (1 - _EXPLORED) * network.head_weights + _EXPLORED / len(output.by_head)
        terms = [expected_cross_entropy(output, weights, labels, self.label_smoothing)]
        if self.distill or self.mimic:
            target = self.teacher(images)
        if self.distill:
            distances = [divergence(logits, target.logits) for logits in output.by_head]
            terms.append(self.distill * (weights * torch.stack(distances)).sum())
        if self.gamma:
            expected = self.complexity(network.path_weights(), self.cost, network.wiring)
            terms.append(self.gamma * expected)
        if self.mimic:
            mine = NetOutput(output.logits, output.nodes)
            terms.append(self.mimic * mimicry(mine, target, self.mimic_scales))
        return tuple(terms)


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KD = T² KL(teacher ‖ student) at T = 2 of logits (B, classes), a scalar, mean over B."""
    mine, theirs = (
        (logits.float() / _TEMPERATURE).log_softmax(dim=1) for logits in (student, teacher)
    )
    return _TEMPERATURE**2 * F.kl_div(mine, theirs, reduction="batchmean", log_target=True)


def expected_cross_entropy(
    output: StudentOutput, weights: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Σ w CE over the heads, a scalar, in nats.

    Args:
        output: of B images.
        weights: of the heads, shape (heads,), their sum 1.
        labels: shape (B,).
        label_smoothing: in [0, 1).
    """
    losses = [
        F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
        for logits in output.by_head
    ]
    return (weights * torch.stack(losses)).sum()
