"""Small pictures of words in 16 typefaces, a folder a typeface: an image set made here.

    pip install matplotlib && python benchmarks/words.py --out words

The typefaces (DejaVu, STIX, Computer Modern) come with matplotlib. A picture is of 64 x 64 px: a
word of 3 to 6 random letters at a random size, place and angle, dark on light or light on dark,
slightly blurred, with noise. One seed makes the same pictures, as long as Pillow draws the same.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

_SIDE, _LETTERS = 64, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
TYPEFACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono",
    "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmb10", "cmr10", "cmss10", "cmti10",
    "cmtt10",
)  # fmt: skip


def picture(font: Path, draw: np.random.Generator) -> Image.Image:
    """A word in a typeface, (64, 64), grey."""
    word = "".join(draw.choice(list(_LETTERS), draw.integers(3, 7)))
    face = ImageFont.truetype(str(font), int(draw.integers(14, 23)))
    left, top, right, bottom = face.getbbox(word)
    paper, ink = (
        int(one) for one in draw.permutation([draw.integers(180, 256), draw.integers(80)])
    )
    image = Image.new("L", (2 * _SIDE, 2 * _SIDE), paper)
    where = (_SIDE - (left + right) / 2, _SIDE - (top + bottom) / 2)
    ImageDraw.Draw(image).text(where, word, fill=ink, font=face)
    angle, shift = draw.uniform(-10, 10), draw.integers(-6, 7, 2)
    image = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=paper)
    left, top = (_SIDE // 2 + int(one) for one in shift)
    image = image.crop((left, top, left + _SIDE, top + _SIDE))
    image = image.filter(ImageFilter.GaussianBlur(draw.uniform(0, 0.7)))
    noisy = np.asarray(image) + draw.normal(0, 8, (_SIDE, _SIDE))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def main() -> None:
    """Write the pictures."""
    import matplotlib

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--each", type=int, default=125, help="pictures of a typeface")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = np.random.default_rng(given.seed)
    for name in TYPEFACES:
        (given.out / name).mkdir(parents=True)
        for number in range(given.each):
            image = picture(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"), draw)
            image.save(given.out / name / f"{number:04}.png")


if __name__ == "__main__":
    main()
