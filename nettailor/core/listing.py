"""Which images a run was made with, in its folder, so that other images are noticed."""

import csv
import io
import os
from pathlib import Path
from typing import NamedTuple

from nettailor.core.arrow_sets import rows_of
from nettailor.core.data import PARTS, Task
from nettailor.core.errors import UserError
from nettailor.core.files import write_text
from nettailor.core.printable import printable
from nettailor.core.run_folder import LISTING_FILE

_HEADER = ["part", "class", "file", "bytes"]
_SHOWN = 3


class Listed(NamedTuple):
    """An image: its part, its class, its file below the folder that holds all, and its size."""

    part: str
    label: str
    file: str
    size: int


def listing(task: Task) -> list[Listed]:
    """Every image of a task, in the order of its parts; images that are no files by number.

    Two sets are the same when their listings are, wherever they lie and however that is spelled.
    """
    rows = []
    roots = [os.path.commonpath(paths) for part in PARTS if (paths := getattr(task, part).files)]
    root = os.path.commonpath(roots) if roots else ""
    for part in PARTS:
        images = getattr(task, part)
        if rows_in_set := rows_of(images):
            pairs = zip(images.labels, rows_in_set, strict=True)
            rows += [Listed(part, task.classes[label], *row) for label, row in pairs]
            continue
        files = images.files
        for index, label in enumerate(images.labels):
            # a posix path on every system
            file = Path(os.path.relpath(files[index], root)).as_posix() if files else str(index)
            size = os.path.getsize(files[index]) if files else 0
            rows.append(Listed(part, task.classes[label], file, size))
    return rows


def note_images(folder: Path, rows: list[Listed]) -> None:
    """Write the listing into a run folder that has none."""
    if (folder / LISTING_FILE).exists():
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_HEADER, *rows])
    write_text(folder / LISTING_FILE, text.getvalue())


def require_same_images(folder: Path, rows: list[Listed], remedy: str) -> None:
    """Raise UserError where a run was made with other images than there are now.

    A run without a listing, of an earlier version, is not held to any.

    Args:
        folder: of the run.
        rows: the images there are now.
        remedy: what to do, such as "give --overwrite to begin anew".
    """
    file = folder / LISTING_FILE
    if not file.exists():
        return
    try:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as handle:
            header, *lines = csv.reader(handle)
            before = {Listed(part, label, name, int(size)) for part, label, name, size in lines}
        if header != _HEADER:
            raise ValueError("another header")
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file} is damaged; {remedy}") from error
    now = set(rows)
    if now == before:
        return
    there, here = {_name(row): row for row in before}, {_name(row): row for row in now}
    kinds = {
        "more": here.keys() - there.keys(),
        "fewer": there.keys() - here.keys(),
        "in another part, of another class or of another size": {
            name for name in here.keys() & there.keys() if here[name] != there[name]
        },
    }
    words = [f"{len(names):,} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
    raise UserError(
        f"{folder} was made with other images than there are now: {'; '.join(words)}. Put back "
        f"what was there, or {remedy}"
    )


def _name(row: Listed) -> str:
    """Unlike any other's: what is no file has no size, and a number that each part begins anew."""
    return row.file if row.size else f"{row.part} {row.file}"


def _some(names: set[str]) -> str:
    shown = [printable(name) for name in sorted(names)[:_SHOWN]]
    return ", ".join(shown) + ", …" * (len(names) > _SHOWN)
