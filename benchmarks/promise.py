"""How often the network that `tailor` keeps is more than the tolerance below its teacher.

    python benchmarks/promise.py --images DIR --count 400 --seeds 0 1 2 3 4 [--classes 2] [settings]

DIR has train/<class>/ and test/<class>/, and far more images than are learnt from: each seed draws
`--count` images of its own out of train/, alike from each class (the first `--classes` by name),
teaches and tailors with the settings of the command line, and reads all of test/ of these classes.
The more there are in test/, the nearer its difference is to the truth; its standard error stands
beside it. Finished seeds are read from `--out`, others are gone on with.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from nettailor.core.judge import error_of_difference
from nettailor.evidence import right_on

TOLERANCE = 0.5


class Kept(NamedTuple):
    """What a seed came to: accuracies in %, the difference on the test and its error in points."""

    seed: int
    flops: float
    blocks: int
    within: bool
    val: tuple[float, float]
    test: tuple[float, float]
    behind: float
    error: float


def main() -> None:
    """Train every seed, print a row each, and how many are more than the tolerance below."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--classes", type=int, help="the first so many by name; all otherwise")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("runs/promise"))
    given, settings = parser.parse_known_args()
    kept = [run(seed, given, settings) for seed in given.seeds]
    print("\n".join(table(kept)))
    over = sum(one.behind > TOLERANCE for one in kept)
    surely = sum(one.behind - one.error > TOLERANCE for one in kept)
    print(f"\nmore than {TOLERANCE:g} points below the teacher on the test: {over} of {len(kept)}, "
          f"by more than the test's standard error {surely}")  # fmt: skip


def run(seed: int, given: argparse.Namespace, settings: list[str]) -> Kept:
    """Teach and tailor on the images of a seed."""
    place: Path = given.out / f"{given.count}-{seed}"
    draw(seed, given, place / "images")
    words = ["--data", str(place / "images"), "--seed", str(seed), "--out", str(place / "runs")]
    command = [sys.executable, "-m", "nettailor", "tailor", *words, *settings]
    with (place / "said.txt").open("w", encoding="utf-8") as said:
        subprocess.run(command, check=True, stdout=said, stderr=subprocess.STDOUT)
    teacher, tailored = (
        next((place / "runs").glob(f"*/{kind}/*/summary.json")) for kind in ("teacher", "tailored")
    )
    summaries = [json.loads(file.read_text(encoding="utf-8")) for file in (teacher, tailored)]
    before, after = (right_on(file.parent, "test") for file in (teacher, tailored))
    candidates = json.loads((tailored.parent / "candidates.json").read_text(encoding="utf-8"))
    (chosen,) = (one for one in candidates if one["verdict"] == "kept")
    val = tuple(one["accuracy"]["val"] for one in summaries)
    test = tuple(one["accuracy"]["test"] for one in summaries)
    return Kept(
        seed,
        summaries[1]["flops"] / summaries[0]["flops"],
        chosen["blocks"]["universal"],
        chosen["judged"] >= val[0] - TOLERANCE,
        val,
        test,
        test[0] - test[1],
        error_of_difference(before, after),
    )


def draw(seed: int, given: argparse.Namespace, place: Path) -> None:
    """Links to the images of a seed, once."""
    if place.exists():
        return
    part = place.with_name("part")
    names = sorted(one.name for one in (given.images / "train").iterdir())[: given.classes]
    for name in names:
        files = sorted((given.images / "train" / name).iterdir())
        drawn = random.Random(f"{seed} {name}").sample(files, given.count // len(names))
        for split, some in (("train", drawn), ("test", (given.images / "test" / name).iterdir())):
            folder = part / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for file in some:
                (folder / file.name).unlink(missing_ok=True)
                os.link(file, folder / file.name)
    part.rename(place)


def table(kept: list[Kept]) -> list[str]:
    """Rows in Markdown."""
    lines = ["| seed | teacher, validation / test % | kept | within tolerance | FLOPs | blocks "
             "| below on the test, points |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for one in kept:
        teacher, tailored = (f"{one.val[i]:.2f} / {one.test[i]:.2f}" for i in (0, 1))
        lines.append(
            f"| {one.seed} | {teacher} | {tailored} | {'yes' if one.within else 'no, said'} "
            f"| {one.flops:.2f} | {one.blocks} | {one.behind:+.2f} ± {one.error:.2f} |"
        )
    return lines


if __name__ == "__main__":
    main()
