"""Kills over all stages, and what saving costs.

    python benchmarks/faults.py --kills 50
    python benchmarks/faults.py --overhead

Every command is killed at random, half of the times at a chosen point inside a save, and started
again until it ends; then everything that it left is compared with a run that nobody killed: weights
and predictions bit for bit, figures, metrics and curves exactly, clocks apart. A run counts all of
its kills as unequal when one file differs. In one run the state after a kill has one bit of one
weight flipped, with a right checksum: it must end in something else.

The overhead is that of a teacher on digits with every default: seconds inside saves over seconds
of training, in the last epochs too.
"""

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nettailor.cli import teach
from nettailor.core import trainer, training_state

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from kills import (
    COMMANDS,
    Kill,
    Warm,
    differences,
    flip_a_bit,
    kill_until_it_ends,
    stage_of,
)

_PER_RUN = 8


def kill(count: int, seed: int, folder: Path) -> bool:
    """Spread kills over the commands and print the table; whether every end was equal."""
    warm = Warm()
    straight = {name: warm.attempt(name, folder / f"{name} straight") for name in COMMANDS}
    landed: list[tuple[Kill, bool]] = []
    runs = equal_runs = 0
    while len(landed) < count:
        for name in COMMANDS:
            left = count - len(landed)
            if left <= 0:
                break
            place = folder / f"{name} {runs}"
            kills = kill_until_it_ends(
                warm,
                name,
                place,
                random.Random(f"{seed} {name} {runs}"),
                most=min(_PER_RUN, left),
                straight=straight[name],
            )
            unequal = differences(folder / f"{name} straight", place)
            runs, equal_runs = runs + 1, equal_runs + (not unequal)
            landed += [(one, not unequal) for one in kills]
            print(f"{name}: {len(kills)} kills, {', '.join(unequal) or 'equal'}", flush=True)
    _print_table(landed)
    print(f"{equal_runs} of {runs} runs equal; a flipped bit shows: {_control(warm, folder)}")
    return equal_runs == runs


def _control(warm: Warm, folder: Path) -> bool:
    warm.attempt("teach", folder / "spoilt", at=60)
    (state,) = (folder / "spoilt").rglob("state/teacher.pt")
    flip_a_bit(state)
    warm.attempt("teach", folder / "spoilt")
    found = differences(folder / "teach straight", folder / "spoilt")
    return any(name.endswith("model.safetensors") for name in found)


def _print_table(landed: list[tuple[Kill, bool]]) -> None:
    rows: dict[str, Counter[str]] = {}
    for one, equal in landed:
        for row in (stage_of(one), "all"):
            counts = rows.setdefault(row, Counter())
            counts.update(kills=1, inside=int(bool(one.saving)), equal=int(equal))
    rows["all"] = rows.pop("all")
    print("| stage | kills | inside a save | equal at the end |\n|---|---|---|---|")
    for row, counts in rows.items():
        print(f"| {row} | {counts['kills']} | {counts['inside']} | {counts['equal']} |")
    points = Counter(one.point for one, _ in landed if one.hooked and one.saving)
    print("chosen points: " + ", ".join(f"{name} {n}" for name, n in points.most_common()))


def overhead(argv: list[str], folder: Path) -> None:
    """Train a teacher and print what its saves took."""
    seconds: dict[str, list[float]] = {"save": [], "_train_epoch": []}

    def timed(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def measured(*given: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*given)
            finally:
                seconds[name].append(time.perf_counter() - began)

        setattr(owner, name, measured)

    timed(training_state.TrainingState, "save")
    timed(trainer, "_train_epoch")
    teach.main([*argv, "--device", "cpu", "--out", str(folder)])
    saving, training = sum(seconds["save"]), sum(seconds["_train_epoch"])
    print(
        f"{len(seconds['save'])} saves, {saving:.2f} s, beside {training:.1f} s of training: "
        f"{100 * saving / training:.2f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="in all (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--overhead", action="store_true", help="measure what saving costs instead")
    arguments, others = parser.parse_known_args()
    with TemporaryDirectory() as folder:
        if arguments.overhead:
            overhead(others, Path(folder))
        elif not kill(arguments.kills, arguments.seed, Path(folder)):
            sys.exit(1)


if __name__ == "__main__":
    main()
