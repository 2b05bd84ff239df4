"""The runs of a comparison: found, read whole, and checked to be of one task."""

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nettailor.core.config import RunConfig, as_settings, flat
from nettailor.core.errors import UserError
from nettailor.core.faults import shown
from nettailor.core.run_folder import METRICS_FILE, STUDY_FILE, RunFolder
from nettailor.core.run_settings import CONFIG_FILE, read_config
from nettailor.core.torchvision_sets import SET_NAMES
from nettailor.evidence import PREDICTIONS_FILE
from nettailor.report.summary import Figures, Summary, read_summary

_TASK_KEYS = (
    "crop_pct", "split.val", "split.test", "split.seed", "split.group_by", "limit.train",
    "limit.test",
)  # fmt: skip
_EPOCHS: dict[str, type] = {"stage": str, "val_accuracy": float, "val_loss": float}
_PREDICTIONS: dict[str, type] = {
    "split": str, "index": int, "label": int, "predicted": int, "probability": float,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run, read whole.

    settings: by dotted key. epochs: a row an epoch of all stages, with the columns stage,
    val_accuracy (%) and val_loss (nats). predictions: by split, "val" and "test", a row an image,
    indexed by its number in the split, with the class indices label and predicted as columns.
    """

    folder: Path
    summary: Summary
    settings: Mapping[str, Any]
    epochs: pd.DataFrame
    predictions: Mapping[str, pd.DataFrame]

    @property
    def teacher(self) -> Figures:
        """What ratios are over: the teacher as measured in turn with this run."""
        return self.summary.teacher or self.summary


@dataclass(frozen=True)
class LeftOut:
    """A run folder that cannot be compared, and why."""

    folder: Path
    reason: str


def task_name(data: str) -> str:
    """The task that the setting `data` names, whatever its spelling."""
    names = {name.lower(): name for name in ("digits", *SET_NAMES)}
    return names.get(data.lower()) or Path(data).resolve().name


def read_runs(
    folders: Sequence[Path], image_size: int | None = None
) -> tuple[list[Run], list[LeftOut]]:
    """All runs at any depth under the folders, or that the folders are, in order of their paths.

    Nothing inside a run folder counts as another run. Runs that have not finished, that are
    damaged, or of another than the given image size are left out, with the reason.

    Raises UserError for a folder that is absent.
    """
    runs: dict[Path, Run] = {}
    left_out: dict[Path, LeftOut] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"{folder}: no such folder; give run folders or folders that hold runs, or make "
                "some first: python -m nettailor.teach"
            )
        for place in _run_folders(folder):
            try:
                runs[place.resolve()] = _read_run(place, image_size)
            except UserError as error:
                left_out[place.resolve()] = LeftOut(place, str(error))
    return list(runs.values()), list(left_out.values())


def _run_folders(root: Path) -> Iterator[Path]:
    """Every folder with settings, from `root` downwards; what lies inside one belongs to it.

    A folder that may not be read is one of them: what it holds is not known.
    """
    closed: list[OSError] = []
    for place, inner, files in os.walk(root, onerror=closed.append):
        if STUDY_FILE in files:
            inner.clear()  # its trials are no runs until they are moved
            continue
        if CONFIG_FILE in files:
            inner.clear()
            yield Path(place)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        # links are not followed, but a run may be one
        links = (Path(place, name) for name in inner if os.path.islink(os.path.join(place, name)))
        yield from (link for link in links if (link / CONFIG_FILE).is_file())
    for error in closed:
        yield Path(error.filename)


def _read_run(folder: Path, image_size: int | None) -> Run:
    """Raises UserError with the reason why the run cannot be compared."""
    settings = read_config(folder / CONFIG_FILE)
    if not isinstance(settings.get("data"), str):
        raise UserError(f"damaged: {CONFIG_FILE} holds no settings of a run")
    if image_size is not None and settings.get("image_size", image_size) != image_size:
        raise UserError(f"another image size: {shown(settings['image_size'])}")
    try:
        if not RunFolder(folder).finished:
            raise UserError("not finished; the command that began it goes on with it")
        summary = read_summary(folder)
        predictions = _read_predictions(folder, len(summary.classes))
        return Run(folder, summary, flat(settings), _read_epochs(folder), predictions)
    except UserError as error:
        unfinished = str(error).startswith("not finished")
        raise UserError(str(error) if unfinished else f"damaged: {error}") from error


def _read_table(path: Path, columns: Mapping[str, type]) -> pd.DataFrame:
    """These columns of a CSV file; raises UserError where it is absent or no such table."""
    try:
        # the columns that are not read may hold the names of files in any encoding
        table = pd.read_csv(
            path, usecols=list(columns), dtype=dict(columns),
            keep_default_na=False, encoding_errors="replace",
        )  # fmt: skip
        if not np.isfinite(table.select_dtypes("number")).all(axis=None):
            raise ValueError("not finite")
    except FileNotFoundError as error:
        raise UserError(f"{path.name} is missing") from error
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path.name} is no table of {', '.join(columns)}") from error
    return table


def _read_epochs(folder: Path) -> pd.DataFrame:
    table = _read_table(folder / METRICS_FILE, _EPOCHS)
    if table.empty:
        raise UserError(f"{METRICS_FILE} has no epochs")
    return table


def _read_predictions(folder: Path, classes: int) -> dict[str, pd.DataFrame]:
    table = _read_table(folder / PREDICTIONS_FILE, _PREDICTIONS)
    whole = table["index"] >= 0
    whole &= table["label"].between(0, classes - 1) & table["predicted"].between(0, classes - 1)
    whole &= table["probability"].between(0, 1) & table["split"].isin(["val", "test"])
    if not whole.all():
        line = int(whole.argmin()) + 2
        raise UserError(f"{PREDICTIONS_FILE}, line {line}: no prediction among {classes} classes")
    found = {}
    for split in ("val", "test"):
        rows = table[table["split"] == split].set_index("index").sort_index()
        if rows.empty:
            raise UserError(f"{PREDICTIONS_FILE} has no rows of the split {split}")
        if not rows.index.is_unique:
            raise UserError(f"{PREDICTIONS_FILE} lists an image of the split {split} twice")
        found[split] = rows[["label", "predicted"]]
    return found


def _task_of(run: Run) -> dict[str, object]:
    """What all runs of a comparison must share, the most telling first."""
    summary = run.summary
    task: dict[str, object] = {
        "dataset": summary.dataset,
        "number of classes": len(summary.classes),
        **{f"class {index}": name for index, name in enumerate(summary.classes)},
        "image_size": summary.image_size,
        "data": task_name(run.settings["data"]),
        **{key: run.settings.get(key) for key in _TASK_KEYS},
    }
    for split, predictions in run.predictions.items():
        task[f"number of {split} images"] = len(predictions)
        # the same number of other images is another split, too
        content = predictions["label"].reset_index().to_numpy().tobytes()
        task[f"checksum of the {split} images' labels"] = f"{zlib.crc32(content):08x}"
    return task


def require_settings(runs: Sequence[Run], config: RunConfig) -> None:
    """Raise UserError where a run is of another task than runs of these settings would be."""
    asked = flat(as_settings(config))
    for run in runs:
        for key in _TASK_KEYS:
            if run.settings.get(key) != asked[key]:
                raise UserError(
                    f"{run.folder} cannot be compared with runs of these settings: {key} is "
                    f"{shown(run.settings.get(key))} there and {shown(asked[key])} here; give the "
                    "same settings or another --out"
                )


def require_one_task(runs: Sequence[Run]) -> None:
    """Raise UserError, with the first difference, unless all runs are of one task."""
    first, *others = runs
    expected = _task_of(first)
    for other in others:
        for key, value in _task_of(other).items():
            if value != expected[key]:
                raise UserError(
                    f"these runs are not of one task: {key} is {shown(expected[key])} in "
                    f"{first.folder} and {shown(value)} in {other.folder}; give the folders to "
                    "compare, such as runs/digits/*/*-64px-*"
                )
