"""Networks of equal FLOPs at several resolutions: fewer pixels, and more blocks for it.

    python benchmarks/resolution.py --images FLOWERS RUBBISH --size 64 --out runs/resolution

Images, teachers and training are those of `selection.py`, which has the networks at the images' own
resolution. For each budget of FLOPs, a share of the teacher's at `--size`, and for each lower side
that `nt.tailor` tries, a student shrinks and is fine-tuned, and as many first blocks are fine-tuned
as the budget allows.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

from first_blocks import first_blocks
from seeds import Rows, each_set, of_each_seed, print_sets
from selection import Measured, add_budgets, parser_of

from nettailor.prune.remove import remove
from nettailor.resolutions import sides, tried
from nettailor.shrinking import Snapshot, shrink
from nettailor.student.costs import PathShares, shares_of


def each_side(
    given: argparse.Namespace, measured: Measured
) -> Iterator[tuple[float, int | None, PathShares]]:
    """Each budget, each side at which `nt.tailor` shrinks to it, and what paths cost there."""
    teacher, student = measured.teacher, measured.grown()
    cost = partial(shares_of, chain=teacher, image_size=given.size, unit="flops")
    at = sides(teacher, given.size, "flops", ("blocks", "resolution"))
    for budget in given.budgets:
        for side, shares in tried(student, at, cost, budget).items():
            yield budget, side, shares


def shrunk(measured: Measured, most: float, side: int | None) -> tuple[Snapshot, float]:
    """What a student is at its end that shrinks to a budget, and the seconds that it took."""
    started, student = time.process_time(), measured.grown()
    passed = shrink(student, measured.teacher, max_flops=most, side=side, **measured.how)
    return passed[-1], time.process_time() - started


def measure(given: argparse.Namespace, seed: int) -> Rows:
    """A row for the teacher, and for each budget and lower side one of each way."""
    measured = Measured(given, seed)
    measured.teach()
    wiring = measured.grown().wiring
    for budget, side, shares in each_side(given, measured):
        if side is None:
            continue
        last, seconds = shrunk(measured, budget, side)
        measured.finish(f"shrinks, {budget:g}, {side} px", last.network, seconds)
        first = first_blocks(wiring, partial(shares.of, wiring), budget, side)
        assert first is not None, "the first block and an exit cost less than any budget here"
        measured.finish(f"first blocks, {budget:g}, {side} px", remove(measured.grown(), first), 0)
    return measured.rows


def print_all(text: str, out: str, measure: Callable[[argparse.Namespace, int], Rows]) -> None:
    """Measure every set and seed, print the table; text: of the script. out: its usual folder."""
    parser, sets = parser_of(text), {}
    add_budgets(parser, out)
    for name, here in each_set(parser.parse_args()):
        sets[name] = of_each_seed(here, name, partial(measure, here))
    print_sets(sets)


def main() -> None:
    """Measure every seed, print the table."""
    print_all(__doc__, "runs/resolution", measure)


if __name__ == "__main__":
    main()
