"""Pictures of arrows that point up, left or right, in the kinds of files that people have."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("left", "right", "up")
# how the pixels of each EXIF orientation lie in the file, of a picture that is upright once shown
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def arrow(direction: str, noise: np.random.Generator) -> NDArray[np.bool_]:
    """A filled triangle, (32, 32), somewhere near the middle."""
    rows, columns = np.mgrid[:32, :32] - 16 - noise.integers(-3, 4, (2, 1, 1))
    up = (rows >= -9) & (rows <= 7) & (2 * abs(columns) <= rows + 9)
    return {"up": up, "left": np.rot90(up), "right": np.rot90(up, -1)}[direction]


def turned(shape: NDArray[np.bool_], path: Path, orientation: int) -> Path:
    """White on black, in a file whose pixels lie as the tag says."""
    image = Image.fromarray((shape * 255).astype(np.uint8)).convert("RGB")
    method = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = image if method is None else image.transpose(method)
    stored.save(path.with_suffix(".jpg"), quality=95, exif=exif)
    return path.with_suffix(".jpg")


def transparent(shape: NDArray[np.bool_], path: Path, number: int) -> Path:
    """Black on transparent black: with alpha in colour or grey, or by a palette."""
    path = path.with_suffix(".png")
    alpha = Image.fromarray((shape * 255).astype(np.uint8))
    image = Image.new("LA" if number % 3 == 1 else "RGBA", alpha.size)
    image.putalpha(alpha)
    if number % 3 == 2:
        indices = Image.fromarray(shape.astype(np.uint8), "P")
        indices.putpalette([0, 0, 0, 0, 0, 0])
        indices.save(path, transparency=0)
    else:
        image.save(path)
    return path


def deep(shape: NDArray[np.bool_], path: Path, number: int) -> Path:
    """Light grey on dark, of 16 bits: in little and big endian, and in 32."""
    pixels = np.where(shape, 50_000, 20_000)
    if number % 3 == 0:
        path = path.with_suffix(".png")
        Image.fromarray(pixels.astype(np.uint16)).save(path)
    elif number % 3 == 1:
        path = path.with_suffix(".tif")
        Image.frombytes("I;16B", (32, 32), pixels.astype(">u2").tobytes()).save(path)
    else:
        path = path.with_suffix(".tiff")
        Image.fromarray(pixels.astype(np.int32)).save(path)
    return path


def save(kind: str, shape: NDArray[np.bool_], path: Path, number: int) -> Path:
    """The shape in a file of a kind, whose ending is given to the path."""
    if kind == "orientation":
        return turned(shape, path, number % 8 + 1)
    return {"alpha": transparent, "16 bits": deep}[kind](shape, path, number)


def arrows(kind: str, root: Path) -> Path:
    """A folder with train/, val/ and test/: of each class 32, 8 and 20."""
    noise = np.random.default_rng(0)
    for part, count in (("train", 32), ("val", 8), ("test", 20)):
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                save(kind, arrow(name, noise), root / part / name / f"{number:02}", number)
    return root
