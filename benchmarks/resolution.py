"""Networks of equal FLOPs at several resolutions: fewer pixels, and more blocks for it.

    python benchmarks/resolution.py --images FLOWERS RUBBISH --size 64 --out runs/resolution

Images, teachers and training are those of `selection.py`, which has the networks at the images' own
resolution. For each budget of FLOPs, a share of the teacher's at `--size`, and for each lower side
that `nt.tailor` tries, a student shrinks and is fine-tuned, and as many first blocks are fine-tuned
as the budget allows.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

from first_blocks import first_blocks
from seeds import Rows, each_set, of_each_seed, print_sets
from selection import Measured, add_budgets, parser_of

import nettailor as nt
from nettailor.prune.remove import remove
from nettailor.resolutions import sides, tried
from nettailor.shrinking import shrink
from nettailor.student.costs import PathShares, shares_of


def cost_of(teacher: nt.Backbone, size: int) -> Callable[[nt.Student], PathShares]:
    """What a student's paths cost at its side, over the teacher at `size`."""
    return lambda student: shares_of(student, teacher, size, "flops")


def measure(given: argparse.Namespace, seed: int) -> Rows:
    """A row for the teacher, and for each budget and side one of each way."""
    measured = Measured(given, seed)
    measured.teach()
    teacher = measured.teacher
    at = sides(teacher, given.size, "flops", ("blocks", "resolution"))

    cost = cost_of(teacher, given.size)
    for budget in given.budgets:
        for side in filter(None, tried(measured.grown(), at, cost, budget)):
            name = f"{budget:g}, {side} px"
            started, student = time.process_time(), measured.grown()
            passed = shrink(student, teacher, max_flops=budget, side=side, **measured.how)
            seconds, last = time.process_time() - started, passed[-1]
            measured.finish(f"shrinks, {name}", last.network, seconds)
            shares = cost(student)
            first = first_blocks(student.wiring, partial(shares.of, student.wiring), budget, side)
            assert first is not None, "the first block and an exit cost less than any budget here"
            start = remove(measured.grown(), first)
            measured.finish(f"first blocks, {name}", start, 0)
    return measured.rows


def main() -> None:
    """Measure every seed, print the table."""
    parser, sets = parser_of(__doc__), {}
    add_budgets(parser, "runs/resolution")
    for name, here in each_set(parser.parse_args()):
        sets[name] = of_each_seed(here, name, partial(measure, here))
    print_sets(sets)


if __name__ == "__main__":
    main()
