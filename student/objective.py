"""The student's loss: cross-entropy, distillation, expected complexity and mimicry."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor.core.backbone import NetOutput
from nettailor.core.objective import cross_entropies
from nettailor.student.complexity import ExpectedComplexity
from nettailor.student.mimicry import mimicry
from nettailor.student.network import Student, StudentOutput

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
        mimic: float,
        mimic_scales: Tensor,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        """Fix the terms.

        Args:
            teacher: images -> output without gradients, at the nodes of the student's backbone.
            distill: λ ≥ 0; at 0 the term is left out.
            gamma: γ1 ≥ 0; at 0 the term is left out.
            complexity: one of `student.complexity.FORMS`, of the student's wiring and costs.
            mimic: γ2 ≥ 0; at 0 the term is left out.
            mimic_scales: as `student.mimicry.node_scales` gives them, (L + 1,), on the device.
            label_smoothing: in [0, 1).
            class_weights: of the cross-entropy, see `expected_cross_entropy`.
        """
        self.teacher = teacher
        self.distill = distill
        self.gamma, self.complexity = gamma, complexity
        self.mimic, self.mimic_scales = mimic, mimic_scales
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
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
        by_head = torch.stack(output.by_head).float()
        share = network.of_heads(output.alpha)
        weights = (1 - _EXPLORED) * share + _EXPLORED / len(by_head)
        terms = [
            expected_cross_entropy(
                by_head, weights, labels, self.label_smoothing, self.class_weights
            )
        ]
        if self.distill or self.mimic:
            target = self.teacher(images)
        if self.distill:
            distances = divergence(by_head, target.logits)
            terms.append(self.distill * (weights * distances).sum())
        if self.gamma:
            terms.append(self.gamma * self.complexity(output.alpha))
        if self.mimic:
            mine = NetOutput(output.logits, output.nodes)
            terms.append(self.mimic * mimicry(mine, target, self.mimic_scales))
        return tuple(terms)


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KD = T² KL(teacher ‖ student) at T = 2, mean over the B images.

    Args:
        student: logits (…, B, classes), such as those of several heads.
        teacher: logits (B, classes).

    Returns:
        Shape (…), of one head a scalar.
    """
    mine, theirs = (
        (logits.float() / _TEMPERATURE).log_softmax(dim=-1) for logits in (student, teacher)
    )
    apart = F.kl_div(mine, theirs.expand_as(mine), reduction="none", log_target=True)
    return _TEMPERATURE**2 / len(teacher) * apart.sum(dim=(-2, -1))


def expected_cross_entropy(
    by_head: Tensor,
    weights: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Σ w CE over the heads, a scalar, in nats.

    Args:
        by_head: logits (heads, B, classes), float32.
        weights: of the heads, shape (heads,), their sum 1.
        labels: shape (B,).
        label_smoothing: in [0, 1).
        class_weights: what an image of each class weighs, (classes,); None: all 1.
    """
    repeated = labels.repeat(len(by_head))
    losses = cross_entropies(by_head.flatten(0, 1), repeated, label_smoothing, class_weights)
    return (weights * losses.view(len(by_head), -1).mean(dim=1)).sum()
