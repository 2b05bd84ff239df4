"""Which image files a command line means: files, folders and patterns, each file once."""

import os
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

from nettailor.core.errors import UserError
from nettailor.core.reading import is_picture


def find_images(arguments: Sequence[str]) -> tuple[Path, ...]:
    """The image files of a command line, none of which is read.

    arguments: names of files, taken whatever they are called; folders, searched recursively for
    names of images, in order, without hidden files and folders; or patterns such as "*.jpg" and
    "photos/**/*.png" of either. A file that is reached twice, by a link too, counts at its first
    place. A folder that may not be read stands in the list itself, to fail as its images would.

    Raises UserError for an argument that leads to nothing.
    """
    found: dict[str, Path] = {}
    for argument in map(os.path.expanduser, arguments):
        images = [image for match in _matches(argument) for image in _images_at(match)]
        if not images:
            raise UserError(
                f"{argument!r} holds no images: expected files that end in .jpg, .png or as Pillow "
                "names other formats"
            )
        for image in images:
            found.setdefault(os.path.realpath(image), image)
    return tuple(found.values())


def _matches(argument: str) -> list[Path]:
    # a name that is there is no pattern, brackets or not
    if os.path.exists(argument):
        return [Path(argument)]
    matches = sorted(map(Path, glob(argument, recursive=True)))
    if matches:
        return matches
    if has_magic(argument):
        raise UserError(f"the pattern {argument!r} matches nothing: give another")
    raise UserError(
        f"{argument!r}: no such file or folder; expected images, folders of images or patterns "
        "such as 'photos/*.jpg'"
    )


def _images_at(path: Path) -> list[Path]:
    if path.is_dir():
        return _images_under(path)
    if not path.is_file():
        raise UserError(f"{str(path)!r} is neither a file nor a folder: give an image file")
    return [path]


def _images_under(root: Path) -> list[Path]:
    found: list[Path] = []
    entered: set[str] = set()

    def keep_unreadable(fault: OSError) -> None:
        found.append(Path(fault.filename))

    for folder, subfolders, files in os.walk(root, onerror=keep_unreadable, followlinks=True):
        # links can lead back up
        real = os.path.realpath(folder)
        if real in entered:
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        names = [name for name in files if not name.startswith(".")]
        paths = [Path(folder, name) for name in names if is_picture(name)]
        # a pipe would be waited for without end; a link to nothing is for the reader to complain of
        found += [path for path in paths if path.is_file() or not path.exists()]
    return sorted(found)
