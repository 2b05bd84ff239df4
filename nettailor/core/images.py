"""Labelled images as they lie, decoded one at a time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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


@dataclass(frozen=True)
class FileImages:
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

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path = self.paths[index]
        try:
            return read_rgb(path), self.labels[index]
        except Exception as fault:  # a decoder fed with broken bytes raises any kind
            raise UserError(
                f"{printable(str(path))} cannot be read as an image ({in_one_line(fault)}): "
                "replace it, remove it, or have such images left out by --on-bad-image skip"
            ) from fault


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


def in_one_line(fault: Exception) -> str:
    """The fault's text in one line."""
    return " ".join(str(fault).split()) or type(fault).__name__
