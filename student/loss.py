"""The student's loss: cross-entropy, distillation, expected complexity and mimicry."""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor.core.backbone import Backbone, NetOutput, node_specs
from nettailor.core.errors import UserError
from nettailor.core.objective import cross_entropies
from nettailor.student.complexity import FORMS, ExpectedComplexity
from nettailor.student.costs import shares_of
from nettailor.student.mimicry import DEFAULT_MIMIC, MimicryForm, form_for, mean_scales, mimicry
from nettailor.student.network import Student, StudentOutput
from nettailor.student.wiring import Wiring
from nettailor.teacher.target import as_target

_TEMPERATURE = 2.0  # of the distillation
# Part of the loss that all heads share alike: exits begin untrained beside a head that is not, and
# without it the head would have all the weight before they could answer
_EXPLORED = 0.3


class TailorLoss:
    """L = CE + λ KD + γ1 E[C] + γ2 Ω (NetTailor, section 3.3, and distillation), term by term.

    CE and KD are expectations over the heads, Σ w CE_h with w = 0.7 α + 0.3 / heads: the mean of
    several heads' logits would let one that says nothing take a share of the weight at no loss.
    KD = T² KL(teacher ‖ student) at T = 2 (Hinton and others, 2015).

    Holds the teacher as a function, so that no trained module can swallow it.
    """

    def __init__(
        self,
        teacher: Backbone,
        *,
        gamma: float = 0.3,
        distill: float = 0.5,
        mimic: float | None = None,
        complexity: Literal["route", "published"] = "route",
        mimicry: MimicryForm | Literal["auto"] = "auto",
        costs: Callable[[Student], Sequence[float]] | None = None,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        """Nothing is computed yet.

        Args:
            teacher: fine-tuned; it stays as it is.
            gamma: γ1 ≥ 0; at 0 the term is left out.
            distill: λ ≥ 0; at 0 the term is left out.
            mimic: γ2 ≥ 0; at 0 the term is left out; None: `DEFAULT_MIMIC` of the form.
            complexity: form of E[C], see `nettailor.student.complexity`.
            mimicry: form of Ω, see `nettailor.student.mimicry.node_scales`; auto: mean-square for
                ResNets, else normalized.
            costs: of each path of a student in the wiring's order, as a share of the whole
                backbone's; None: multiply-adds at the size of the images.
            label_smoothing: in [0, 1).
            class_weights: of the cross-entropy, see `expected_cross_entropy`.
        """
        self.teacher = as_target(teacher)
        if mimicry == "auto":
            mimicry = form_for(teacher.family)
        self.gamma, self.distill = gamma, distill
        self.mimic = DEFAULT_MIMIC[mimicry] if mimic is None else mimic
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.scales: Tensor | None = None
        self._mimicry, self._complexity, self._costs = mimicry, complexity, costs
        self.backbone = teacher
        self._expected: tuple[Wiring, ExpectedComplexity] | None = None

    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Fix the scales of Ω by the teacher's activations on images (B, C, S, S) on its device.

        Without it they are those of the first batch.
        """
        scales = mean_scales(self._mimicry, (self.teacher(images) for images in batches))
        device = next(self.backbone.parameters()).device
        self.scales = torch.tensor(scales, device=device)

    def expected_cost(self, student: Student, image_size: int) -> ExpectedComplexity:
        """α (paths,) -> E[C], a scalar: the share of the backbone's cost that is expected.

        Args:
            student: of the teacher's backbone.
            image_size: side of the images in pixels.

        Raises:
            UserError: the student has fewer channels than the backbone.
        """
        if self._expected is None or self._expected[0] is not student.wiring:
            _require_its_channels(student, self.backbone)
            if self._costs is None:
                costs = shares_of(student, self.backbone, image_size, "flops").paths
            else:
                costs = list(self._costs(student))
            share = torch.tensor(costs, device=student.path_weights.logits.device)
            self._expected = student.wiring, FORMS[self._complexity](share, student.wiring)
        return self._expected[1]

    def after_cut(self, *, mimicry: bool = False) -> Self:
        """The same loss without E[C], for what is left after a cut.

        mimicry: Ω goes on, as published; after a cut by route it cost accuracy.
        """
        loss = copy(self)
        loss.gamma, loss._expected = 0.0, None
        loss.mimic = self.mimic if mimicry else 0.0
        return loss

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Weighted terms by name, each a scalar with its gradient; the loss is their sum.

        Args:
            network: a `Student` of the teacher's backbone.
            images: (B, C, S, S), on the device of student and teacher.
            labels: (B,).
        """
        if not isinstance(network, Student):
            raise UserError(
                f"TailorLoss is of an nt.Student, and this is a {type(network).__name__}: "
                "give nt.CrossEntropy() or a loss of your own"
            )
        output: StudentOutput = network(images)
        by_head = torch.stack(output.by_head).float()
        share = network.of_heads(output.alpha)
        weights = (1 - _EXPLORED) * share + _EXPLORED / len(by_head)
        terms = {
            "cross_entropy": expected_cross_entropy(
                by_head, weights, labels, self.label_smoothing, self.class_weights
            )
        }
        if self.distill or self.mimic:
            target = self.teacher(images)
        if self.distill:
            distances = divergence(by_head, target.logits)
            terms["distillation"] = self.distill * (weights * distances).sum()
        if self.gamma:
            expected = self.expected_cost(network, images.shape[-1])
            terms["complexity"] = self.gamma * expected(output.alpha)
        if self.mimic:
            if self.scales is None:
                self.calibrate([images])
            assert self.scales is not None, "it was calibrated just now"
            mine = NetOutput(output.logits, output.nodes)
            terms["mimicry"] = self.mimic * mimicry(mine, target, self.scales)
        return terms


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


def _require_its_channels(student: Student, teacher: Backbone) -> None:
    mine, theirs = ([node.channels for node in one] for one in (student.specs, node_specs(teacher)))
    if mine != theirs:
        raise UserError(
            f"the student's nodes have {mine} channels and the teacher's {theirs}: expected equal "
            "ones for E[C]; give loss.after_cut()"
        )
