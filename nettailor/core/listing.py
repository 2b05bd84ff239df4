"""Which images a run was made with, in its folder, so that other images are noticed."""

import csv
import os
from collections.abc import Iterator
from itertools import chain, repeat, zip_longest
from pathlib import Path
from typing import NamedTuple

from nettailor.core.arrow_sets import rows_of
from nettailor.core.data import PARTS, Task
from nettailor.core.errors import UserError
from nettailor.core.files import write_atomically
from nettailor.core.printable import some
from nettailor.core.run_folder import LISTING_FILE

_HEADER = ["part", "class", "file", "bytes"]
_SHOWN = 3

_Row = tuple[str, str, str, int]  # part, class, file and size of an image


class Listed(NamedTuple):
    """The images of a part: of each its class, its file below the folder that holds all, its size.

    A size is 0 where nobody asked for it.
    """

    part: str
    labels: list[str]
    files: list[str]
    sizes: list[int]


def listing(task: Task) -> list[Listed]:
    """Every image of a task, in the order of its parts; images that are no files by number.

    Two sets are the same when their listings are, wherever they lie and however that is spelled.
    Files of a large set are known by their names alone: a million sizes can take minutes to get.
    """
    images, large = {part: getattr(task, part) for part in PARTS}, task.large
    paths = {part: [*map(os.fsdecode, images[part].files.tolist())] for part in PARTS}
    # the first and the last in order have in common what all have
    ends = [end(files) for files in paths.values() if files for end in (min, max)]
    root = os.path.commonpath(ends) if ends else ""
    listed = []
    for part, files in paths.items():
        labels = images[part].labels.tolist()
        names = [file[len(root) :].lstrip(os.sep).replace(os.sep, "/") for file in files]
        asked = () if large else files
        sizes = [*map(os.path.getsize, asked)]
        if not files:
            names, sizes = rows_of(images[part])
        names = names or [*map(str, range(len(labels)))]
        sizes = sizes or [0] * len(labels)
        listed.append(Listed(part, [task.classes[label] for label in labels], names, sizes))
    return listed


def note_images(folder: Path, listed: list[Listed]) -> None:
    """Write the listing into a run folder that has none."""

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(chain([_HEADER], _rows(listed)))

    if not (folder / LISTING_FILE).exists():
        write_atomically(folder / LISTING_FILE, write)


def require_same_images(folder: Path, listed: list[Listed], remedy: str) -> None:
    """Raise UserError where a run was made with other images than there are now.

    Args:
        folder: of the run.
        listed: the images there are now.
        remedy: what to do, such as "give --overwrite to begin anew".
    """
    file = folder / LISTING_FILE
    there: dict[str, _Row] = {}
    here: dict[str, _Row] = {}
    try:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as handle:
            lines = csv.reader(handle)
            if next(lines, None) != _HEADER:
                raise ValueError("another header")
            rows = ((part, label, name, int(size)) for part, label, name, size in lines)
            for before, now in zip_longest(rows, _rows(listed)):
                if before and now and _same(before, now):
                    continue
                for row, side in ((before, there), (now, here)):
                    if row:
                        side[_name(row)] = row
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file} is damaged, or there is none; {remedy}") from error
    kinds = {
        "more": here.keys() - there.keys(),
        "fewer": there.keys() - here.keys(),
        "in another part, of another class or of another size": {
            name for name in here.keys() & there.keys() if not _same(here[name], there[name])
        },
    }
    words = [f"{len(names):,} {kind} ({some(sorted(names), _SHOWN)})"
             for kind, names in kinds.items() if names]  # fmt: skip
    if words:
        raise UserError(
            f"{folder} was made with other images than there are now: {'; '.join(words)}. Put back "
            f"what was there, or {remedy}"
        )


def _rows(listed: list[Listed]) -> Iterator[_Row]:
    for one in listed:
        yield from zip(repeat(one.part), one.labels, one.files, one.sizes)


def _same(one: _Row, other: _Row) -> bool:
    return one[:3] == other[:3] and (one[3] == other[3] or 0 in (one[3], other[3]))


def _name(row: _Row) -> str:
    """Unlike any other's: what is no file has a number, which each part begins anew."""
    part, _, file, _ = row
    return f"{part} {file}" if file.isdigit() else file
