"""`python -m nettailor.predict`: name what is on images, by a tailored or an untouched network."""

import argparse
import csv
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from nettailor.classifier import (
    Classifier,
    classifier_of_library,
    classifier_of_run,
    untouched_classifier,
)
from nettailor.core.console import Screen
from nettailor.core.device import place, start_accelerator
from nettailor.core.errors import UserError
from nettailor.core.files import write_bytes
from nettailor.core.flags import EXIT_SOME_FAILED, Parser, as_called, run_command
from nettailor.core.image_paths import find_images
from nettailor.core.images import as_rgb, in_one_line
from nettailor.core.preprocessing import eval_transform
from nettailor.core.printable import printable
from nettailor.core.ranks import require_alone
from nettailor.library import Library

DESCRIPTION = (
    "Say what is on images: the network of a run or of a library's task, or a pretrained one with "
    "its own classes."
)
_TOP = 5
_BACKBONE = "tf_efficientnet_lite0"
# Where Pillow takes an image for an attack. Resizing the shorter side of a strip can end there too.
_MOST_PIXELS = 178_956_970
_UNBROKEN = 1_000_000  # columns: lines in a file are as long as they need to be


@dataclass(frozen=True)
class Predicted:
    """The likeliest classes of one image with their probabilities, falling.

    ms: time to read and prepare this image, and its share of the network's time for its batch.
    """

    path: Path
    ms: float
    predictions: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Failed:
    """An image that could not be read, and why, in one line."""

    path: Path
    reason: str


def predict(
    classifier: Classifier,
    paths: Sequence[Path],
    *,
    top_k: int,
    batch_size: int,
    device: torch.device,
) -> Iterator[Predicted | Failed]:
    """One outcome for each path; predictions keep the order of the paths.

    At most batch_size images are in memory. Raises UserError where the network cannot work on such
    a batch, or computes what is no number.
    """
    transform = eval_transform(classifier.preprocessing)
    shorter_side = classifier.preprocessing.image_size / classifier.preprocessing.crop_pct
    place(classifier.network, device)
    _warm_up(classifier, min(batch_size, len(paths)), top_k, device)
    batch: list[_Prepared] = []
    for position, path in enumerate(paths, 1):
        started = perf_counter()
        try:
            image = transform(_read(path, shorter_side))
        except Exception as fault:  # a decoder fed with broken bytes raises any kind
            yield Failed(path, _reason(fault))
        else:
            batch.append(_Prepared(path, image, perf_counter() - started))
        if batch and (len(batch) == batch_size or position == len(paths)):
            yield from _answers(classifier, batch, top_k, device)
            batch = []


class _Prepared(NamedTuple):
    """An image (3, S, S) that is ready for the network, and the seconds that took."""

    path: Path
    image: Tensor
    seconds: float


def _warm_up(classifier: Classifier, batch_size: int, top_k: int, device: torch.device) -> None:
    """Do once, off the clock, what is slow the first time only."""
    size = classifier.preprocessing.image_size
    shorter_side = size / classifier.preprocessing.crop_pct
    if shorter_side**2 > _MOST_PIXELS:
        raise UserError(
            f"the network asks for images of {shorter_side:.0f} pixels, of which it would see the "
            f"middle {size}: its crop_pct is damaged; restore it"
        )
    try:
        blank = _Prepared(Path(), torch.zeros(3, size, size), 0.0)
        list(_answers(classifier, [blank] * batch_size, top_k, device))
    except RuntimeError as fault:  # out of memory is one
        raise UserError(
            f"the network cannot take {batch_size} images of {size} pixels at once "
            f"({in_one_line(fault)}): give a smaller --batch-size, or check the run's image size"
        ) from fault
    Image.init()
    file = io.BytesIO()
    Image.new("RGB", (2 * size, 2 * size)).save(file, "PNG")
    eval_transform(classifier.preprocessing)(_read(file, shorter_side))


def _answers(
    classifier: Classifier, batch: Sequence[_Prepared], top_k: int, device: torch.device
) -> Iterator[Predicted]:
    started = perf_counter()
    images = torch.stack([prepared.image for prepared in batch])
    probabilities = _probabilities(classifier.network, images, device)
    if not torch.isfinite(probabilities).all():
        raise UserError(
            "the network computes what is no number: its weights are damaged; restore them, or "
            "train again"
        )
    # stable, so that equals always stand in the order of the classes
    falling, order = probabilities.sort(dim=1, descending=True, stable=True)
    share = (perf_counter() - started) / len(batch)
    rows = zip(batch, falling[:, :top_k].tolist(), order[:, :top_k].tolist(), strict=True)
    for (path, _, seconds), values, indices in rows:
        names = [classifier.labels[index] for index in indices]
        yield Predicted(path, 1000 * (seconds + share), tuple(zip(names, values, strict=True)))


