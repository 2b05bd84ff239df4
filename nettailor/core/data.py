"""The images of a task: scikit-learn's digits, a folder, or a set that torchvision reads."""

import gzip
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension, make_dataset

from nettailor.core.errors import UserError, nearest
from nettailor.core.split import require_for_parts, stratified_split, stratified_subset


class Images(Protocol):
    """Labelled images without a transform."""

    @property
    def labels(self) -> Sequence[int]:
        """The class index of each image, known without reading any."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """The RGB image, of its own size, and its class index.

        Raises UserError that names the file where it cannot be read whole.
        """


@dataclass(frozen=True)
class Task:
    """A classification task. classes: names by class index; every part shares them."""

    name: str
    classes: tuple[str, ...]
    train: Images
    val: Images
    test: Images


def load_task(
    data: str,
    *,
    data_dir: Path,
    download: bool,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    limit_train: int | None,
    limit_test: int | None,
) -> Task:
    """The task that `data` names.

    data: "digits"; the name of one of torchvision's sets, in any case, whose files lie under
    data_dir and are fetched there only where absent and `download` is true; or the path of a
    folder that holds `train`, and maybe `val` (or `valid`, `validation`) and `test`, each with a
    subfolder per class, or that holds the class subfolders itself. A name wins over a folder of
    the same name, which `./name` still reaches.

    A part that the data does not have is cut from the training images, stratified by split_seed
    (0..2**32-1): first test_fraction of them for the test, then val_fraction of those left for
    validation, each in (0, 1).

    limit_train and limit_test (>= 1, or None) keep that many images of the training part, before
    validation is cut from it, and of the test. They are the first ones where the pixels come from
    arrays, whose order mixes the classes. Files usually lie sorted by class, so that the first
    would be of a few classes only: of those a stratified subset by split_seed is kept.

    MNIST's family is read from `<data_dir>/<name>/raw`, from the idx files or their `.gz`; nothing
    is written beside them.

    Raises UserError for data that is unknown, absent or unfit for a task.
    """
    plan = _Plan(val_fraction, test_fraction, split_seed, limit_train, limit_test)
    plan.check()
    if data.lower() == "digits":
        return _digits(plan)
    names = {name.lower(): name for name in _SOURCES}
    if data.lower() in names:
        return _from_torchvision(names[data.lower()], data_dir, download, plan)
    folder = Path(data).expanduser()
    if data and folder.is_dir():
        return _from_folder(folder, plan)
    raise UserError(
        f"data is {data!r}, expected 'digits', the path of an existing folder of images, or one of "
        f"torchvision's {', '.join(_SOURCES)}"
        f"{nearest(data.lower(), ['digits', *names])}"
    )


@dataclass(frozen=True)
class _Plan:
    """How parts are cut and limited; the fields are load_task's."""

    val_fraction: float
    test_fraction: float
    seed: int
    limit_train: int | None
    limit_test: int | None

    def check(self) -> None:
        for name in ("val_fraction", "test_fraction"):
            fraction = getattr(self, name)
            if not 0 < fraction < 1:
                raise UserError(f"{name} is {fraction}: give a share above 0 and below 1")
        for name in ("limit_train", "limit_test"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise UserError(f"{name} is {limit}: give at least 1, or leave it out")


@dataclass(frozen=True)
class _ArrayImages:
    """pixels: uint8, (N, H, W) grey."""

    pixels: NDArray[np.uint8]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]).convert("RGB"), self.labels[index]


@dataclass(frozen=True)
class _TorchvisionImages:
    """A torchvision set that holds its pixels in memory."""

    dataset: Any
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.dataset[index][0].convert("RGB"), self.labels[index]


@dataclass(frozen=True)
class _FileImages:
    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                return image.convert("RGB"), self.labels[index]
        except Exception as fault:  # a decoder fed with broken bytes raises any kind
            raise UserError(
                f"{path} cannot be read as an image ({_line(fault)}): replace or remove it"
            ) from fault


