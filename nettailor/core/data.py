"""A task's images: digits, a folder, a saved set or a torchvision set, parted and limited."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from nettailor.core.arrow_sets import is_arrow_set, read_arrow_set
from nettailor.core.errors import UserError, nearest
from nettailor.core.groups import Grouping, grouped_split
from nettailor.core.image_folder import read_folder
from nettailor.core.images import (
    ArrayImages,
    ChosenImages,
    EncodedImages,
    Images,
    ImageSet,
    source_of,
)
from nettailor.core.split import require_for_parts, stratified_split, stratified_subset
from nettailor.core.torchvision_sets import SET_NAMES, read_torchvision_set

PARTS = ("train", "val", "test")
# Files, each of which is read before any is trained on: so many photographs of 500 × 375 pixels
# are decoded in two minutes, a million in forty
MOST_READ_FIRST = 50_000


@dataclass(frozen=True)
class Task:
    """A classification task. classes: names by class index; every part shares them.

    left_out: what its source holds beside them, in words such as "seg_pred/" and "3 .heic".
    origins: where each part comes from, in words such as "cut from train: 20 %".
    notes: what is to be said of its images beside that, in lines.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    val: Images
    test: Images
    left_out: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def large(self) -> bool:
        """Whether it has too many files to read each before any is trained on."""
        count = sum(len(getattr(self, part)) for part in PARTS)
        return count > MOST_READ_FIRST and isinstance(source_of(self.train), EncodedImages)


def images_of(task: Task) -> dict[str, dict[str, Any]]:
    """By part: how many images there are, how many of the smallest class, where they come from."""
    found, origins = {}, dict(task.origins)
    if origins:
        origins.setdefault("train", "what is left")
    for part in PARTS:
        labels = getattr(task, part).labels
        found[part] = {
            "images": len(labels),
            "smallest": int(np.bincount(labels, minlength=len(task.classes)).min()),
            "from": origins.get(part, "as given"),
        }
    return found


class Broken(NamedTuple):
    """An image that cannot be read, and why, in one line."""

    part: str
    reason: str


def without_broken(
    task: Task, advance: Callable[[Image.Image | None], None]
) -> tuple[Task, list[Broken]]:
    """The task without the images that cannot be read whole; each is read once.

    Args:
        advance: called after each image with it, or with None where it cannot be read.

    Raises UserError where a part, or a class of the training images, has none left.
    """
    broken: list[Broken] = []
    parts: dict[str, Images] = {}
    for part in PARTS:
        images: Images = getattr(task, part)
        good = []
        for index in range(len(images)):
            image = None
            try:
                image, _ = images[index]
            except UserError as fault:
                broken.append(Broken(part, str(fault)))
            else:
                good.append(index)
            advance(image)
        parts[part] = images if len(good) == len(images) else ChosenImages(images, np.array(good))
        if not good:
            raise UserError(
                f"none of the {len(images)} {part} images can be read: {broken[-1].reason}"
            )
    left = set(parts["train"].labels.tolist())
    gone = [name for label, name in enumerate(task.classes) if label not in left]
    if gone:
        raise UserError(
            f"no training image of class {', '.join(map(repr, gone))} can be read: replace them, "
            "or remove the class"
        )
    read = replace(task, train=parts["train"], val=parts["val"], test=parts["test"])
    return read, broken


