"""A set that the `datasets` library of Hugging Face has saved on disk, read where it lies."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nettailor.core.errors import UserError
from nettailor.core.images import (
    ChosenImages,
    EncodedImages,
    Images,
    ImageSet,
    in_one_line,
    no_files,
)
from nettailor.core.part_names import parts_of
from nettailor.core.printable import printable, some
from nettailor.core.reading import read_rgb

_SHOWN = 8  # names in a message
_LABELS = ("int", "uint", "string", "large_string")  # how the types begin that may name a class


def is_arrow_set(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder: a Dataset, or a DatasetDict, which has parts."""
    whole = all((folder / name).is_file() for name in ("state.json", "dataset_info.json"))
    return whole or (folder / "dataset_dict.json").is_file()


@dataclass(eq=False)
class ArrowImages(EncodedImages):
    """The images of a part, in Arrow files that are mapped into memory.

    rows: a `datasets.Dataset` of one column, {"bytes": …, "path": …}. part: train, val or test.
    place: the folder of the files.
    """

    rows: Any
    labels: NDArray[np.int64]
    part: str
    place: Path
    files: NDArray[np.bytes_] = field(default_factory=no_files)

    def called(self, index: int) -> str:
        return f"row {index} of {self.place}"

    def read(self, index: int) -> Image.Image:
        (stored,) = self.rows[index].values()
        if not stored or stored["bytes"] is None:
            raise ValueError("there is none")
        return read_rgb(io.BytesIO(stored["bytes"]))


def rows_of(images: Images) -> tuple[list[str], list[int]]:
    """Of each image its row, such as `train/17`, and the bytes that it takes there, 0 of none.

    No image is read for that. Empty for images of other sources.
    """
    chosen = np.arange(len(images))
    while isinstance(images, ChosenImages):
        chosen, images = images.indices[chosen], images.images
    if not isinstance(images, ArrowImages):
        return [], []
    from pyarrow import compute  # which `datasets` brings

    (column,) = images.rows.with_format("arrow")[:].columns
    sizes = compute.binary_length(compute.struct_field(column, "bytes")).to_pylist()
    rows = chosen.tolist()
    return [f"{images.part}/{row}" for row in rows], [sizes[row] or 0 for row in rows]


def read_arrow_set(folder: Path) -> ImageSet:
    """The images of a folder that `is_arrow_set`, without reading any.

    The columns are found by their kinds. The parts of a DatasetDict are known by the usual names;
    a Dataset is the training part. Left out, and said to be so, are parts of other names or without
    any label, and names of classes that no image has.

    Raises UserError where `datasets` is not installed, the set is damaged or has no training part,
    where several columns may be meant or none, labels are missing, or the parts' classes differ.
    """
    folder = folder.resolve()
    found = _loaded(folder)
    splits = found if isinstance(found, dict) else {"train": found}
    names, left_out = _names(folder, splits)
    images: dict[str, ArrowImages] = {}
    classes: dict[str, list[Any]] = {}
    order: Sequence[Any] | None = None
    for part, name in names.items():
        place = folder / name if splits is found else folder
        rows, of_rows, names_of_classes = _columns(splits[name], place)
        missing = of_rows.count(None)
        if missing == len(of_rows) and part != "train":
            left_out.append(f"{name}/ (no labels)")
            continue
        if missing or not of_rows:
            raise UserError(
                f"{missing:,} of the {len(of_rows):,} images of {place} have no label (none, or "
                "-1), expected one for each: give them theirs, or filter such images out"
            )
        classes[part], images[part] = of_rows, ArrowImages(rows, np.empty(0, np.int64), part, place)
        order = names_of_classes if part == "train" else order
    every = set().union(*classes.values())
    lacking = [f"{names[part]} lacks {some(every.difference(of_rows), _SHOWN)}"
               for part, of_rows in classes.items() if every.difference(of_rows)]  # fmt: skip
    if lacking:
        raise UserError(
            f"the classes in the parts of {folder} differ: {'; '.join(lacking)}; give every part "
            "the same"
        )
    order = sorted(every) if order is None else order
    if unused := len(set(order) - every):
        left_out.append(f"classes without images: {unused}")
    labels = {name: label for label, name in enumerate(name for name in order if name in every)}
    for part, of_rows in classes.items():
        images[part].labels = np.array([labels[name] for name in of_rows], np.int64)
    said = tuple(map(printable, left_out))
    return ImageSet(folder.name, tuple(map(str, labels)), dict(images), said)


def _loaded(folder: Path) -> Any:
    """The Dataset or DatasetDict of a folder."""
    # here, not above: only who has such a set need have the library, and wait for it
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise UserError(
            f"{folder} was saved by the package datasets, which is not installed: run "
            "pip install 'nettailor[datasets]', or give a folder of images"
        ) from error
    try:
        return load_from_disk(str(folder))
    except Exception as fault:  # each of its layers raises kinds of its own
        raise UserError(
            f"{folder} cannot be read as a set that datasets has saved ({in_one_line(fault)}): "
            "save it again"
        ) from fault


def _names(folder: Path, splits: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """What each part is called, and what is none."""
    names: dict[str, str] = {}
    parts = parts_of(splits)
    for name, part in parts.items():
        if part in names:
            raise UserError(f"{folder} has both {names[part]} and {name}: keep one for {part}")
        names[part] = name
    if "train" not in names:
        raise UserError(
            f"{folder} has the parts {some(splits, _SHOWN)}, expected train, and maybe validation "
            "and test: rename the one to train on"
        )
    return names, [f"{name}/" for name in splits if name not in parts]


def _columns(split: Any, place: Path) -> tuple[Any, list[Any], Sequence[str] | None]:
    """The images, one column, not decoded; the class of each or None; all names where given."""
    features = split.features
    kinds = {name: getattr(kind, "dtype", "") if type(kind).__name__ == "Value"
             else type(kind).__name__ for name, kind in features.items()}  # fmt: skip
    images = [name for name, kind in kinds.items() if kind == "Image"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"] or [
        name for name, kind in kinds.items() if kind.startswith(_LABELS)
    ]
    if not len(images) == len(labels) == 1:
        shown = some((f"{name} ({kind})" for name, kind in kinds.items()), _SHOWN)
        raise UserError(
            f"{place} has the columns {shown}, expected one Image and one of classes (ClassLabel, "
            "or else text or whole numbers): keep these two by select_columns and save them again"
        )
    (image,), (label,) = images, labels
    column = split.select_columns([label]).with_format("arrow")[:][label].to_pylist()
    names = getattr(features[label], "names", None)
    rows = split.with_format(None).select_columns([image])
    rows = rows.cast_column(image, replace(features[image], decode=False))
    return rows, [_class(value, names) for value in column], names


def _class(label: Any, names: Sequence[str] | None) -> Any:
    """What a label stands for; None where it is missing, or the number of no name."""
    if label in (None, "") or (isinstance(label, int) and label < 0):
        return None
    if names is None:
        return label
    return names[label] if label < len(names) else None
