"""What a finished network is judged by: its scores and predictions, and what running it takes."""

import csv
import io
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from nettailor.core.files import write_atomically, write_text
from nettailor.core.footprint import peak_memory, processor_time
from nettailor.core.images import Images
from nettailor.core.latency import BATCHES
from nettailor.core.scores import Predictions, Scores
from nettailor.session import Session

PREDICTIONS_FILE = "predictions.csv"
_COLUMNS = (
    "split", "index", "label", "predicted", "probability", "class", "predicted_class", "file",
)  # fmt: skip
MISTAKES_FOLDER = "mistakes"
_MISTAKES_PER_CLASS = 8
_THUMBNAIL_PIXELS = 96


@dataclass(frozen=True)
class Evidence:
    """The judgement of one network.

    Attributes:
        scores: by split (train, val, test); None where a split was not read.
        latency: {batch: {"median", "iqr"}} in milliseconds on `device`.
        device: where everything was measured.
        cpu_ms: processor time of a forward pass on one image; see
            `nettailor.core.footprint.processor_time`.
        peak_memory: bytes by batch size.
        test_inference: seconds for the whole test split, reading its images included.
    """

    scores: Mapping[str, Scores | None]
    latency: Mapping[str, Mapping[str, float]]
    device: torch.device
    cpu_ms: float
    peak_memory: Mapping[str, int]
    test_inference: float | None


def gather(
    session: Session,
    folder: Path,
    network: nn.Module,
    latency: Mapping[str, Mapping[str, float]],
    *,
    read_test: bool = True,
) -> Evidence:
    """Judge a network, and write its predictions and worst mistakes into its run folder.

    Args:
        folder: gets `predictions.csv` (validation and test) and, where the test is read,
            `mistakes/<index>.png`.
        network: on the device, as it is handed over.
        latency: measured in turn with the networks that it is compared with.
    """
    task, device = session.task, session.accelerator.device
    size = session.preprocessing.image_size
    predictions = {"val": session.classify(network, task.val)}
    seconds: float | None = None
    if read_test:
        started = time.perf_counter()
        predictions["test"] = session.classify(network, task.test)
        seconds = time.perf_counter() - started
        _write_mistakes(folder / MISTAKES_FOLDER, task.test, predictions["test"])
    _write_predictions(folder / PREDICTIONS_FILE, predictions, session)
    return Evidence(
        scores={
            "train": session.classify(network, task.train).scores(),
            "val": predictions["val"].scores(),
            "test": predictions["test"].scores() if read_test else None,
        },
        latency=latency,
        device=device,
        cpu_ms=processor_time(network, size, device),
        peak_memory={
            str(batch): peak_memory(network, size, device, batch=batch) for batch in BATCHES
        },
        test_inference=seconds,
    )


def _top(predictions: Predictions) -> tuple[Tensor, Tensor]:
    """The class that each image is taken for, and its probability: (N,) each."""
    probabilities = predictions.logits.softmax(dim=1).max(dim=1)
    return probabilities.indices, probabilities.values


def _write_predictions(path: Path, by_split: Mapping[str, Predictions], session: Session) -> None:
    names = session.task.classes
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for split, predictions in by_split.items():
        labels = predictions.labels.tolist()
        predicted, probability = (column.tolist() for column in _top(predictions))
        files = [image.file for image in session.images if image.part == split]
        for index, row in enumerate(zip(labels, predicted, probability, files, strict=True)):
            label, guess, sure, file = row
            writer.writerow(
                [split, index, label, guess, f"{sure:.4f}", names[label], names[guess], file]
            )
    write_text(path, text.getvalue())


def _write_mistakes(folder: Path, images: Images, predictions: Predictions) -> None:
    """Small pictures of the test images that are wrong with most confidence, some per class."""
    shutil.rmtree(folder, ignore_errors=True)
    predicted, probability = _top(predictions)
    wrong = (predicted != predictions.labels).nonzero().flatten()
    left = dict.fromkeys(predictions.labels.tolist(), _MISTAKES_PER_CLASS)
    for index in wrong[probability[wrong].argsort(descending=True, stable=True)].tolist():
        label = int(predictions.labels[index])
        if left[label] == 0:
            continue
        left[label] -= 1
        picture, _ = images[index]
        picture.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
        write_atomically(folder / f"{index}.png", partial(picture.save, format="PNG"))
