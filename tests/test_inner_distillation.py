"""The loss of a narrow network, by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from nettailor.core.backbone import NetOutput
from nettailor.prune.inner_distillation import InnerDistillation, on_kept_channels


class Fixed(nn.Module):
    """A network that says the same whatever it sees."""

    def __init__(self, logits: list[float], nodes: list[Tensor | None]) -> None:
        super().__init__()
        self.logits, self.nodes = torch.tensor([logits]), nodes

    def forward(self, images: Tensor) -> NetOutput:
        return NetOutput(self.logits, self.nodes)


def node(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, -1, 1, 1)


WHOLE = Fixed([0.0, 0.0], [node(1, 2), None, node(3, 4, 5), node(6)])
KEPT = [torch.tensor([1]), None, torch.tensor([0, 2]), torch.tensor([0])]
NARROW = Fixed([0.0, math.log(9)], [node(9), None, node(4, 3), node(8)])
IMAGES, LABELS = torch.zeros(1, 3, 2, 2), torch.tensor([1])


def loss(**weights: float) -> dict[str, float]:
    objective = InnerDistillation(
        on_kept_channels(WHOLE, KEPT), scales=[1.0, 0.5], **{"distill": 0, "mimic": 0} | weights
    )
    terms = objective(NARROW, IMAGES, LABELS)
    return {name: float(term) for name, term in terms.items()}


def test_only_the_channels_that_are_left_are_targets() -> None:
    nodes = on_kept_channels(WHOLE, KEPT)(IMAGES).nodes
    assert [one.flatten().tolist() for one in nodes if one is not None] == [[2], [3, 5], [6]]


def test_each_term_by_hand() -> None:
    # p = 0.9 of the label; at temperature 2 the narrow one says 1/4 and 3/4, the whole one 1/2:
    # KL = ½ log(½ / ¼) + ½ log(½ / ¾) = ½ log 4/3. Block ends: ((4-3)² + (3-5)²) / 2, (8-6)²; the
    # stem's output, 9 beside 2, is no block's end
    assert loss(distill=0.5, mimic=2.0) == pytest.approx({
        "cross_entropy": -math.log(0.9),
        "distillation": 0.5 * 4 * 0.5 * math.log(4 / 3),
        "inner_distillation": 2.0 * (1.0 * 2.5 + 0.5 * 4.0),
    })  # fmt: skip


def test_weights_of_zero_leave_terms_out() -> None:
    assert loss().keys() == {"cross_entropy"}
    assert loss(distill=1.0).keys() == {"cross_entropy", "distillation"}
    assert loss(mimic=1.0).keys() == {"cross_entropy", "inner_distillation"}
