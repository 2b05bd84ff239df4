"""Networks of equal FLOPs with fewer channels: more blocks for it, at each resolution.

    python benchmarks/fewer_channels.py --images FLOWERS RUBBISH --size 64 --out runs/channels

Images, teachers and training are those of `selection.py`, which has the networks with all channels.
For each budget of FLOPs, a share of the teacher's at `--size`, and for each side that `nt.tailor`
tries, a student shrinks to what leaves room for channels to go, as `nt.tailor` has it, loses them,
and is fine-tuned.
"""

import argparse
import time
from functools import partial

from seeds import Rows
from selection import Measured, print_all

import nettailor as nt
from nettailor.channel_lever import before_channels, whole_cost
from nettailor.resolutions import sides, tried
from nettailor.shrinking import shrink
from nettailor.student.costs import shares_of


def measure(given: argparse.Namespace, seed: int) -> Rows:
    """A row for the teacher, and for each budget and side one where channels go."""
    measured = Measured(given, seed)
    measured.teach()
    teacher, student, how = measured.teacher, measured.grown(), measured.how
    cost = partial(shares_of, chain=teacher, image_size=given.size, unit="flops")
    at = sides(teacher, given.size, "flops", ("blocks", "resolution"))
    for budget in given.budgets:
        for side, shares in tried(student, at, cost, budget).items():
            blocks = before_channels(budget, whole_cost(student, shares))
            if blocks == budget:
                continue
            started = time.process_time()
            *_, last = shrink(measured.grown(), teacher, max_flops=blocks, side=side, **how)
            narrow = nt.narrow(
                last.network, how["train_loader"], max_flops=budget / last.cost, seed=seed
            )
            seconds = time.process_time() - started
            measured.finish(f"fewer channels, {budget:g}, {side or given.size} px", narrow, seconds)
    return measured.rows


def main() -> None:
    """Measure every seed, print the table."""
    print_all(__doc__, "runs/channels", measure)


if __name__ == "__main__":
    main()
