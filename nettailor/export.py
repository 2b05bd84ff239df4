"""`python -m nettailor.export`: a run's network as files that need nothing of this project."""

from argparse import Namespace
from pathlib import Path
from typing import Literal, get_args

from nettailor.core.errors import UserError
from nettailor.core.flags import run_command
from nettailor.door import Plain

Format = Literal["onnx", "pt2", "safetensors"]
FORMATS: tuple[Format, ...] = get_args(Format)


def _check(given: Namespace) -> None:
    if given.task is not None and given.library is None:
        raise UserError("--task names a pack in a library: give --library as well")


main = Plain(
    "export",
    "Write a run's network as files that need nothing of this project.",
    {
        "--run": {
            "metavar": "FOLDER",
            "type": Path,
            "required": True,
            "help": "a finished run of any kind, a folder inside such as candidates/route-0.219, "
            "or a folder that holds one run",
        },
        "--format": {
            "nargs": "+",
            "choices": FORMATS,
            "metavar": "FORMAT",
            "help": f"any of {', '.join(FORMATS)} (default: onnx)",
        },
        "--int8": {
            "action": "store_true",
            "help": "also write model.int8.onnx, calibrated on training images",
        },
        "--to": {
            "metavar": "FOLDER",
            "type": Path,
            "help": "where the files go (default: export/ in the run's folder)",
        },
        "--overwrite": {
            "action": "store_true",
            "help": "replace what an earlier export has written",
        },
        "--library": {
            "metavar": "FOLDER",
            "type": Path,
            "help": "add the run, of --finetune task, to this library of task packs; writes no "
            "other files unless --format or --int8 is given",
        },
        "--task": {
            "metavar": "NAME",
            "help": "the pack's name in the library (default: the run's task)",
        },
    },
    notes="A file is written only after its outputs on validation images were compared with the "
    "network's. Exit codes: 0 done, 2 bad input or outputs that differ, 130 or 143 interrupted.",
    check=_check,
)

if __name__ == "__main__":
    run_command(main)
