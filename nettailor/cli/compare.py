"""`python -m nettailor.compare`: every run of a task side by side, as tables and as a page."""

from pathlib import Path

from nettailor.cli.door import Training, require_a_way_to_cut
from nettailor.core.config import RunConfig
from nettailor.core.errors import UserError
from nettailor.core.flags import CommandFlags


def _check(config: RunConfig, flags: CommandFlags) -> None:
    own = flags.own
    if any(own[name] for name in ("seeds", "gammas", "modes")):
        require_a_way_to_cut(config)
    if flags.overwrite:
        raise UserError("--overwrite: a comparison discards no run; give it to the run's command")
    if own["folders"] and any(own[name] for name in ("seeds", "gammas", "modes")):
        raise UserError(
            f"{own['folders'][0]}: a sweep compares the runs under --out; leave the folder out, or "
            "--seeds, --gammas and --modes"
        )


main = Training(
    "compare",
    "Set every finished run of a task side by side: a table here, and report.html, comparison.csv "
    "and comparison.md in a folder. Runs are read, networks and images are not. With --seeds, "
    "--gammas or --modes it is a sweep: what is missing is trained first.",
    own={
        "folders": {
            "nargs": "*",
            "metavar": "FOLDER",
            "type": Path,
            "help": "run folders, or folders that hold runs at any depth (default: the runs of "
            "<out>/<task> at image_size, as the settings name them)",
        },
        "--report": {
            "metavar": "DIR",
            "type": Path,
            "help": "where the report goes (default: comparison/ in the task's folder)",
        },
        "--seeds": {
            "nargs": "+",
            "type": int,
            "metavar": "N",
            "help": "train what is missing for these seeds: the teacher, a tailored network for "
            "each gamma and mode, eliminated ones, references",
        },
        "--gammas": {
            "nargs": "+",
            "type": float,
            "metavar": "GAMMA",
            "help": "prices of cost, a tailored network for each; by route they differ only "
            "without a budget (default: student.gamma)",
        },
        "--modes": {
            "nargs": "+",
            "choices": ("task", "all"),
            "metavar": "task|all",
            "help": "what fine-tuning trains in the tailored networks (default: prune.finetune)",
        },
    },
    common=("data", "image_size", "out"),
    alone=True,
    discards=False,
    check=_check,
)
