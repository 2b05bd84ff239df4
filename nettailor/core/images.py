"""Labelled images as they lie, decoded one at a time."""

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nettailor.core.errors import UserError
from nettailor.core.printable import printable

_GREATEST_OF_16_BITS = 65535
_LONGEST = 1000  # times its shorter side that an image may be long


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
class ImageSet:
    """What one source holds. classes: names by class index; every part shares them.

    parts: images by part; `train` is there, `val` and `test` only where the source has them.
    """

    name: str
    classes: tuple[str, ...]
    parts: Mapping[str, Images]


@dataclass(frozen=True)
class ArrayImages:
    """Images whose pixels are in memory. pixels: uint8, (N, H, W) grey."""

    pixels: NDArray[np.uint8]
    labels: tuple[int, ...]

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

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[self.indices[index]]


def read_rgb(file: Path | io.BytesIO, *, longest: float = _LONGEST) -> Image.Image:
    """The image in a file, as `as_rgb` gives it; any exception where it cannot be read.

    ValueError for a strip so long that resizing its shorter side to a network's would fill memory:
    of more than 1000 times its shorter side, or than `longest` times where that is less.
    """
    # Pillow warns of oddities and large images, neither of which is the user's to mend
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file) as image:
            if max(image.size) > min(longest, _LONGEST) * min(image.size):
                raise ValueError(
                    f"{image.width} × {image.height} pixels are too long a strip to be resized"
                )
            return as_rgb(image)


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in 8 bits a channel; of an animation the first frame.

    Greys of 16 bits are scaled, where Pillow alone would cut them off at 255. Raises ValueError for
    pixels whose range nothing tells: floating-point numbers, or more than 16 bits.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it in 8 or 16 bits")
    if image.mode.startswith("I"):
        pixels = np.asarray(image, dtype=np.int64)
        if pixels.min() < 0 or pixels.max() > _GREATEST_OF_16_BITS:
            raise ValueError("its pixels have more than 16 bits; save it in 8 or 16 bits")
        image = Image.fromarray((pixels * 255 / _GREATEST_OF_16_BITS).round().astype(np.uint8))
    return image.convert("RGB")


def in_one_line(fault: Exception) -> str:
    """The fault's text in one line."""
    return " ".join(str(fault).split()) or type(fault).__name__
