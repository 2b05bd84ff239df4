"""What each removal does to a student that shrinks: accuracy before and straight after, speed.

    python benchmarks/removals.py --images FLOWERS RUBBISH --size 64 --max-flops 0.15

For each folder of images (`digits`: scikit-learn's) a teacher is fine-tuned as in
`selection.py`, and a student shrinks as in `nt.tailor`. A row is one removal, in the middle of an
epoch: the blocks that stay and the one behind which the route ends, the cost, the accuracy on
validation just before, straight after without a step of training, and at the end of that epoch, and
how many steps a second that epoch takes, trying what can go included, beside the first one. Before
and after, running statistics are averaged anew over the training images; a network that goes on
training has its own.
"""

import argparse
import time
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from seeds import each_set
from selection import Measured, parser_of
from whole_way import stages_of

import nettailor as nt
from nettailor.core.epochs import LoaderEpochs
from nettailor.fitting import accelerator_for
from nettailor.prune.choice import least_lost
from nettailor.prune.shrink import Shrinking
from nettailor.prune.statistics import reestimate
from nettailor.shrinking import shrink
from nettailor.student.wiring import Path as Way


def main() -> None:
    """Train, and print a table for each set of images."""
    parser = parser_of(__doc__)
    parser.add_argument("--max-flops", type=float, help="the budget; without one it shrinks to 0.1")
    for name, here in each_set(parser.parse_args()):
        for seed in here.seeds:
            print("\n".join(table(f"{name}, seed {seed}", here, seed)), flush=True)


def table(name: str, given: argparse.Namespace, seed: int) -> list[str]:
    """The rows of one set and seed."""
    measured = Measured(given, seed)
    measured.teach()
    accelerator, rows = accelerator_for("auto"), []

    def accuracy(network: Shrinking) -> float:
        left = network.cut("now")
        batches = LoaderEpochs(measured.how["train_loader"], seed).epoch(0)
        reestimate(left, batches, accelerator)
        return measured.scores(left, "val").accuracy

    def watched(network: Shrinking, *asked: Any) -> tuple[Way, ...]:
        route, started = least_lost(network, *asked), time.perf_counter()
        after = deepcopy(network)
        after.take(route)
        blocks = [path.target for path in route if path.kind == "block"]
        kept = f"{' '.join(map(str, blocks))}; {route[-1].source}"
        found = kept, network.cost, after.cost, accuracy(network), accuracy(after)
        rows.append((*found, time.perf_counter() - started))
        return route

    with TemporaryDirectory() as folder:
        run = nt.Run(folder)
        passed = shrink(
            measured.grown(), measured.teacher, max_flops=given.max_flops, run=run,
            choose=watched, **measured.how,
        )  # fmt: skip
        run.close()
        seconds = [one.train for one in stages_of(Path(folder))["student"]]
    lines = [
        f"| {name}: blocks; the end | FLOPs | before % | straight after % | epoch's end % "
        "| steps a second, first epoch = 1 |",
        "|---|---|---|---|---|---|",
    ]
    for kept, cost, less, before, after, watching in rows:
        epoch = next(one.epoch for one in passed if abs(one.cost - less) < 1e-9)
        scores, speed = passed[epoch - 1].scores, seconds[0] / (seconds[epoch - 1] - watching)
        lines.append(
            f"| {kept} | {cost:.3f} → {less:.3f} | {before:.1f} | {after:.1f} "
            f"| {scores.accuracy:.1f} | {speed:.2f} |"
        )
    return lines


if __name__ == "__main__":
    main()
