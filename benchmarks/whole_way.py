"""What tailoring costs beside fine-tuning: each stage's epochs, and all of it, over the teacher's.

    python benchmarks/whole_way.py [--out DIR] [settings of `tailor`]

Trains a teacher and tailors it in one go, or goes on with the runs in `--out`, and reads the
seconds of their `metrics.csv`. The ratio of an epoch is its seconds of training, trying what can go
included, over the median epoch of the teacher, which is a plain fine-tune of the whole network. All
is the seconds of all stages, validation included, over those of the teacher. Run it on an idle
machine.
"""

import argparse
import csv
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple


class Epoch(NamedTuple):
    """Seconds of training and of validation."""

    train: float
    validation: float


def stages_of(folder: Path) -> dict[str, list[Epoch]]:
    """By stage, the epochs in a folder of runs, in the order in which they were trained."""
    found: dict[str, list[Epoch]] = defaultdict(list)
    for file in sorted(folder.rglob("metrics.csv"), key=lambda one: one.stat().st_mtime):
        with file.open(newline="", encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                found[row["stage"]].append(Epoch(float(row["seconds"]), float(row["val_seconds"])))
    return found


def table(stages: dict[str, list[Epoch]]) -> list[str]:
    """A row a stage: epochs, mean ratio, the ratio of each, and its share of the teacher's all."""
    taught = [one for name in stages if name.startswith("teacher") for one in stages[name]]
    plain, whole = median(one.train for one in taught), sum(map(sum, taught))
    rows = [
        "| stage | epochs | mean step, plain = 1 | by epoch | all seconds, teacher = 1 |",
        "|---|---|---|---|---|",
    ]
    for name, epochs in stages.items():
        ratios = [one.train / plain for one in epochs]
        each = " ".join(f"{one:.2f}" for one in ratios)
        spent = sum(map(sum, epochs)) / whole
        rows.append(f"| {name} | {len(epochs)} | {mean(ratios):.2f} | {each} | {spent:.2f} |")
    total = sum(sum(map(sum, epochs)) for epochs in stages.values()) / whole
    return [*rows, f"| all | | | | {total:.2f} |"]


def main() -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/whole-way"))
    given, settings = parser.parse_known_args()
    for command in ("teach", "tailor"):
        argv = [sys.executable, "-m", f"nettailor.{command}", *settings, "--out", str(given.out)]
        subprocess.run(argv, check=True)
    print("\n".join(table(stages_of(given.out))))


if __name__ == "__main__":
    main()
