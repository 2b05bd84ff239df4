"""What a run's network said to each image: `predictions.csv` as it is read back."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nettailor.core.errors import UserError
from nettailor.evidence import PREDICTIONS_FILE

_SPLITS = ("val", "test")
_COLUMNS = ("split", "index", "label", "predicted", "probability")


@dataclass(frozen=True, eq=False)
class Predictions:
    """A split's images by rising index: true and predicted class index, shape (images,).

    pictures: by an image's index, the name of its file in the folder of mistakes, if there is one.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    pictures: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    def confusion(self, classes: int) -> NDArray[np.int64]:
        """Numbers of images, shape (true class, predicted class)."""
        table = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(table, (self.label, self.predicted), 1)
        return table

    def recall(self, classes: int) -> NDArray[np.float64]:
        """Share of each class that was recognised, in %, shape (classes,); NaN without images."""
        table = self.confusion(classes)
        images = table.sum(axis=1)
        share = 100 * np.diagonal(table) / np.maximum(images, 1)
        return np.where(images > 0, share, np.nan)

    def is_right(self) -> Mapping[int, bool]:
        """Whether each image, by its index, was recognised."""
        right = self.label == self.predicted
        return dict(zip(self.index.tolist(), right.tolist(), strict=True))


def read_predictions(folder: Path, classes: int) -> dict[str, Predictions]:
    """Predictions of the validation and test split.

    Raises UserError for a file that is absent or no table of predictions among `classes` classes.
    """
    rows: dict[str, list[tuple[int, int, int]]] = {split: [] for split in _SPLITS}
    pictures: dict[str, dict[int, str]] = {split: {} for split in _SPLITS}
    try:
        path = folder / PREDICTIONS_FILE
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as handle:
            for line, row in enumerate(csv.DictReader(handle), start=2):
                try:
                    found = _row(row, classes)
                    rows[row["split"]].append(found)
                    # runs of earlier versions have numbers for names, and do not write them down
                    if picture := row.get("picture", f"{found[0]}.png"):
                        pictures[row["split"]][found[0]] = _plain(picture)
                except (KeyError, TypeError, ValueError) as error:
                    raise UserError(
                        f"{PREDICTIONS_FILE}, line {line}: not {', '.join(_COLUMNS)} "
                        f"of {classes} classes"
                    ) from error
    except FileNotFoundError as error:
        raise UserError(f"{PREDICTIONS_FILE} is missing") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{PREDICTIONS_FILE} cannot be read") from error
    return {split: _in_order(split, rows[split], pictures[split]) for split in _SPLITS}


def _row(row: Mapping[str, str], classes: int) -> tuple[int, int, int]:
    index, label, predicted = int(row["index"]), int(row["label"]), int(row["predicted"])
    if index < 0 or not (0 <= label < classes and 0 <= predicted < classes):
        raise ValueError("out of range")
    if not 0 <= float(row["probability"]) <= 1:
        raise ValueError("no probability")
    return index, label, predicted


def _plain(name: str) -> str:
    """The name of a file; ValueError for what would lead out of its folder."""
    if Path(name).name != name or name == "..":
        raise ValueError("a path")
    return name


def _in_order(
    split: str, rows: list[tuple[int, int, int]], pictures: Mapping[int, str]
) -> Predictions:
    if not rows:
        raise UserError(f"{PREDICTIONS_FILE} has no rows of the split {split}")
    table = np.array(sorted(rows), dtype=np.int64)
    if len(np.unique(table[:, 0])) < len(table):
        raise UserError(f"{PREDICTIONS_FILE} lists an image of the split {split} twice")
    return Predictions(table[:, 0], table[:, 1], table[:, 2], pictures)
