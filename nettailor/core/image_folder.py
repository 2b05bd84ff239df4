"""A folder of images as a data set: a subfolder per class, in one tree or one for each part."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension

from nettailor.core.errors import UserError
from nettailor.core.images import FileImages, ImageSet

_PART_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def read_folder(folder: Path) -> ImageSet:
    """The images of a folder, listed without reading any.

    folder: holds `train`, and maybe `val` (or `valid`, `validation`) and `test`, each with a
    subfolder per class, or holds the class subfolders itself. Hidden files and folders, and
    files that are no images by their names, do not count.

    Raises UserError where the parts' classes differ, one is empty, or the training part is absent.
    """
    folder = folder.resolve()
    # A class may well be called "train" or "valid": only a folder of folders is a part.
    found = [
        sub for sub in _subfolders(folder) if sub.name.lower() in _PART_FOLDERS and _subfolders(sub)
    ]
    roots: dict[str, Path] = {}
    for sub in found:
        part = _PART_FOLDERS[sub.name.lower()]
        if part in roots:
            raise UserError(
                f"{folder} has both {roots[part].name}/ and {sub.name}/: keep one of them for "
                f"{part}"
            )
        roots[part] = sub
    if not roots:
        roots = {"train": folder}
    if "train" not in roots:
        raise UserError(
            f"{folder} has {', '.join(f'{sub.name}/' for sub in found)} but no train/ with class "
            "subfolders: add it"
        )
    names = {part: {sub.name for sub in _subfolders(root)} for part, root in roots.items()}
    if not names["train"]:
        raise UserError(
            f"{folder} has no subfolders: expected one per class with its images, or train/ that "
            "holds them"
        )
    classes = tuple(sorted(set().union(*names.values())))
    lacking = [
        f"{roots[part].name}/ lacks {', '.join(repr(name) for name in missing)}"
        for part in roots
        if (missing := [name for name in classes if name not in names[part]])
    ]
    if lacking:
        raise UserError(
            f"the class folders of {folder} differ: {'; '.join(lacking)}; give every part the same"
        )
    parts = {part: _images_under(root, classes) for part, root in roots.items()}
    return ImageSet(folder.name, classes, parts)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith("."))


def _files_under(folder: Path) -> Iterator[tuple[str, str]]:
    """All files below but hidden ones, in order, and what each really is; links are followed into
    each folder once, but never up.

    Raises UserError for a folder that cannot be read.
    """
    entered = {os.path.realpath(above) for above in folder.parents}
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = _shown(folders)
        for name in _shown(files):
            path = os.path.join(place, name)
            yield path, os.path.realpath(path) if os.path.islink(path) else os.path.join(real, name)


def _shown(names: Iterable[str]) -> list[str]:
    """Those that are not hidden, in order."""
    return sorted(name for name in names if not name.startswith("."))


def _refuse(error: OSError) -> NoReturn:
    raise UserError(
        f"{error.filename}: cannot be read ({error.strerror}); mend that or move it out of the data"
    ) from error


def _images_under(root: Path, classes: Sequence[str]) -> FileImages:
    # by what each file really is, whatever links lead there: each image counts once
    labels: dict[str, int] = {}

    def labelled() -> Iterator[tuple[str, int]]:
        for label, name in enumerate(classes):
            for path, real in _files_under(root / name):
                if not has_file_allowed_extension(path, IMG_EXTENSIONS):
                    continue
                first = labels.get(real)
                if first is None:
                    labels[real] = label
                    yield path, label
                elif first != label:
                    raise UserError(
                        f"{path}: is the same file as an image of class {classes[first]!r}; give "
                        "each image one class"
                    )

    images = FileImages.of(labelled())
    found = set(images.labels)
    empty = [name for index, name in enumerate(classes) if index not in found]
    if empty:
        raise UserError(
            f"{root} has no images of class {', '.join(repr(name) for name in empty)}: add files "
            f"({', '.join(IMG_EXTENSIONS)}) or remove the folder"
        )
    return images
