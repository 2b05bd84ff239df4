"""`python -m nettailor.export`: a run's network as files that need nothing of this project."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from nettailor.cli.door import enter
from nettailor.core.errors import UserError
from nettailor.core.launch import require_alone
from nettailor.core.parser import Parser

Format = Literal["onnx", "pt2", "safetensors"]
FORMATS: tuple[Format, ...] = get_args(Format)


def main(argv: Sequence[str]) -> None:
    """Check the flags, then run the command."""
    require_alone()
    parser = Parser(
        "python -m nettailor.export",
        "Write a run's network as files that need nothing of this project.",
        epilog="A file is written only after its outputs on validation images were compared with "
        "the network's. Exit codes: 0 done, 2 bad input or outputs that differ, 130 or 143 "
        "interrupted.",
    )
    add = parser.add_argument
    add(
        "--run", metavar="FOLDER", type=Path, required=True,
        help="a finished run of any kind, a folder inside such as candidates/size-0.219, or a "
        "folder that holds one run",
    )  # fmt: skip
    add(
        "--format", nargs="+", choices=FORMATS, metavar="FORMAT",
        help=f"any of {', '.join(FORMATS)} (default: onnx)",
    )  # fmt: skip
    add(
        "--int8", action="store_true",
        help="also write model.int8.onnx, calibrated on training images",
    )  # fmt: skip
    add(
        "--to", metavar="FOLDER", type=Path,
        help="where the files go (default: export/ in the run's folder)",
    )  # fmt: skip
    add("--overwrite", action="store_true", help="replace what an earlier export has written")
    add(
        "--library", metavar="FOLDER", type=Path,
        help="add the run, of --finetune task, to this library of task packs; writes no other "
        "files unless --format or --int8 is given",
    )  # fmt: skip
    add("--task", metavar="NAME", help="the pack's name in the library (default: the run's task)")
    parser.add_help_flags("the same: there is no more")
    given = parser.parse_args(list(argv))
    if given.task is not None and given.library is None:
        raise UserError("--task names a pack in a library: give --library as well")
    enter("export", given)