def _read(file: Path | io.BytesIO, shorter_side: float) -> Image.Image:
    """The RGB image, decoded as in training; any exception where it cannot be used."""
    # Pillow warns of oddities and large images, neither of which is the user's to mend
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file) as image:
            rgb = as_rgb(image)
    if max(rgb.size) / min(rgb.size) * shorter_side**2 > _MOST_PIXELS:
        raise ValueError(f"{rgb.width} × {rgb.height} pixels are too long a strip to be resized")
    return rgb


def _reason(fault: Exception) -> str:
    match fault:
        case UnidentifiedImageError():
            return "not an image in a known format"
        case OSError(strerror=str(reason)):
            return reason
    return in_one_line(fault)


@torch.inference_mode()
def _probabilities(network: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """(B, classes) in float32 on the CPU for images (B, 3, S, S)."""
    images = images.contiguous(memory_format=torch.channels_last)
    logits: Tensor = network(images.to(device)).logits
    return logits.float().softmax(dim=1).cpu()


def as_csv(predicted: Sequence[Predicted]) -> str:
    """A row for each image and rank: path, rank (from 1), label, probability (0..1), ms."""
    text = io.StringIO(newline="")
    # all text in quotes: to a reader, a bare carriage return in a name would end the row
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    text.write("path,rank,label,probability,ms\n")
    for image in predicted:
        for rank, (label, probability) in enumerate(image.predictions, 1):
            writer.writerow(
                [str(image.path), rank, label, _significant(probability), round(image.ms, 3)]
            )
    return text.getvalue()


def as_json(
    classifier: Classifier, predicted: Sequence[Predicted], failed: Sequence[Failed]
) -> str:
    """{"network", "images": [{"path", "ms", "predictions"}], "failed": [{"path", "reason"}]}."""
    network = {
        **classifier.about,
        "classes": len(classifier.labels),
        "image_size": classifier.preprocessing.image_size,
    }
    images = [
        {
            "path": str(image.path),
            "ms": round(image.ms, 3),
            "predictions": [
                {"label": label, "probability": _significant(probability)}
                for label, probability in image.predictions
            ],
        }
        for image in predicted
    ]
    failures = [{"path": str(image.path), "reason": image.reason} for image in failed]
    return json.dumps({"network": network, "images": images, "failed": failures}, indent=2) + "\n"


def as_table(predicted: Sequence[Predicted], console: Console) -> str:
    """A table as wide as the console allows; longer names go on in the next line."""
    table = Table(header_style="bold")
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability %", justify="right", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    for image in predicted:
        name, took = printable(str(image.path)), f"{image.ms:.1f}"
        for label, probability in image.predictions:
            chance = f"{100 * probability:.2f}"
            table.add_row(Text(name), Text(printable(label)), chance, took)
            name = took = ""
        if len(image.predictions) > 1:
            table.add_section()
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def _significant(probability: float) -> float:
    """Six digits, which is what float32 holds, however small it is."""
    return float(f"{probability:.6g}")


def _deliver(text: str, output: Path | None) -> None:
    """Write to a file, atomically, or to standard output; names that are no text keep their bytes.

    Raises UserError where that fails, save for a reader that has seen enough.
    """
    content = text.encode("utf-8", "surrogateescape")
    if output is not None:
        write_bytes(output, content)
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except OSError as error:
        # what the buffer still holds would fail once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UserError(f"cannot write to standard output: {error.strerror}") from error


def _at_least_one(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return number


def _build_parser() -> Parser:
    parser = Parser(
        prog=as_called("python -m nettailor.predict"),
        description=DESCRIPTION,
        allow_abbrev=False,
        epilog="The ms of an image is the time to read and prepare it plus its share of the "
        "network's time for its batch, after one unmeasured pass to warm up. Images that cannot be "
        "read are named on standard error and skipped. Exit codes: 0 done, 2 bad input, 4 some "
        "images could not be read, 130 or 143 interrupted.",
    )
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="files, folders (searched recursively for images, without hidden ones), patterns such "
        "as 'photos/*.jpg'; a file that is reached twice counts once",
    )
    parser.add_argument(
        "--run",
        metavar="FOLDER",
        help="the run whose network answers: of any kind, or a folder inside such as "
        "candidates/remove-08 or student",
    )
    parser.add_argument(
        "--library",
        metavar="FOLDER",
        help="the library of task packs whose --task answers",
    )
    parser.add_argument("--task", metavar="NAME", help="the task's name in the library")
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="without --run and --library: the timm network that answers, untouched, with its own "
        f"ImageNet classes (unless set: {_BACKBONE})",
    )
    parser.add_argument(
        "--weights",
        metavar="SOURCE",
        help="of the backbone: auto, package, hub, or a file's path (unless set: auto)",
    )
    parser.add_argument(
        "--top-k",
        metavar="N",
        type=_at_least_one,
        help=f"classes per image, the likeliest first (unless set: {_TOP}, or all where there are "
        "fewer)",
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="write there instead of to standard output",
    )
    parser.add_argument(
        "--batch-size", metavar="N", type=_at_least_one, default=32, help="unless set: 32"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser


def _check_output(output: Path, images: Sequence[Path]) -> None:
    """Raise UserError where the results could not, or must not, be written in the end."""
    if output.exists() and not output.is_file():
        raise UserError(f"--output {output} is there and no file: give a file's name")
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--output {output}: nothing can be written in {folder}; choose another")
    if os.path.realpath(output) in map(os.path.realpath, images):
        raise UserError(f"--output {output} is one of the images: choose another file")


def _choose_classifier(arguments: argparse.Namespace) -> Classifier:
    chosen = next(
        (flag for flag in ("run", "library") if getattr(arguments, flag) is not None), None
    )
    for flag in ("library", "backbone", "weights"):
        if chosen not in (None, flag) and getattr(arguments, flag) is not None:
            has = "a run has its own network" if chosen == "run" else "its tasks have their own"
            raise UserError(f"--{chosen} and --{flag} were both given: {has}; leave one out")
    if chosen != "library" and arguments.task is not None:
        raise UserError("--task is the name of a library's task: give --library as well")
    if chosen == "run":
        return classifier_of_run(Path(arguments.run))
    if chosen is None:
        return untouched_classifier(arguments.backbone or _BACKBONE, arguments.weights or "auto")
    if arguments.task is None:
        tasks = ", ".join(Library(arguments.library).tasks) or "none"
        raise UserError(f"--library {arguments.library}: say which --task; there is {tasks}")
    return classifier_of_library(Path(arguments.library), arguments.task)


def main(argv: Sequence[str]) -> None:
    """Run the command; SystemExit with 4 when some images could not be read."""
    require_alone()
    arguments = _build_parser().parse_intermixed_args(list(argv))
    device = start_accelerator(arguments.device, "float32").device
    images = find_images(arguments.images)
    if arguments.output is not None:
        _check_output(arguments.output, images)
    classifier = _choose_classifier(arguments)
    classes = len(classifier.labels)
    top_k = min(_TOP, classes) if arguments.top_k is None else arguments.top_k
    if top_k > classes:
        raise UserError(f"--top-k {top_k}: expected 1 to {classes}, the number of classes")
    predicted: list[Predicted] = []
    failed: list[Failed] = []
    with Screen() as screen:
        bar = screen.start_stage("images", len(images), 0)
        outcomes = predict(
            classifier, images, top_k=top_k, batch_size=arguments.batch_size, device=device
        )
        for done, outcome in enumerate(outcomes, 1):
            if isinstance(outcome, Failed):
                failed.append(outcome)
            else:
                predicted.append(outcome)
            screen.advance(bar, done, "")
        screen.end_stage(bar)
    match arguments.format:
        case "csv":
            text = as_csv(predicted)
        case "json":
            text = as_json(classifier, predicted, failed)
        case _:
            to_terminal = arguments.output is None and screen.console.is_terminal
            in_a_file = Console(file=io.StringIO(), force_terminal=False, width=_UNBROKEN)
            text = as_table(predicted, screen.console if to_terminal else in_a_file)
    _deliver(text, arguments.output)
    for image in failed:
        print(f"skipped {printable(str(image.path))}: {printable(image.reason)}", file=sys.stderr)
    if failed:
        raise SystemExit(EXIT_SOME_FAILED)


if __name__ == "__main__":
    run_command(main)
