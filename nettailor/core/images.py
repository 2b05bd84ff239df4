"""Labelled images as they lie, decoded one at a time."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nettailor.core.decoded import Decoded, room_for_pixels
from nettailor.core.errors import UserError
from nettailor.core.printable import printable
from nettailor.core.reading import read_rgb


def no_files() -> NDArray[np.bytes_]:
    """Of images that come from none."""
    return np.empty(0, np.bytes_)


class Images(Protocol):
    """Labelled images without a transform.

    What is known of each is in arrays, which forked processes share for good: of a list of Python
    objects each look writes a count of references, so that page by page is copied.
    """

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class index of each image, (N,), known without reading any."""

    @property
    def files(self) -> NDArray[np.bytes_]:
        """The path of each one's file, (N,), for `os.fsdecode`; (0,) where they come from none."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """The RGB image, of its own size, and its class index.

        Raises UserError that names the file where it cannot be read whole.
        """


@dataclass(frozen=True)
class ImageSet:
    """What one source holds. classes: names by class index; every part shares them.

    parts: images by part; `train` is there, `val` and `test` only where the source has them.
    left_out: what the source holds beside them, in words such as "seg_pred/" and "3 .heic".
    """

    name: str
    classes: tuple[str, ...]
    parts: Mapping[str, Images]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images whose pixels are in memory. pixels: uint8, (N, H, W) grey."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    files: NDArray[np.bytes_] = field(default_factory=no_files)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]).convert("RGB"), int(self.labels[index])


class EncodedImages(ABC):
    """Images that are decoded when they are asked for; they usually lie sorted by class.

    decoded: keeps their pixels, where it is given. first: the number of the first one there.
    """

    files: NDArray[np.bytes_]
    labels: NDArray[np.int64]
    decoded: Decoded | None = None
    first: int = 0

    @abstractmethod
    def called(self, index: int) -> str:
        """What a message calls an image."""

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """The RGB image; any exception where it cannot be read."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        label, number = int(self.labels[index]), self.first + index
        image = self.decoded and self.decoded.get(number)
        try:
            if not image:
                image = self.read(index)
                if self.decoded:
                    self.decoded.put(number, image)
            return image, label
        except Exception as fault:  # a decoder fed with broken bytes raises any kind
            raise UserError(
                f"{printable(self.called(index))} cannot be read as an image "
                f"({in_one_line(fault)}): replace it, remove it, or have such images left out by "
                "--on-bad-image skip"
            ) from fault


@dataclass(eq=False)
class FileImages(EncodedImages):
    """Images in files, each opened when it is asked for."""

    files: NDArray[np.bytes_]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, samples: Iterable[tuple[str | Path, int]]) -> Self:
        """The images of pairs of path and class index."""
        files, labels = [], []
        for path, label in samples:
            files.append(os.fsencode(path))
            labels.append(label)
        return cls(np.array(files, np.bytes_), np.array(labels, np.int64))

    def called(self, index: int) -> str:
        return os.fsdecode(self.files[index])

    def read(self, index: int) -> Image.Image:
        return read_rgb(os.fsdecode(self.files[index]))


@dataclass(frozen=True, eq=False)
class ChosenImages:
    """Some of the images, by their indices."""

    images: Images
    indices: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.images.labels[self.indices]

    @property
    def files(self) -> NDArray[np.bytes_]:
        files = self.images.files
        return files[self.indices] if len(files) else files

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[int(self.indices[index])]


def source_of(images: Images) -> Images:
    """What images were chosen from."""
    while isinstance(images, ChosenImages):
        images = images.images
    return images


def keep_decoded(parts: Iterable[Images], room: float | Literal["auto", "none"]) -> Decoded | None:
    """Have encoded images keep their pixels once they were read; None where there is no room.

    Args:
        parts: of one task; they may share images.
        room: see `room_for_pixels`.

    Raises UserError where there is no memory of the size that is asked for.
    """
    sources: list[EncodedImages] = []
    for images in map(source_of, parts):
        if isinstance(images, EncodedImages) and images not in sources:
            sources.append(images)
    limit = room_for_pixels(room)
    if not sources or not limit:
        return None
    try:
        kept = Decoded(sum(map(len, sources)), limit)
    except (OSError, OverflowError, ValueError) as error:
        if room == "auto":
            return None
        raise UserError(
            f"cache = {room:g}: the system does not give so many GB of memory; give fewer, or none"
        ) from error
    for before, source in enumerate(sources):
        source.decoded, source.first = kept, sum(map(len, sources[:before]))
    return kept


def in_one_line(fault: Exception) -> str:
    """The fault's text in one line."""
    return " ".join(str(fault).split()) or type(fault).__name__
