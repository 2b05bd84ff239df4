"""Networks that are tailored to equal FLOPs with all levers, and with each of them left out.

    python benchmarks/ablation.py --images FLOWERS RUBBISH --size 64 --out runs/ablation

Images and teachers are those of `selection.py`; `nt.tailor` goes on from the teacher to each of the
budgets, shares of its FLOPs. A lever without which a budget is out of reach leaves no row.
"""

import argparse
import time
from typing import get_args

from seeds import Rows
from selection import Measured, print_all

import nettailor as nt
from nettailor.core.errors import UserError
from nettailor.core.sections import Lever


def measure(given: argparse.Namespace, seed: int) -> Rows:
    """A row for the teacher, and for each budget one of all levers, and one without each."""
    measured = Measured(given, seed)
    measured.teach()
    loaders = [measured.how[key] for key in ("train_loader", "val_loader")]
    all_of_them: tuple[Lever, ...] = get_args(Lever)
    for budget in given.budgets:
        for gone in (None, *all_of_them):
            levers = tuple(one for one in all_of_them if one != gone)
            name = f"{budget:g}, without {gone}" if gone else f"{budget:g}, all levers"
            started = time.process_time()
            try:
                network = nt.tailor(
                    measured.teacher, *loaders, max_flops=budget, levers=levers,
                    teacher_epochs=0, seed=seed, verbose=False,
                )  # fmt: skip
            except UserError as error:
                print(f"{name}: {error}", flush=True)
                continue
            measured.add(name, network, time.process_time() - started)
    return measured.rows


def main() -> None:
    """Measure every seed, print the table."""
    print_all(__doc__, "runs/ablation", measure)


if __name__ == "__main__":
    main()
