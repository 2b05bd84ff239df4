"""`python -m nettailor.predict`: name what is on images, by a tailored or an untouched network."""

import os
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

from nettailor.cli.door import enter
from nettailor.core.errors import UserError
from nettailor.core.launch import require_alone
from nettailor.core.parser import Parser

TOP = 5
BACKBONE = "tf_efficientnet_lite0"


def _at_least_one(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number from 1")
    return number


def _check(given: Namespace) -> None:
    chosen = next((flag for flag in ("run", "library") if getattr(given, flag) is not None), None)
    for flag in ("library", "backbone", "weights"):
        if chosen not in (None, flag) and getattr(given, flag) is not None:
            has = "a run has its own network" if chosen == "run" else "its tasks have their own"
            raise UserError(f"--{chosen} and --{flag} were both given: {has}; leave one out")
    if chosen != "library" and given.task is not None:
        raise UserError("--task is the name of a library's task: give --library as well")


def main(argv: Sequence[str]) -> None:
    """Check the flags, then run the command; SystemExit with 4 when images could not be read."""
    require_alone()
    parser = Parser(
        "python -m nettailor.predict",
        "Say what is on images: the network of a run or of a library's task, or a pretrained one "
        "with its own classes.",
        epilog="The ms of an image is the time to read and prepare it plus its share of the "
        "network's time for its batch, after one unmeasured pass to warm up. Images that cannot be "
        "read are named on standard error and skipped. Exit codes: 0 done, 2 bad input, 4 some "
        "images could not be read, 130 or 143 interrupted.",
    )
    add = parser.add_argument
    add(
        "images", metavar="IMAGES", nargs="+",
        help="files, folders (searched recursively for images, without hidden ones), patterns such "
        "as 'photos/*.jpg'; a file that is reached twice counts once",
    )  # fmt: skip
    add(
        "--run", metavar="FOLDER", type=Path,
        help="the run whose network answers: of any kind, or a folder inside such as "
        "candidates/size-0.260 or sizes/size-0.400",
    )  # fmt: skip
    add(
        "--library", metavar="FOLDER", type=Path,
        help="the library of task packs whose --task answers",
    )  # fmt: skip
    add("--task", metavar="NAME", help="the task's name in the library")
    add(
        "--backbone", metavar="NAME",
        help="without --run and --library: the timm network that answers, untouched, with its own "
        f"ImageNet classes (default: {BACKBONE})",
    )  # fmt: skip
    add(
        "--weights", metavar="SOURCE", type=os.path.expanduser,
        help="of the backbone: auto, package, hub, or a file's path (default: auto)",
    )  # fmt: skip
    add(
        "--top-k", metavar="N", type=_at_least_one,
        help=f"classes per image, the likeliest first (default: {TOP}, or all of fewer)",
    )  # fmt: skip
    formats, devices = ("table", "csv", "json"), ("auto", "cpu", "cuda")
    add(
        "--format", metavar="|".join(formats), choices=formats, default="table",
        help="of the answers (default: table)",
    )  # fmt: skip
    add("--output", metavar="FILE", type=Path, help="write there instead of to standard output")
    add(
        "--batch-size", metavar="N", type=_at_least_one, default=32,
        help="images at a time (default: 32)",
    )  # fmt: skip
    add(
        "--device", metavar="|".join(devices), choices=devices, default="auto",
        help="where to compute (default: auto)",
    )  # fmt: skip
    parser.add_help_flags("the same: there is no more")
    given = parser.parse_intermixed_args(list(argv))
    _check(given)
    enter("predict", given)
