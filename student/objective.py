"""The student's loss: cross-entropy, expected complexity and mimicry of the teacher."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nettailor.core.backbone import NetOutput
from student.complexity import ExpectedComplexity
from student.mimicry import mimicry
from student.network import Student


class TailorObjective:
    """L = CE + γ1 E[C] + γ2 Ω (NetTailor, section 3.3).

    Holds the teacher as a function, so that no trained module can swallow it.
    """

    def __init__(
        self,
        teacher: Callable[[Tensor], NetOutput],
        *,
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
            gamma: γ1 ≥ 0; at 0 the term is left out.
            complexity: published or reachability.
            cost: cost of each path over the pretrained total, shape (paths,), on the device.
            mimic: γ2 ≥ 0; at 0 the term is left out and the teacher is not run.
            mimic_scales: see `student.mimicry.node_scales`.
            label_smoothing: in [0, 1).
        """
        self.teacher = teacher
        self.gamma, self.complexity, self.cost = gamma, complexity, cost
        self.mimic, self.mimic_scales = mimic, mimic_scales
        self.label_smoothing = label_smoothing
        self.terms: tuple[str, ...] = (
            "cross_entropy",
            *(["complexity"] if gamma else []),
            *(["mimicry"] if mimic else []),
        )

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """See `nettailor.core.objective.Objective`."""
        assert isinstance(network, Student)
        output: NetOutput = network(images)
        smoothing = self.label_smoothing
        terms = [F.cross_entropy(output.logits.float(), labels, label_smoothing=smoothing)]
        if self.gamma:
            expected = self.complexity(network.path_weights(), self.cost, network.wiring)
            terms.append(self.gamma * expected)
        if self.mimic:
            terms.append(self.mimic * mimicry(output, self.teacher(images), self.mimic_scales))
        return tuple(terms)
