"""The loss of a narrow network, by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from nettailor.core.backbone import NetOutput
from nettailor.prune.distillation import Distillation


class Fixed(nn.Module):
    """A network that says the same whatever it sees."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, images: Tensor) -> NetOutput:
        return NetOutput(self.logits, [])


def test_each_term_by_hand() -> None:
    # p = 0.9 of the label; at temperature 2 the narrow one says 1/4 and 3/4, the whole one 1/2:
    # KL = ½ log(½ / ¼) + ½ log(½ / ¾) = ½ log 4/3
    objective = Distillation(Fixed([0.0, 0.0]))
    terms = objective(Fixed([0.0, math.log(9)]), torch.zeros(1, 3, 2, 2), torch.tensor([1]))
    assert {name: float(term) for name, term in terms.items()} == pytest.approx({
        "cross_entropy": -math.log(0.9),
        "distillation": 0.5 * 4 * 0.5 * math.log(4 / 3),
    })  # fmt: skip
