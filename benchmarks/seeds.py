"""Rows of several seeds: measured once, kept in files, printed as means with their spread."""

import argparse
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Rows = list[dict[str, Any]]


def of_each_seed(
    given: argparse.Namespace, name: str, measure: Callable[[int], Rows]
) -> list[Rows]:
    """The rows of each seed, read from its file in `out`, or measured and written there.

    Args:
        given: with `seeds` and `out`; all other arguments tell files apart.
        name: their files begin with it.
    """
    found = []
    asked = {
        key: value.name if isinstance(value, Path) else str(value)
        for key, value in vars(given).items()
        if key not in ("seeds", "out")
    }
    digest = zlib.crc32(json.dumps(asked, sort_keys=True).encode())
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in given.seeds:
        file = given.out / f"{name}-{digest:08x}-{seed}.json"
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