@dataclass(frozen=True)
class _Chosen:
    images: Images
    indices: tuple[int, ...]

    @property
    def labels(self) -> Sequence[int]:
        labels = self.images.labels
        return tuple(labels[index] for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[self.indices[index]]


def _digits(plan: _Plan) -> Task:
    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    classes = tuple(str(name) for name in bunch.target_names)
    images = _ArrayImages(pixels, tuple(bunch.target.tolist()))
    return _task("digits", classes, {"train": images}, plan)


def _task(name: str, classes: tuple[str, ...], parts: Mapping[str, Images], plan: _Plan) -> Task:
    """The task with the parts that it lacks cut from `train`, and the limits kept."""
    if len(classes) < 2:
        raise UserError(f"{name} has the one class {classes[0]!r}: expected at least 2 classes")
    train, val, test = parts["train"], parts.get("val"), parts.get("test")
    missing = [part for part in ("val", "test") if part not in parts]
    require_for_parts(train.labels, ["train", *missing], classes)
    if test is None:
        train, test = _cut(train, "test", plan.test_fraction, classes, plan.seed)
    train = _limited(train, plan.limit_train, plan.seed)
    test = _limited(test, plan.limit_test, plan.seed)
    if val is None:
        train, val = _cut(train, "val", plan.val_fraction, classes, plan.seed)
    return Task(name, classes, train, val, test)


def _cut(
    images: Images, part: str, fraction: float, classes: Sequence[str], seed: int
) -> tuple[Images, Images]:
    indices = stratified_split(
        images.labels, {"train": 1 - fraction, part: fraction}, seed, classes
    )
    return _Chosen(images, tuple(indices["train"])), _Chosen(images, tuple(indices[part]))


def _limited(images: Images, limit: int | None, seed: int) -> Images:
    if limit is None or limit >= len(images):
        return images
    source = images
    while isinstance(source, _Chosen):
        source = source.images
    if isinstance(source, _FileImages):
        return _Chosen(images, tuple(stratified_subset(images.labels, limit, seed)))
    return _Chosen(images, tuple(range(limit)))


_PART_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def _from_folder(folder: Path, plan: _Plan) -> Task:
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
    names = {part: [sub.name for sub in _subfolders(root)] for part, root in roots.items()}
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
    parts = {part: _folder_images(root, classes) for part, root in roots.items()}
    return _task(folder.name, classes, parts, plan)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith("."))


def _folder_images(root: Path, classes: Sequence[str]) -> Images:
    def is_image(path: str) -> bool:
        hidden = any(part.startswith(".") for part in Path(path).relative_to(root).parts)
        return not hidden and has_file_allowed_extension(path, IMG_EXTENSIONS)

    index_of = {name: index for index, name in enumerate(classes)}
    samples = make_dataset(root, index_of, is_valid_file=is_image, allow_empty=True)
    images = _files_from(samples)
    found = set(images.labels)
    empty = [name for index, name in enumerate(classes) if index not in found]
    if empty:
        raise UserError(
            f"{root} has no images of class {', '.join(repr(name) for name in empty)}: add files "
            f"({', '.join(IMG_EXTENSIONS)}) or remove the folder"
        )
    return images


def _files_from(samples: Iterable[tuple[str | Path, int]]) -> _FileImages:
    pairs = list(samples)
    return _FileImages(
        tuple(Path(path) for path, _ in pairs), tuple(int(label) for _, label in pairs)
    )


def _in_memory(labels: str) -> Callable[[Any], Images]:
    """Reads a set that keeps pixels in memory and its labels in the attribute named."""
    return lambda dataset: _TorchvisionImages(
        dataset, tuple(np.asarray(getattr(dataset, labels)).tolist())
    )


def _in_files(files: str, labels: str) -> Callable[[Any], Images]:
    """Reads a set that keeps its files' paths and its labels in the two attributes named."""
    return lambda dataset: _files_from(
        zip(getattr(dataset, files), getattr(dataset, labels), strict=True)
    )


def _in_samples(samples: str) -> Callable[[Any], Images]:
    """Reads a set that keeps pairs of path and label in the attribute named."""
    return lambda dataset: _files_from(getattr(dataset, samples))


@dataclass(frozen=True)
class _Source:
    """How one of torchvision's sets is asked for its parts.

    parts: the arguments that select each part; a part left out is cut from `train`.
    read: the set's images without decoding any. classes: names by index, where the set itself
    has none in its attribute `classes`.
    """

    parts: Mapping[str, Mapping[str, object]]
    read: Callable[[Any], Images]
    classes: tuple[str, ...] | None = None


def _splits(**names: str) -> dict[str, dict[str, object]]:
    return {part: {"split": name} for part, name in names.items()}


_BY_FLAG: dict[str, dict[str, object]] = {"train": {"train": True}, "test": {"train": False}}
_TRAIN_TEST = _splits(train="train", test="test")
_TRAIN_VAL_TEST = _splits(train="train", val="val", test="test")

