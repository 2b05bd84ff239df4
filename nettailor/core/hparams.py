"""TensorBoard's table of runs: what a run was made with, and what it came to."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from nettailor.core.printable import printable


def note_figures(
    events: Path, settings: Mapping[str, Any], figures: Mapping[str, float | None]
) -> None:
    """Write a run's row of the HPARAMS page.

    Args:
        events: the folder of the row; rows that it holds go.
        settings: by dotted key; lists are written as text, and those that are null left out.
        figures: by name; those that are None are left out.
    """
    for old in events.glob("events.*"):
        old.unlink()
    told = {
        key: value if isinstance(value, bool | int | float) else printable(str(value))
        for key, value in settings.items()
        if value is not None
    }
    known = {f"result/{name}": value for name, value in figures.items() if value is not None}
    with closing(SummaryWriter(log_dir=str(events))) as writer:
        assert writer.file_writer is not None, "it is not closed yet"
        for summary in hparams(told, known):
            writer.file_writer.add_summary(summary)
        for name, value in known.items():
            writer.add_scalar(name, value)
