"""How a picture's file becomes RGB of 8 bits: one rule for training and for prediction."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# The rule in words; the programs of docs/guide.md follow it without this project.
READING = (
    "turned upright by the EXIF orientation; greys of 16 bits divided by 257; transparency laid on "
    "white; RGB of 8 bits"
)
# Formats that Pillow knows, but that hold no pixels, or that another program must draw.
_NO_PICTURES = frozenset({"EPS", "PDF", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
_READ_AS = {"MPO": "JPEG"}  # the photographs of cameras with two lenses
_GREATEST_OF_16_BITS = 65535
_LONGEST = 1000  # times its shorter side that an image may be long
_GREATEST_OF_12_IN_16 = 16  # once read: 4095 / 257


@cache
def endings() -> frozenset[str]:
    """The endings of files that the installed Pillow reads as pictures, such as `.jpg`."""
    return frozenset(
        ending
        for ending, kind in Image.registered_extensions().items()
        if _READ_AS.get(kind, kind) in Image.OPEN and kind not in _NO_PICTURES
    )


def is_picture(name: str) -> bool:
    """Whether a file's name has the ending of a picture, in any case."""
    return os.path.splitext(name)[1].lower() in endings()


def read_rgb(file: str | Path | io.BytesIO, *, longest: float = _LONGEST) -> Image.Image:
    """The image in a file by the rule READING; any exception where it cannot be read.

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
            image.load()
            # Damaged tags spoil no pixels: it is turned before its tags are written anew.
            with suppress(Exception):
                ImageOps.exif_transpose(image, in_place=True)
            return as_rgb(image)


def as_rgb(image: Image.Image) -> Image.Image:
    """An upright image of any mode by the rule READING; of an animation the first frame.

    Greys of 16 bits are scaled, where Pillow alone would cut them off at 255. Raises ValueError for
    pixels whose range nothing tells: floating-point numbers, or more than 16 bits.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it in 8 or 16 bits")
    if image.mode.startswith("I"):
        pixels = np.asarray(image, dtype=np.int64)
        if pixels.min() < 0 or pixels.max() > _GREATEST_OF_16_BITS:
            raise ValueError("its pixels have more than 16 bits; save it in 8 or 16 bits")
        image = Image.fromarray((pixels / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


class Doubts:
    """Counts images that are probably not what their makers meant; they are used all the same."""

    def __init__(self) -> None:
        self._dim = self._constant = 0

    def look(self, image: Image.Image) -> None:
        """Take an image that `read_rgb` gave into account."""
        least, most = zip(*image.getextrema(), strict=True)
        constant = least == most
        self._constant += constant
        self._dim += not constant and max(most) <= _GREATEST_OF_12_IN_16

    def lines(self) -> Iterator[str]:
        """What there is to be said, in a line a kind."""
        if self._dim:
            yield (
                f"warning: {_images(self._dim)} almost black (no value above "
                f"{_GREATEST_OF_12_IN_16} of 255), as 8, 10 or 12 bits are that are stored in 16 "
                "or 32: scale such to 16 bits, or save them in 8"
            )
        if self._constant:
            yield f"warning: {_images(self._constant)} of one colour: look at them or remove them"


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count} images are"