_SOURCES: dict[str, _Source] = {
    "MNIST": _Source(_BY_FLAG, _in_memory("targets")),
    "FashionMNIST": _Source(_BY_FLAG, _in_memory("targets")),
    "KMNIST": _Source(_BY_FLAG, _in_memory("targets")),
    "CIFAR10": _Source(_BY_FLAG, _in_memory("targets")),
    "CIFAR100": _Source(_BY_FLAG, _in_memory("targets")),
    "SVHN": _Source(_TRAIN_TEST, _in_memory("labels"), tuple("0123456789")),
    "STL10": _Source(
        _TRAIN_TEST,
        _in_memory("labels"),
        # The set has the names only where a file that it does not require is there.
        (
            "airplane",
            "bird",
            "car",
            "cat",
            "deer",
            "dog",
            "horse",
            "monkey",
            "ship",
            "truck",
        ),
    ),
    "GTSRB": _Source(
        _TRAIN_TEST, _in_samples("_samples"), tuple(f"{sign:05d}" for sign in range(43))
    ),
    "StanfordCars": _Source(_TRAIN_TEST, _in_samples("_samples")),
    "Food101": _Source(_TRAIN_TEST, _in_files("_image_files", "_labels")),
    "OxfordIIITPet": _Source(
        _splits(train="trainval", test="test"), _in_files("_images", "_labels")
    ),
    "Flowers102": _Source(_TRAIN_VAL_TEST, _in_files("_image_files", "_labels")),
    "DTD": _Source(_TRAIN_VAL_TEST, _in_files("_image_files", "_labels")),
    "FGVCAircraft": _Source(_TRAIN_VAL_TEST, _in_files("_image_files", "_labels")),
    "Country211": _Source(_splits(train="train", val="valid", test="test"), _in_samples("samples")),
    "EuroSAT": _Source({"train": {}}, _in_samples("samples")),
}


def _from_torchvision(name: str, data_dir: Path, download: bool, plan: _Plan) -> Task:
    source = _SOURCES[name]
    kind = getattr(datasets, name)
    parts: dict[str, Images] = {}
    with _readable_root(kind, data_dir) as root:
        for part, arguments in source.parts.items():
            dataset = _open(kind, root, data_dir, download, arguments)
            parts[part] = source.read(dataset)
            if len(parts[part].labels) != len(dataset):
                raise UserError(
                    f"the {part} part of {name} under {data_dir} has {len(dataset)} images but "
                    f"{len(parts[part].labels)} labels: fetch the files again"
                )
    classes = tuple(source.classes or dataset.classes)
    for part, images in parts.items():
        strange = sorted({label for label in images.labels if not 0 <= label < len(classes)})
        if strange:
            raise UserError(
                f"the {part} part of {name} under {data_dir} has label {strange[0]}, expected 0 to "
                f"{len(classes) - 1}: fetch the files again"
            )
    return _task(name, classes, parts, plan)


def _open(
    kind: Any, root: Path, data_dir: Path, download: bool, arguments: Mapping[str, object]
) -> Any:
    # First without a download: a set that is there needs neither a network nor a folder that can
    # be written to. Each set's parser raises its own kinds of exception for a fault in the files.
    try:
        return kind(root, **arguments)
    except Exception as fault:
        if not download:
            raise UserError(
                f"{kind.__name__} not found whole under {data_dir} ({_line(fault)}): run again "
                "with --download or put its files there"
            ) from fault
    try:
        return kind(data_dir, download=True, **arguments)
    except Exception as fault:
        raise UserError(
            f"{kind.__name__} could not be fetched into {data_dir} ({_line(fault)}): check the "
            "network or put its files there"
        ) from fault


@contextmanager
def _readable_root(kind: Any, data_dir: Path) -> Iterator[Path]:
    """data_dir, or a passing folder with the set's idx files unpacked.

    torchvision reads the idx files of MNIST's family unpacked only, into memory; they are often
    installed as .gz in a folder that cannot be written to.
    """
    names = [name for name, _ in kind.resources] if issubclass(kind, datasets.MNIST) else []
    packed = [data_dir / kind.__name__ / "raw" / name for name in names]
    unpacked = all(file.with_suffix("").exists() for file in packed)
    if unpacked or not all(file.exists() for file in packed):
        yield data_dir
        return
    with TemporaryDirectory() as folder:
        raw = Path(folder) / kind.__name__ / "raw"
        raw.mkdir(parents=True)
        for file in packed:
            try:
                with gzip.open(file) as whence, (raw / file.stem).open("wb") as whither:
                    shutil.copyfileobj(whence, whither)
            except (OSError, EOFError, zlib.error) as fault:
                raise UserError(
                    f"{file} cannot be unpacked ({_line(fault)}): fetch it again"
                ) from fault
        yield Path(folder)


def _line(fault: Exception) -> str:
    """The fault's text in one line."""
    return " ".join(str(fault).split()) or type(fault).__name__
