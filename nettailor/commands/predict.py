"""`python -m nettailor.predict`: name what is on images, by a tailored or an untouched network."""

import io
import os
import sys
from argparse import Namespace
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
from nettailor.cli.predict import BACKBONE, TOP
from nettailor.core.console import UNBROKEN, Screen
from nettailor.core.device import start_accelerator
from nettailor.core.errors import UserError
from nettailor.core.files import write_bytes
from nettailor.core.flags import EXIT_SOME_FAILED
from nettailor.core.image_paths import find_images
from nettailor.core.printable import printable
from nettailor.core.reading import Doubts
from nettailor.library import Library


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


def _check_output(output: Path, images: Sequence[Path]) -> None:
    """Raise UserError where the results could not, or must not, be written in the end."""
    if output.exists() and not output.is_file():
        raise UserError(f"--output {output} is there and no file: give a file's name")
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--output {output}: nothing can be written in {folder}; choose another")
    if os.path.realpath(output) in map(os.path.realpath, images):
        raise UserError(f"--output {output} is one of the images: choose another file")


def _choose_classifier(arguments: Namespace) -> Classifier:
    if arguments.run is not None:
        return classifier_of_run(arguments.run)
    if arguments.library is None:
        return untouched_classifier(arguments.backbone or BACKBONE, arguments.weights or "auto")
    if arguments.task is None:
        tasks = ", ".join(Library(arguments.library).tasks) or "none"
        raise UserError(f"--library {arguments.library}: say which --task; there is {tasks}")
    return classifier_of_library(arguments.library, arguments.task)


def execute(arguments: Namespace) -> None:
    """Run the command; SystemExit with 4 when some images could not be read."""
    device = start_accelerator(arguments.device, "float32").device
    images = find_images(arguments.images)
    if arguments.output is not None:
        _check_output(arguments.output, images)
    classifier = _choose_classifier(arguments)
    classes = len(classifier.labels)
    top_k = min(TOP, classes) if arguments.top_k is None else arguments.top_k
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
