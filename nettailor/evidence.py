"""What a finished network is judged by: its scores and predictions, and what running it takes."""

import csv
import io
import itertools
import re
import shutil
import time
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from nettailor.core.files import write_atomically, write_text
from nettailor.core.footprint import peak_memory
from nettailor.core.latency import BATCHES
from nettailor.core.scores import Predictions, Scores
from nettailor.loaders import Loaders

PREDICTIONS_FILE = "predictions.csv"
_COLUMNS = (
    "split", "index", "label", "predicted", "probability", "class", "predicted_class", "file",
    "picture",
)  # fmt: skip
MISTAKES_FOLDER = "mistakes"
_MISTAKES_PER_CLASS = 8
_THUMBNAIL_PIXELS = 96
_LONGEST = 60  # bytes of a class or a file in a picture's name; of most file systems 255 fit


@dataclass(frozen=True)
class Evidence:
    """The judgement of one network.

    Attributes:
        scores: by split (train, val, test); None where a split was not read.
        latency: {batch: {"median", "iqr"}} in milliseconds on `device`.
        device: where everything was measured.
        peak_memory: bytes by batch size.
        test_inference: seconds for the whole test split, reading its images included.
    """

    scores: Mapping[str, Scores | None]
    latency: Mapping[str, Mapping[str, float]]
    device: torch.device
    peak_memory: Mapping[str, int]
    test_inference: float | None


def gather(
    loaders: Loaders,
    folder: Path,
    network: nn.Module,
    latency: Mapping[str, Mapping[str, float]],
    *,
    read_test: bool = True,
) -> Evidence:
    """Judge a network, and write its predictions and worst mistakes into its run folder.

    Args:
        folder: gets `predictions.csv` (validation and test) and, where the test is read,
            `mistakes/<true class>-as-<predicted class>-<file>.png`, named in `predictions.csv`.
        network: on the device, as it is handed over.
        latency: measured in turn with the networks that it is compared with.
    """
    task, device = loaders.task, loaders.accelerator.device
    size = loaders.preprocessing.image_size
    predictions = {"val": loaders.classify(network, task.val)}
    seconds: float | None = None
    pictures: dict[int, str] = {}
    if read_test:
        started = time.perf_counter()
        predictions["test"] = loaders.classify(network, task.test)
        seconds = time.perf_counter() - started
        pictures = _write_mistakes(folder / MISTAKES_FOLDER, predictions["test"], loaders)
    _write_predictions(folder / PREDICTIONS_FILE, predictions, pictures, loaders)
    return Evidence(
        scores={
            "train": loaders.classify(network, task.train).scores(),
            "val": predictions["val"].scores(),
            "test": predictions["test"].scores() if read_test else None,
        },
        latency=latency,
        device=device,
        peak_memory={
            str(batch): peak_memory(network, size, device, batch=batch) for batch in BATCHES
        },
        test_inference=seconds,
    )


def right_on(folder: Path, split: str) -> bytes:
    """Of each image of a split, in its order, 1 where a run's network takes it for its class.

    Empty where the run has no `predictions.csv`.
    """
    path = folder / PREDICTIONS_FILE
    if not path.is_file():
        return b""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return bytes(row["label"] == row["predicted"] for row in rows)


def _top(predictions: Predictions) -> tuple[Tensor, Tensor]:
    """The class that each image is taken for, and its probability: (N,) each."""
    probabilities = predictions.logits.softmax(dim=1).max(dim=1)
    return probabilities.indices, probabilities.values


def _files(loaders: Loaders, part: str) -> list[str]:
    return next(listed.files for listed in loaders.listed if listed.part == part)


def _write_predictions(
    path: Path, by_split: Mapping[str, Predictions], pictures: Mapping[int, str], loaders: Loaders
) -> None:
    """`pictures`: by index of a test image, as `_write_mistakes` gives them."""
    names = loaders.task.classes
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for split, predictions in by_split.items():
        labels = predictions.labels.tolist()
        predicted, probability = (column.tolist() for column in _top(predictions))
        files = _files(loaders, split)
        for index, row in enumerate(zip(labels, predicted, probability, files, strict=True)):
            label, guess, sure, file = row
            picture = pictures.get(index, "") if split == "test" else ""
            told = (names[label], names[guess], file, picture)
            writer.writerow([split, index, label, guess, f"{sure:.4f}", *told])
    write_text(path, text.getvalue())


def _write_mistakes(folder: Path, predictions: Predictions, loaders: Loaders) -> dict[int, str]:
    """Small pictures of the test images that are wrong with most confidence, some per class.

    Returns the name of each picture by the index of its image.
    """
    shutil.rmtree(folder, ignore_errors=True)
    names, files = loaders.task.classes, _files(loaders, "test")
    predicted, probability = _top(predictions)
    wrong = (predicted != predictions.labels).nonzero().flatten()
    left = dict.fromkeys(predictions.labels.tolist(), _MISTAKES_PER_CLASS)
    pictures: dict[int, str] = {}
    for index in wrong[probability[wrong].argsort(descending=True, stable=True)].tolist():
        label, guess = int(predictions.labels[index]), int(predicted[index])
        if left[label] == 0:
            continue
        left[label] -= 1
        words = (names[label], "as", names[guess], Path(files[index]).stem)
        pictures[index] = _free_name("-".join(map(_in_a_name, words)), pictures.values())
        picture, _ = loaders.task.test[index]
        picture.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
        write_atomically(folder / pictures[index], partial(picture.save, format="PNG"))
    return pictures


def _in_a_name(text: str) -> str:
    """What any file system takes: letters, digits, - and _, composed, and not too many."""
    plain = re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", text))
    return plain.encode()[:_LONGEST].decode(errors="ignore")


def _free_name(stem: str, taken: Collection[str]) -> str:
    """The stem, numbered where a system that ignores case would have it twice, as a PNG file."""
    there = {name.casefold() for name in taken}
    numbered = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
    return next(name for stem in numbered if (name := f"{stem}.png").casefold() not in there)
