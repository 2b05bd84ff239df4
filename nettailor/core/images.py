"""Labelled images as they lie, decoded one at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nettailor.core.decoded import Decoded, room_for_pixels
from nettailor.core.errors import UserError
from nettailor.core.printable import printable
from nettailor.core.reading import read_rgb


class Images(Protocol):
    """Labelled images without a transform."""

    @property
    def labels(self) -> Sequence[int]:
        """The class index of each image, known without reading any."""

    @property
    def files(self) -> Sequence[Path]:
        """The file of each image; empty where they come from none."""

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


@dataclass(frozen=True)
class ArrayImages:
    """Images whose pixels are in memory. pixels: uint8, (N, H, W) grey."""

    pixels: NDArray[np.uint8]
    labels: tuple[int, ...]

    @property
    def files(self) -> Sequence[Path]:
        """See `Images`."""
        return ()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]).convert("RGB"), self.labels[index]


class EncodedImages(ABC):
    """Images that are decoded when they are asked for; they usually lie sorted by class.

    decoded: keeps their pixels, where it is given. first: the number of the first one there.
    """

    labels: tuple[int, ...]
    decoded: Decoded | None = None
    first: int = 0

    @abstractmethod
    def called(self, index: int) -> str:
        """What a message calls an image."""

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """The RGB image; any exception where it cannot be read."""

    @property
    def files(self) -> Sequence[Path]:
        """See `Images`."""
        return ()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        label, number = self.labels[index], self.first + index
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

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    @classmethod
    def of(cls, samples: Iterable[tuple[str | Path, int]]) -> Self:
        """The images of pairs of path and class index."""
        pairs = list(samples)
        return cls(tuple(Path(path) for path, _ in pairs), tuple(int(label) for _, label in pairs))

    @property
    def files(self) -> Sequence[Path]:
        """See `Images`."""
        return self.paths

    def called(self, index: int) -> str:
        """See `EncodedImages`."""
        return str(self.paths[index])

    def read(self, index: int) -> Image.Image:
        """See `EncodedImages`."""
        return read_rgb(self.paths[index])


@dataclass(frozen=True)
class ChosenImages:
    """Some of the images, by their indices."""

    images: Images
    indices: tuple[int, ...]

    @property
    def labels(self) -> Sequence[int]:
        """See `Images`."""
        labels = self.images.labels
        return tuple(labels[index] for index in self.indices)

    @property
    def files(self) -> Sequence[Path]:
        """See `Images`."""
        files = self.images.files
        return tuple(files[index] for index in self.indices) if files else ()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[self.indices[index]]


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
