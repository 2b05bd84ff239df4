"""How a run went, epoch by epoch: `metrics.csv` as it is read back."""

import csv
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from nettailor.core.errors import UserError
from nettailor.core.run_folder import METRICS_FILE


@dataclass(frozen=True)
class Epoch:
    """Validation after one epoch of a stage: accuracy in %, loss in nats."""

    stage: str
    accuracy: float
    loss: float


def read_epochs(folder: Path) -> tuple[Epoch, ...]:
    """All epochs of a run, in order; raises UserError for a file that is absent or damaged."""
    epochs = []
    try:
        with (folder / METRICS_FILE).open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                epoch = Epoch(row["stage"], float(row["val_accuracy"]), float(row["val_loss"]))
                if not isfinite(epoch.accuracy + epoch.loss):
                    raise ValueError("not finite")
                epochs.append(epoch)
    except FileNotFoundError as error:
        raise UserError(f"{METRICS_FILE} is missing") from error
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{METRICS_FILE} is no table of epochs") from error
    if not epochs:
        raise UserError(f"{METRICS_FILE} has no epochs")
    return tuple(epochs)