def load_task(
    data: str,
    *,
    data_dir: Path,
    out: Path | None = None,
    download: bool,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    limit_train: int | None,
    limit_test: int | None,
    group_by: str | None = None,
) -> Task:
    """The task that `data` names.

    out: a folder of runs, which holds no images of the task wherever it lies.

    data: "digits"; the name of one of torchvision's sets, in any case, whose files lie under
    data_dir and are fetched there only where absent and `download` is true; or the path of a
    folder as `read_folder` or `read_arrow_set` takes it. A name wins over a
    folder of the same name, which `./name` still reaches.

    A part that the data does not have is cut from the training images, stratified by split_seed
    (0..2**32-1): first test_fraction of them for the test, then val_fraction of those left for
    validation, each in (0, 1). group_by is a regular expression by which files of a folder are
    grouped, as `Grouping` says; parts that are cut share no group, see `grouped_split`.

    limit_train and limit_test (>= 1, or None) keep that many images of the training part, before
    validation is cut from it, and of the test. They are the first ones where the pixels come from
    arrays, whose order mixes the classes. Encoded images usually lie sorted by class: the first
    would be of a few classes only: of those a stratified subset by split_seed is kept.

    Raises UserError for data that is unknown, absent or unfit for a task.
    """
    if group_by is not None and (_is_name(data) or is_arrow_set(Path(data))):
        raise UserError(
            f"data is {data!r}, expected a folder of images, in whose paths split.group_by is "
            "searched: leave split.group_by out"
        )

    found = _find(data, data_dir, out, download)
    classes, parts = found.classes, found.parts
    if len(classes) < 2:
        raise UserError(
            f"{found.name} has the one class {classes[0]!r}: expected at least 2 classes"
        )
    train, val, test = parts["train"], parts.get("val"), parts.get("test")
    missing = [part for part in ("val", "test") if part not in parts]
    require_for_parts(train.labels, ["train", *missing], classes)
    grouping = None if group_by is None else Grouping(group_by, Path(data).resolve())
    in_order = {part: parts[part] for part in PARTS if part in parts}
    notes = () if grouping is None else grouping.notes(in_order)
    sorted_by_class = isinstance(train, EncodedImages)
    if test is None:
        wanted = ("train", *missing)
        train, test = _cut(train, wanted, test_fraction, classes, split_seed, grouping)
    train = _limited(train, limit_train, sorted_by_class, split_seed)
    test = _limited(test, limit_test, sorted_by_class, split_seed)
    if val is None:
        train, val = _cut(train, ("train", "val"), val_fraction, classes, split_seed, grouping)
    cut = {"val": val_fraction, "test": test_fraction}
    whole = "" if grouping is None else ", in whole groups"
    origins = {part: f"cut from train: {100 * cut[part]:g} %{whole}" for part in missing}
    return Task(found.name, classes, train, val, test, found.left_out, origins, notes)


def absolute(data: str) -> str:
    """A folder by its absolute path; what is none, such as the name of a set, as it is."""
    is_folder = data and not _is_name(data) and os.path.isdir(data)
    return os.path.abspath(data) if is_folder else data


def _is_name(data: str) -> bool:
    return data.lower() in ("digits", *(name.lower() for name in SET_NAMES))


def _find(data: str, data_dir: Path, out: Path | None, download: bool) -> ImageSet:
    if data.lower() == "digits":
        return _digits()
    names = {name.lower(): name for name in SET_NAMES}
    if data.lower() in names:
        return read_torchvision_set(names[data.lower()], data_dir, download)
    folder = Path(data)
    if data and folder.is_dir():
        return read_arrow_set(folder) if is_arrow_set(folder) else read_folder(folder, out)
    is_file = ", a file" if data and folder.is_file() else ""
    raise UserError(
        f"data is {data!r}{is_file}, expected 'digits', the path of an existing folder of images, "
        f"or one of torchvision's {', '.join(SET_NAMES)}"
        f"{nearest(data.lower(), ['digits', *names])}"
    )


def _digits() -> ImageSet:
    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    classes = tuple(str(name) for name in bunch.target_names)
    images = ArrayImages(pixels, bunch.target)
    return ImageSet("digits", classes, {"train": images})


def _cut(
    images: Images,
    parts: Sequence[str],
    fraction: float,
    classes: Sequence[str],
    seed: int,
    grouping: Grouping | None,
) -> tuple[Images, Images]:
    """The images without the last of the parts that are still to be made, and that part."""
    first, last = parts[0], parts[-1]
    if grouping is None:
        shares = {first: 1 - fraction, last: fraction}
        indices = stratified_split(images.labels, shares, seed, classes)
    else:
        groups = grouping.of(images.files.tolist())
        indices = grouped_split(images.labels, groups, fraction, seed, classes, parts)
    kept, cut = (ChosenImages(images, np.asarray(indices[part])) for part in (first, last))
    return kept, cut


def _limited(images: Images, limit: int | None, sorted_by_class: bool, seed: int) -> Images:
    if limit is None or limit >= len(images):
        return images
    if sorted_by_class:
        return ChosenImages(images, np.asarray(stratified_subset(images.labels, limit, seed)))
    return ChosenImages(images, np.arange(limit))
