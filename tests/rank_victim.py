"""A command of which one process is struck by a signal once; torchrun starts it.

    rank_victim.py COMMAND PLACE STRUCK STEP SIGNAL WORDS…

STRUCK: the rank that is to get SIGNAL before its STEP-th training step, or `torchrun` for the
process that has started them all; `nobody` for a run that is left alone.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import victim

from nettailor.core import ranks, trainer


def main() -> None:
    """Do as the command line says."""
    command, place, struck, step, name, *words = sys.argv[1:]
    with (Path(place) / "processes").open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    once = Path(place).absolute() / "struck"
    take, taken = trainer._step, 0

    def stricken(self: Any, *batch: Any) -> None:
        nonlocal taken
        taken += 1
        whom = ranks.rank() if struck != "torchrun" else ranks.rank() or "torchrun"
        if taken == int(step) and str(whom) == struck and not once.exists():
            once.touch()
            os.kill(
                os.getppid() if struck == "torchrun" else os.getpid(), signal.Signals[name].value
            )
        take(self, *batch)

    victim.save_every_epoch()
    trainer._step = stricken
    victim.run(command, words, place)


if __name__ == "__main__":
    main()
