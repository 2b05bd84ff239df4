"""What was written: the file as a network that answers here, and how it compares with its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from rich.table import Table
from torch import Tensor, nn

from nettailor.core.backbone import NetOutput
from nettailor.core.errors import UserError
from nettailor.core.modes import evaluating

TOLERANCE = 1e-4  # of the largest logit, float32


class Loaded(nn.Module):
    """What a runtime computes from a file's content."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        """`answer` takes normalised images (B, 3, S, S) on the CPU to logits (B, classes)."""
        super().__init__()
        self._answer = answer
        self.eval()  # so that nobody puts what answers back into training mode

    def forward(self, images: Tensor) -> NetOutput:
        """The logits; a file has no nodes."""
        return NetOutput(self._answer(images), [])


@torch.inference_mode()
def difference(network: nn.Module, other: nn.Module, batches: Sequence[Tensor]) -> float:
    """The largest difference of two networks' logits over the largest logit of the first.

    Infinity where one of them gives what is no number.

    Args:
        network, other: their outputs have logits (B, classes).
        batches: normalised images (B, 3, S, S), on the networks' device.
    """
    worst = largest = 0.0
    with evaluating(network, other):
        for images in batches:
            expected = network(images).logits
            found = other(images).logits
            worst = max(worst, float((found - expected).abs().nan_to_num(torch.inf).max()))
            largest = max(largest, float(expected.abs().max()))
    return worst / largest if largest else float(worst > 0)


def require_parity(name: str, worst: float) -> None:
    """Raise UserError where a file's outputs are not those of the network that it was made of."""
    if not worst <= TOLERANCE:
        raise UserError(
            f"{name}: its outputs differ from the network's by {worst:.1e} of the largest logit, "
            f"expected at most {TOLERANCE:.0e}; nothing was written: export on another version of "
            "torch, or in another format"
        )


class Written(NamedTuple):
    """An exported file.

    size: in bytes. over_weights: the size over 4 bytes for every parameter.
    parity: its largest difference from the network's logits over the largest of them; for int8 the
    validation accuracy in % is given instead, by runtime, and the network's own under "float".
    latency: milliseconds at batch 1, the median.
    """

    name: str
    size: int
    over_weights: float
    parity: float | None
    latency: float | None
    accuracy: Mapping[str, float] | None = None

    @property
    def outputs(self) -> str:
        """How its outputs compare, in words."""
        if self.accuracy is not None:
            shares = [f"{share:.2f} % in {name}" for name, share in self.accuracy.items()]
            return f"on validation {', '.join(shares)}"
        return "–" if self.parity is None else f"differ by {self.parity:.1e}"


def table_of(written: Sequence[Written]) -> Table:
    """The files, a row each."""
    table = Table(header_style="bold")
    table.add_column("file")
    for column in ("bytes", "over the weights'", "latency, batch 1, ms", "outputs"):
        table.add_column(column, justify="right")
    for file in written:
        table.add_row(
            file.name,
            f"{file.size:,}",
            f"{file.over_weights:.2f}×",
            f"{file.latency:.3f}",
            file.outputs,
        )
    return table
