"""`python -m nettailor.predict`: name what is on images, by a tailored or an untouched network."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from nettailor.answer_formats import as_csv, as_json, as_table
from nettailor.answering import Failed, Predicted, predict
from nettailor.classifier import (
    Classifier,
    classifier_of_library,
    classifier_of_run,
    untouched_classifier,
)
from nettailor.core.console import UNBROKEN, Screen
from nettailor.core.device import start_accelerator
from nettailor.core.errors import UserError
from nettailor.core.files import write_bytes
from nettailor.core.flags import EXIT_SOME_FAILED, Parser, as_called, run_command
from nettailor.core.image_paths import find_images
from nettailor.core.printable import printable
from nettailor.core.ranks import require_alone
from nettailor.core.reading import Doubts
from nettailor.library import Library

DESCRIPTION = (
    "Say what is on images: the network of a run or of a library's task, or a pretrained one with "
    "its own classes."
)
_TOP = 5
_BACKBONE = "tf_efficientnet_lite0"


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
        type=Path,
        help="the run whose network answers: of any kind, or a folder inside such as "
        "candidates/route-0.260 or student",
    )
    parser.add_argument(
        "--library",
        metavar="FOLDER",
        type=Path,
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
        type=os.path.expanduser,
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
        return classifier_of_run(arguments.run)
    if chosen is None:
        return untouched_classifier(arguments.backbone or _BACKBONE, arguments.weights or "auto")
    if arguments.task is None:
        tasks = ", ".join(Library(arguments.library).tasks) or "none"
        raise UserError(f"--library {arguments.library}: say which --task; there is {tasks}")
    return classifier_of_library(arguments.library, arguments.task)


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
    doubts = Doubts()
    with Screen() as screen:
        bar = screen.start_stage("images", len(images), 0)
        outcomes = predict(
            classifier,
            images,
            top_k=top_k,
            batch_size=arguments.batch_size,
            device=device,
            doubts=doubts,
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
            in_a_file = Console(file=io.StringIO(), force_terminal=False, width=UNBROKEN)
            text = as_table(predicted, screen.console if to_terminal else in_a_file)
    _deliver(text, arguments.output)
    for image in failed:
        print(f"skipped {printable(str(image.path))}: {printable(image.reason)}", file=sys.stderr)
    for line in doubts.lines():
        print(line, file=sys.stderr)
    if failed:
        raise SystemExit(EXIT_SOME_FAILED)


if __name__ == "__main__":
    run_command(main)
