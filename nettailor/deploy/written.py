"""What was written, and how it compares with the network."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.table import Table


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
