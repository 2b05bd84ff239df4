"""A folder of images as a data set: a subfolder per class, in one tree or one for each part."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from nettailor.core.errors import UserError
from nettailor.core.images import FileImages, ImageSet
from nettailor.core.part_names import parts_of
from nettailor.core.printable import printable, some
from nettailor.core.reading import is_picture
from nettailor.core.run_settings import holds_runs


def read_folder(folder: Path, out: Path | None = None) -> ImageSet:
    """The images of a folder, listed without reading any.

    folder: holds `train`, and maybe `val` and `test`, each with a subfolder per class, or holds the
    class subfolders itself. `parts_of` knows the usual names of parts; a part may lie in one more
    folder of its name, as archives unpack. Hidden files and folders do not count. Left out, and
    said to be so, are folders that are no part beside those that are (one without class folders is
    none), folders of runs, images outside the class folders, and files that are no images by their
    names. out: where runs go, which is left out as well.

    Raises UserError where the parts' classes differ, one is empty, the training part is absent, or
    what stands in the place of classes are parts by their names or by what they hold.
    """
    folder = folder.resolve()
    subfolders = _subfolders(folder)
    for_runs = out and os.path.realpath(out)
    runs = [sub for sub in subfolders if os.path.realpath(sub) == for_runs or holds_runs(sub)]
    subfolders = [sub for sub in subfolders if sub not in runs]
    left_out = Counter({f"{sub.name}/ (runs)": 1 for sub in runs})
    roots = _roots(folder, subfolders)
    if roots is None:
        roots = {"train": folder}
        names = {"train": {sub.name for sub in subfolders}}
    else:
        parts = {root.relative_to(folder).parts[0] for root in roots.values()}
        flat = parts_of(sub.name for sub in subfolders)
        for sub in subfolders:
            if sub.name not in parts:
                left_out[f"{sub.name}/{' (no class folders)' if sub.name in flat else ''}"] = 1
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
    for root in roots.values():
        _refuse_parts_as_classes(root, classes)
    images = {part: _images_under(root, classes, left_out) for part, root in roots.items()}
    return ImageSet(folder.name, classes, images, _in_words(left_out))


def _roots(folder: Path, subfolders: Sequence[Path]) -> dict[str, Path] | None:
    """Where each part's class folders are; None where there are no parts."""
    parts = parts_of(sub.name for sub in subfolders)
    roots: dict[str, Path] = {}
    for sub in subfolders:
        # A class may well be called "train" or "valid": only a folder of folders is a part.
        if sub.name not in parts or not _subfolders(root := _unwrapped(sub)):
            continue
        part = parts[sub.name]
        if part in roots:
            raise UserError(
                f"{folder} has both {roots[part].relative_to(folder).parts[0]}/ and {sub.name}/: "
                f"keep one of them for {part}"
            )
        roots[part] = root
    if roots and "train" not in roots:
        found = ", ".join(f"{root.relative_to(folder).parts[0]}/" for root in roots.values())
        raise UserError(f"{folder} has {found} but no train/ with class subfolders: add it")
    return roots or None


def _unwrapped(folder: Path) -> Path:
    """The only folder inside, where it has the same name; else the folder itself."""
    match _subfolders(folder):
        case [only] if only.name.lower() == folder.name.lower():
            return only
    return folder


def _refuse_parts_as_classes(root: Path, classes: Sequence[str]) -> None:
    """Raise UserError where the folders of classes are rather those of parts."""
    parts = parts_of(classes)
    if len(set(parts.values())) > 1:
        raise UserError(
            f"{root}: {', '.join(f'{name}/' for name in parts)} have parts' names and no class "
            "folders: put each one's images into a folder per class (no table of labels is read)"
        )
    holders: dict[str, list[str]] = {}
    for name in classes:
        for sub in _subfolders(root / name):
            holders.setdefault(sub.name, []).append(name)
    shared = {inner: names for inner, names in holders.items() if len(names) > 1}
    if len(shared) > 1:
        outer = [f"{name}/" for name in next(iter(shared.values()))]
        inner = [f"{name}/" for name in shared]
        raise UserError(
            f"{root}: {some(outer)} hold the same folders, {some(inner)}: which are classes? "
            "Call parts train, val and test; or have one folder per class, without these inside"
        )


def _in_words(left_out: Counter[str]) -> tuple[str, ...]:
    """Folders by their names; then files, counted by their endings, most first."""
    folders = sorted(name for name in left_out if "/" in name)
    files = [f"{count} {name}" for name, count in left_out.most_common() if "/" not in name]
    return tuple(map(printable, folders + files))


def _subfolders(folder: Path) -> list[Path]:
    """Those that are not hidden, in order; UserError where the folder cannot be read."""
    return [folder / entry.name for entry in _entries(folder)[0]]


def _files_under(folder: Path, above: Iterable[str]) -> Iterator[tuple[str, str]]:
    """All files below but hidden ones, in order, and what each really is; links are followed into
    each folder once, but never into those `above`.

    Raises UserError for a folder that cannot be read.
    """
    entered = set(above)
    ahead = [str(folder)]
    while ahead:
        place = ahead.pop()
        real = os.path.realpath(place)
        if real in entered:
            continue
        entered.add(real)
        folders, files = _entries(place)
        ahead += [sub.path for sub in reversed(folders)]
        real = os.path.join(real, "")
        for file in files:
            yield file.path, os.path.realpath(file) if file.is_symlink() else real + file.name


def _entries(folder: str | Path) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """Folders and files in a folder but hidden ones, in order; UserError where it is not read."""
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
        shown.sort(key=lambda entry: entry.name)
        return [one for one in shown if one.is_dir()], [one for one in shown if not one.is_dir()]
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    raise UserError(
        f"{error.filename}: cannot be read ({error.strerror}); mend that or move it out of the data"
    ) from error


def _images_under(root: Path, classes: Sequence[str], left_out: Counter[str]) -> FileImages:
    """The images below the class folders; what else lies there is counted in `left_out`."""
    # by what each file really is, whatever links lead there: each image counts once
    labels: dict[str, int] = {}
    above = [os.path.realpath(folder) for folder in (root, *root.parents)]

    def labelled() -> Iterator[tuple[str, int]]:
        for label, name in enumerate(classes):
            for path, real in _files_under(root / name, above):
                if not is_picture(path):
                    left_out[Path(path).suffix.lower() or "without an ending"] += 1
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
    found = set(images.labels.tolist())
    empty = [name for index, name in enumerate(classes) if index not in found]
    if empty:
        there = _in_words(Counter({name: n for name, n in left_out.items() if "/" not in name}))
        found_there = f" (left out: {', '.join(there)})" if there else ""
        raise UserError(
            f"{root} has no images of class {', '.join(repr(name) for name in empty)}: add files "
            f"(.jpg, .png or another format that Pillow reads) or remove the folder{found_there}"
        )
    stray = sum(is_picture(path.name) and path.is_file() for path in root.glob("[!.]*"))
    if stray:
        left_out["outside the class folders"] += stray
    return images
