"""Networks of equal FLOPs with fewer channels: more blocks for it, at each resolution.

    python benchmarks/fewer_channels.py --images FLOWERS RUBBISH --size 64 --out runs/channels

Images, teachers and training are those of `selection.py` and `resolution.py`, which have the
networks with all channels. For each budget of FLOPs, a share of the teacher's at `--size`, and for
each side that `nt.tailor` tries, a student shrinks to what leaves room for channels to go, as
`nt.tailor` has it, loses them, and is fine-tuned.
"""

import argparse
import time
from functools import partial

from resolution import cost_of
from seeds import Rows, each_set, of_each_seed, print_sets
from selection import Measured, add_budgets, parser_of

import nettailor as nt
from nettailor.channel_lever import before_channels, whole_cost
from nettailor.resolutions import sides, tried
from nettailor.shrinking import shrink


def measure(given: argparse.Namespace, seed: int) -> Rows:
    """A row for the teacher, and for each budget and side one where channels go."""
    measured = Measured(given, seed)
    measured.teach()
    teacher, train = measured.teacher, measured.how["train_loader"]
    at = sides(teacher, given.size, "flops", ("blocks", "resolution"))
    for budget in given.budgets:
        student = measured.grown()
        for side, shares in tried(student, at, cost_of(teacher, given.size), budget).items():
            blocks = before_channels(budget, whole_cost(student, shares))
            if blocks == budget:
                continue
            started, grown = time.process_time(), measured.grown()
            passed = shrink(grown, teacher, max_flops=blocks, side=side, **measured.how)
            last = passed[-1]
            narrow = nt.narrow(last.network, train, max_flops=budget / last.cost, seed=seed)
            seconds = time.process_time() - started
            name = f"fewer channels, {budget:g}, {side or given.size} px"
            measured.finish(name, narrow, seconds)
    return measured.rows


def main() -> None:
    """Measure every seed, print the table."""
    parser, sets = parser_of(__doc__), {}
    add_budgets(parser, "runs/channels")
    for name, here in each_set(parser.parse_args()):
        sets[name] = of_each_seed(here, name, partial(measure, here))
    print_sets(sets)


if __name__ == "__main__":
    main()
