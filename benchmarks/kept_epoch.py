"""Which epoch of a fine-tuning to keep: the last one, or the best on validation.

    python benchmarks/kept_epoch.py --images FLOWERS RUBBISH --out runs/kept_epoch
    python benchmarks/kept_epoch.py --images FLOWERS RUBBISH --teacher

Images, teachers and students are those of `selection.py`; at 48 and at 64 px a student shrinks
without a budget, and the sizes that it passed in its fourth to sixth epoch are fine-tuned for six.
With `--teacher` it is the teacher's own training. Every epoch is seen on all images that are not
trained on. Then 150 of them are drawn to validate on, 1 000 times: what the epoch that these choose
has on the others, on average.
"""

import argparse
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from seeds import Rows, each_set, of_each_seed, print_table
from selection import Measured, parser_of
from torch.utils.data import ConcatDataset, DataLoader

import nettailor as nt
from nettailor.core.judge import Judge
from nettailor.core.scores import Scores
from nettailor.fitting import STUDENT_LR
from nettailor.resolve import EPOCHS_WITHOUT, GOES_ON
from nettailor.shrinking import shrink

_DRAWS, _VALIDATED_ON = 1000, 150


@dataclass(frozen=True)
class Noting(Judge):
    """Notes which images each epoch takes right."""

    epochs: list[bytes] = field(default_factory=list)

    def of(self, scores: Scores) -> Scores:
        """See `Judge`."""
        self.epochs.append(scores.right)
        return scores


def expected(passed: bytes, epochs: Sequence[bytes]) -> dict[str, float]:
    """Accuracy in % on images that were not validated on, by the rule that chose the epoch.

    passed: by image, whether the size took it right before it was fine-tuned. epochs: after each.
    """
    right = np.array([np.frombuffer(one, dtype=np.uint8) for one in (passed, *epochs)], dtype=float)
    random, images = np.random.default_rng(0), right.shape[1]

    def draw() -> tuple[float, float, float]:
        order = random.permutation(images)
        val, test = (right[:, part].mean(axis=1) for part in np.split(order, [_VALIDATED_ON]))
        return test[-1], test[1 + val[1:].argmax()], test[val.argmax()]

    mean: NDArray[np.float64] = 100 * np.mean([draw() for _ in range(_DRAWS)], axis=0)
    return dict(zip(("last", "best", "passed"), mean.tolist(), strict=True))


def measure(given: argparse.Namespace, name: str, seed: int) -> Rows:
    """A row for each size."""
    measured = Measured(given, seed)
    val, test = (measured.splits[split].dataset for split in ("val", "test"))
    held_out: DataLoader[Any] = DataLoader(ConcatDataset([val, test]), 64)
    rows, how = Rows(), dict[str, Any](measured.how, val_loader=held_out)
    if given.teacher:
        how["judge"] = noted = Noting()
        nt.fit(measured.teacher, nt.CrossEntropy(), epochs=given.epochs, **how)
        return [{"network": f"{name}, seed {seed}", **expected(noted.epochs[0], noted.epochs)}]
    measured.teach()
    for side in (3 * given.size // 4, None):
        how["judge"] = on_the_way = Noting()
        sizes = shrink(measured.grown(), measured.teacher, side=side, **how)
        for size in sizes[3:6]:
            how["judge"] = tuned = Noting()
            loss = nt.TailorLoss(measured.teacher).after_cut()
            network = deepcopy(size.network)
            nt.fit(network, loss, epochs=EPOCHS_WITHOUT[1], lr=GOES_ON * STUDENT_LR, **how)
            found = expected(on_the_way.epochs[size.epoch - 1], tuned.epochs)
            rows.append({"network": f"{name}, {side or given.size} px, {size.cost:.3f}", **found})
    return rows


def main() -> None:
    """Measure every set and seed, print the table."""
    parser, rows = parser_of(__doc__), Rows()
    parser.add_argument("--teacher", action="store_true", help="the teacher's own training")
    parser.add_argument("--out", type=Path, default=Path("runs/kept_epoch"))
    columns, given = {"last": ("last", 1), "best": ("best", 1)}, parser.parse_args()
    if not given.teacher:
        columns["best, or as passed"] = "passed", 1
    for name, here in each_set(given):
        rows += sum(of_each_seed(here, name, partial(measure, here, name)), start=Rows())
    print_table([rows], columns)


if __name__ == "__main__":
    main()
