"""Every size that a student passed without a budget, fine-tuned; as many first blocks beside each.

    python benchmarks/front.py --images FLOWERS --size 64 --seeds 0

Images, teacher and training as in `selection.py`. A row has the loss and the accuracy on validation
as the size stood and after fine-tuning, and the accuracy on the test.
"""

import argparse
from functools import partial
from pathlib import Path

from seeds import Rows, of_each_seed, print_table
from selection import Measured, add_images

from nettailor.prune.eliminate import first_blocks
from nettailor.prune.remove import remove
from nettailor.resolve import EPOCHS_WITHOUT
from nettailor.shrinking import shrink
from nettailor.student.costs import shares_of


def measure(given: argparse.Namespace, seed: int) -> Rows:
    """A row for the teacher, each size, and as many first blocks."""
    measured = Measured(given, seed, EPOCHS_WITHOUT)
    student = measured.grown()
    passed = shrink(student, measured.teacher, **measured.how)
    shares = shares_of(student, measured.teacher, given.size, "flops")
    tried = set[frozenset[object]]()
    for size in passed:
        first = first_blocks(student.wiring, partial(shares.of, student.wiring), size.cost)
        for name, plan in (("size", size.plan), ("first blocks", first)):
            if plan is None or frozenset(plan.kept.paths) in tried or size.cost > 0.98:
                continue
            tried.add(frozenset(plan.kept.paths))
            start = size.network if name == "size" else remove(measured.grown(), plan)
            measured.finish(f"{name}, {size.cost:.3f}", start, 0, plan)
    return measured.rows


def main() -> None:
    """Measure every seed, print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_images(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("docs/measured/front"))
    given = parser.parse_args()
    name = "digits" if given.images is None else given.images.name
    columns = {"FLOPs": ("flops", 3), "loss": ("loss_before", 3), "val %": ("before", 1)}
    columns |= {"fine-tuned, loss": ("loss", 3), "val % ": ("val", 1), "test %": ("test", 1)}
    for rows in of_each_seed(given, name, partial(measure, given)):
        print_table([rows], columns)


if __name__ == "__main__":
    main()
