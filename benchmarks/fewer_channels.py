"""Networks of equal FLOPs with fewer channels: more blocks for it, at each resolution.

    python benchmarks/fewer_channels.py --images FLOWERS RUBBISH --size 64 --out runs/channels

Images, teachers and training are those of `selection.py` and `resolution.py`, which have the
networks with all channels. For each budget of FLOPs, a share of the teacher's at `--size`, and for
each side that `nt.tailor` tries, a student shrinks to what leaves room for channels to go, as
`nt.tailor` has it, loses them, and is fine-tuned.
"""

import argparse
import time

from resolution import each_side, print_all, shrunk
from seeds import Rows
from selection import Measured

import nettailor as nt
from nettailor.channel_lever import before_channels, whole_cost


def measure(given: argparse.Namespace, seed: int) -> Rows:
    """A row for the teacher, and for each budget and side one where channels go."""
    measured = Measured(given, seed)
    measured.teach()
    student = measured.grown()
    for budget, side, shares in each_side(given, measured):
        blocks = before_channels(budget, whole_cost(student, shares))
        if blocks == budget:
            continue
        last, seconds = shrunk(measured, blocks, side)
        started, train = time.process_time(), measured.how["train_loader"]
        narrow = nt.narrow(last.network, train, max_flops=budget / last.cost, seed=seed)
        seconds += time.process_time() - started
        name = f"fewer channels, {budget:g}, {side or given.size} px"
        measured.finish(name, narrow, seconds)
    return measured.rows


def main() -> None:
    """Measure every seed, print the table."""
    print_all(__doc__, "runs/channels", measure)


if __name__ == "__main__":
    main()
