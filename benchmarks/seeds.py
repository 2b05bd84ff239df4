"""Rows of several seeds: measured once, kept in files, printed as means with their spread."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Rows = list[dict[str, Any]]


def of_each_seed(
    seeds: Sequence[int], place: Callable[[int], Path], measure: Callable[[int], Rows]
) -> list[Rows]:
    """The rows of each seed, read from its file or measured and written there."""
    found = []
    for seed in seeds:
        file = place(seed)
        if not file.is_file():
            file.write_text(json.dumps(measure(seed)), encoding="utf-8")
        found.append(json.loads(file.read_text(encoding="utf-8")))
    return found


def print_table(seeds: Sequence[Rows], columns: Mapping[str, tuple[str, int]]) -> None:
    """A line a network, mean ± standard deviation over the seeds.

    Args:
        seeds: the rows of each, the same networks in the same order.
        columns: by heading, the key of a row and how many digits are printed.
    """
    print(f"| network | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for rows in zip(*seeds, strict=True):
        cells = [rows[0]["network"]]
        for key, digits in columns.values():
            values = [row[key] for row in rows]
            spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.{digits}f}{spread}")
        print(f"| {' | '.join(cells)} |")
