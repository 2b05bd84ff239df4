"""Commands as a user calls them, and what their runs come to."""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from seeds import Rows, of_each_seed


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as a command is given them."""
    return [
        f"--{key.replace('_', '-')}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
    ]


def folder_of(command: str, settings: Mapping[str, Any], *more: str) -> Path:
    """Call a command of ours; the folder that its last line names, of a run or of several.

    Raises SystemExit with all that it said where it fails.
    """
    called = [sys.executable, "-m", f"nettailor.{command}", *flags(settings), *more]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(called)}\n{done.stdout}{done.stderr}")
    return Path(re.split("run folders?: ", done.stdout)[-1].strip())


def summary_in(folder: Path) -> dict[str, Any]:
    """The figures of a finished run."""
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def row(name: str, summary: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """Of a table: accuracy, and costs over those of the whole network.

    own: parameters that are the task's own.
    """
    return {
        "network": name,
        **{split: summary["accuracy"][split] for split in ("val", "test")},
        "mflops": summary["flops"] / 1e6,
        "flops": summary["flops"] / whole["flops"],
        "params": summary["params"]["total"] / whole["params"]["total"],
        "own": summary["params"]["task"] / whole["params"]["total"],
        "blocks": summary["blocks"]["universal"],
        "seconds": summary["seconds"]["train"],
    }


def of_each_task(
    parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace, int], Rows]
) -> dict[str, list[Rows]]:
    """The rows of each seed by task, measured or read; other flags are settings of the commands.

    Args:
        parser: of `seeds.images_parser`, with `--out`.
        measure: what was given, with `images` of one task and `settings`; a seed -> rows.
    """
    given, settings = parser.parse_known_args()
    found = {}
    for images in given.images:
        here = argparse.Namespace(**{**vars(given), "images": images, "settings": settings})
        found[images.name] = of_each_seed(here, images.name, partial(measure, here))
    return found


def of_sets(sets: Mapping[str, Sequence[Rows]]) -> list[Rows]:
    """The rows of each seed, all sets one after the other, named by them as well."""
    return [
        [
            {**row, "network": f"{name}, {row['network']}"}
            for name, rows in zip(sets, of_seed, strict=True)
            for row in rows
        ]
        for of_seed in zip(*sets.values(), strict=True)
    ]
