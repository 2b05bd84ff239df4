"""The softmax weights of the paths into each node."""

import torch
from torch import Tensor, nn

from nettailor.student.wiring import Path, Wiring

BLOCK_START = 2.0
OTHER_START = -2.0
HEAD_START = 0.0


class PathWeights(nn.Module):
    """α = softmax over the paths into each node (NetTailor, section 3.2).

    Starts at a = 2 for pretrained blocks and a = -2 for what may stand in for them, so that with
    three proxies a block carries e² / (e² + 3 e⁻²) = 0.948 of its node. Heads start alike: each is
    judged by a loss of its own, and one that is hardly weighed would not learn.

    Attributes:
        logits: the a of every living path, shape (paths,), in the wiring's order.
    """

    rows: Tensor
    slots: Tensor
    padding: Tensor

    def __init__(self, wiring: Wiring) -> None:
        super().__init__()
        start = [_start(path) for path in wiring.paths]
        self.logits = nn.Parameter(torch.tensor(start))
        groups = [group for group in wiring.incoming if group]
        width = max(len(group) for group in groups)
        # one padded row per living node, so that one softmax serves all of them
        rows = torch.zeros(len(groups), width, dtype=torch.long)
        padding = torch.ones(len(groups), width, dtype=torch.bool)
        slots = torch.zeros(len(wiring.paths), dtype=torch.long)
        for row, group in enumerate(groups):
            for column, position in enumerate(group):
                rows[row, column] = position
                padding[row, column] = False
                slots[position] = row * width + column
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("padding", padding, persistent=False)
        self.register_buffer("slots", slots, persistent=False)

    def forward(self) -> Tensor:
        """The α of every living path, shape (paths,), in (0, 1]; each node's sum to 1."""
        table = self.logits.float()[self.rows].masked_fill(self.padding, float("-inf"))
        return table.softmax(dim=1).flatten()[self.slots]


def _start(path: Path) -> float:
    if path.kind == "block":
        return BLOCK_START
    return HEAD_START if path.kind in ("head", "exit") else OTHER_START
