"""Rows of several seeds: measured once, kept in files, printed as means with their spread."""

import argparse
import json
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

Rows = list[dict[str, Any]]


def images_parser(text: str) -> argparse.ArgumentParser:
    """What every measurement on sets of images takes; the first line of a text says what it is."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--images", type=Path, nargs="+", default=[Path("digits")])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser


def sets_parser(text: str) -> argparse.ArgumentParser:
    """The same, for images that are drawn of each set."""
    parser = images_parser(text)
    parser.add_argument(
        "--counts", type=int, nargs=3, default=[900, 300, 1000],
        help="images to train on, to validate on, and at most to test on",
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=10, help="of a whole network")
    return parser


def each_set(given: argparse.Namespace) -> Iterator[tuple[str, argparse.Namespace]]:
    """The name of each set, and the arguments with that one alone; None stands for digits."""
    for images in given.images:
        one = None if images == Path("digits") else images
        yield images.name, argparse.Namespace(**{**vars(given), "images": one})


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
            content = {"made": made(), "rows": measure(seed)}
            file.write_text(json.dumps(content) + "\n", encoding="utf-8")
        content = json.loads(file.read_text(encoding="utf-8"))
        print(f"{file.name}: {content['made']}")
        found.append(content["rows"])
    return found


def made() -> str:
    """When, of which commit, and with what."""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    day, threads = datetime.now(UTC).date(), torch.get_num_threads()
    version = torch.__version__.partition("+")[0]
    return f"{day}, commit {commit or 'unknown'}, torch {version}, {threads} threads"


def print_table(seeds: Sequence[Rows], columns: Mapping[str, tuple[str, int]]) -> None:
    """A line a network, mean ± standard deviation over the seeds.

    Args:
        seeds: the rows of each, the same networks in the same order.
        columns: by heading, the key of a row and how many digits are printed.
    """
    print(f"| network | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for rows in zip(*seeds, strict=True):
        cells = [_mean([row[key] for row in rows], digits) for key, digits in columns.values()]
        print(f"| {' | '.join([rows[0]['network'], *cells])} |")


def print_sets(sets: Mapping[str, Sequence[Rows]]) -> None:
    """A line a network and a column a set of images: test accuracy in %, and FLOPs where known.

    Args:
        sets: by name the rows of each seed, the same networks in the same order.
    """
    print(f"| network | {' | '.join(sets)} |\n|---|{'---|' * len(sets)}")
    for of_sets in zip(*(zip(*seeds, strict=True) for seeds in sets.values()), strict=True):
        cells = [
            _mean([row["test"] for row in rows], 1)
            + (f" at {mean(row['flops'] for row in rows):.3f}" if "flops" in rows[0] else "")
            for rows in of_sets
        ]
        print(f"| {' | '.join([of_sets[0][0]['network'], *cells])} |")


def _mean(values: Sequence[float], digits: int) -> str:
    """Such as 76.1 ± 0.5; without a spread where there is one value."""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"
