"""The image classification sets that torchvision reads, and how each is asked for its parts."""

import gzip
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision import datasets

from nettailor.core.errors import UserError
from nettailor.core.images import FileImages, Images, ImageSet, in_one_line, no_files


@dataclass(frozen=True, eq=False)
class _MemoryImages:
    """The images of a set that holds its pixels in memory."""

    dataset: Any
    labels: NDArray[np.int64]
    files: NDArray[np.bytes_] = field(default_factory=no_files)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.dataset[index][0].convert("RGB"), int(self.labels[index])


def _in_memory(labels: str) -> Callable[[Any], Images]:
    """Reads a set that keeps pixels in memory and its labels in the attribute named."""
    return lambda dataset: _MemoryImages(
        dataset, np.asarray(getattr(dataset, labels), dtype=np.int64)
    )


def _in_files(files: str, labels: str) -> Callable[[Any], Images]:
    """Reads a set that keeps its files' paths and its labels in the two attributes named."""
    return lambda dataset: FileImages.of(
        zip(getattr(dataset, files), getattr(dataset, labels), strict=True)
    )


def _in_samples(samples: str) -> Callable[[Any], Images]:
    """Reads a set that keeps pairs of path and label in the attribute named."""
    return lambda dataset: FileImages.of(getattr(dataset, samples))


@dataclass(frozen=True)
class _Source:
    """How one of torchvision's sets is asked for its parts.

    parts: the arguments that select each part that the set has; `train` is one of them.
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
        ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
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

SET_NAMES = tuple(_SOURCES)


def read_torchvision_set(name: str, data_dir: Path, download: bool) -> ImageSet:
    """The set of SET_NAMES called `name`, whose files lie under data_dir.

    They are fetched there only where absent and `download` is true. MNIST's family is read from
    `<data_dir>/<name>/raw`, from the idx files or their `.gz`; nothing is written beside them.

    Raises UserError for a set that is absent, cannot be fetched or has faulty labels.
    """
    source = _SOURCES[name]
    kind = getattr(datasets, name)
    parts: dict[str, Images] = {}
    with _readable_root(kind, data_dir) as root:
        for part, arguments in source.parts.items():
            dataset = _open(kind, root, data_dir, download, arguments)
            parts[part] = source.read(dataset)
            if len(parts[part]) != len(dataset):
                raise UserError(
                    f"the {part} part of {name} under {data_dir} has {len(dataset)} images but "
                    f"{len(parts[part])} labels: fetch the files again"
                )
    classes = tuple(source.classes or dataset.classes)
    for part, images in parts.items():
        strange = images.labels[(images.labels < 0) | (images.labels >= len(classes))]
        if len(strange):
            raise UserError(
                f"the {part} part of {name} under {data_dir} has label {strange.min()}, expected 0 "
                f"to {len(classes) - 1}: fetch the files again"
            )
    return ImageSet(name, classes, parts)


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
                f"{kind.__name__} not found whole under {data_dir} ({in_one_line(fault)}): run "
                "again with --download or put its files there"
            ) from fault
    try:
        return kind(data_dir, download=True, **arguments)
    except Exception as fault:
        raise UserError(
            f"{kind.__name__} could not be fetched into {data_dir} ({in_one_line(fault)}): check "
            "the network or put its files there"
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
                    f"{file} cannot be unpacked ({in_one_line(fault)}): fetch it again"
                ) from fault
        yield Path(folder)
