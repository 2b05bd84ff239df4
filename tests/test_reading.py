"""What becomes of upside-down, transparent and deep pictures, in training and in prediction."""

import io
import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from arrows import CLASSES, STORED, arrow, arrows, save, turned
from PIL import Image
from predicting import as_json, random_run, run_it
from shell import SMALL, run_of

from nettailor.cli import predict, teach
from nettailor.core.reading import Doubts, as_rgb, endings, is_picture, read_rgb

UNVARIED = ("--hflip", "0", "--scale", "[0.8, 1]", "--color-jitter", "0")


@pytest.mark.parametrize(
    "kind",
    [
        "orientation",
        # quick: each kind is read as meant, and training and prediction read alike
        pytest.param("alpha", marks=pytest.mark.slow),
        pytest.param("16 bits", marks=pytest.mark.slow),
    ],
)
def test_arrows_are_learnt_and_told(kind, shell, tmp_path, capsys):
    """They are told apart only where files are read as meant, when trained on and afterwards."""
    root = arrows(kind, tmp_path / "arrows")
    code, err = shell(
        *SMALL, *UNVARIED, "--data", str(root), "--epochs", "8", "--batch-size", "16",
        "--teacher.lr", "0.05",
    )  # fmt: skip
    assert code == 0, err
    run = run_of(shell, "arrows")
    accuracy = json.loads((run / "summary.json").read_text())["accuracy"]
    assert (accuracy["val"], accuracy["test"]) == (100, 100)
    said = as_json(capsys, root / "test", "--run", run)["images"]
    right = [Path(one["path"]).parent.name == one["predictions"][0]["label"] for one in said]
    assert (sum(right), len(right)) == (60, 60)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
def test_orientation(orientation, ending, tmp_path):
    """The upper left pixel is red once it is shown, and the picture 3 wide and 2 high."""
    shown = Image.new("RGB", (48, 32))
    shown.paste("red", (0, 0, 16, 16))
    method = STORED[orientation]
    stored = shown if method is None else shown.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"image{ending}", exif=exif)
    read = np.asarray(read_rgb(tmp_path / f"image{ending}"))
    assert read.shape == (32, 48, 3)
    assert np.argwhere(read[..., 0] > 128).max(0).tolist() == [15, 15]


def test_damaged_tags_spoil_no_picture(tmp_path):
    """A tag that cannot be written anew is no reason to refuse a picture, or not to turn it."""
    shape = arrow("left", np.random.default_rng(0))
    path = turned(shape, tmp_path / "image", 6)
    whole = path.read_bytes()
    start = whole.index(b"Exif\0\0") + 6
    # orientation, then a number of a type that is text
    entries = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(
        ">HHI4s", 0x0100, 2, 3, b"ab\0\0"
    )
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">H", 2) + entries + bytes(4)
    content = io.BytesIO()
    Image.open(path).save(content, "JPEG", quality=95, exif=b"Exif\0\0" + exif)
    assert np.array_equal(np.asarray(read_rgb(content))[..., 0] > 128, shape)
    noise = random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[start + noise.randrange(20)] = noise.randrange(256)
        assert read_rgb(io.BytesIO(damaged)).size == (32, 32)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (2, 2), (0, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 255)), (0, 0, 0)),
        (Image.new("RGBA", (2, 2), (200, 100, 0, 51)), (244, 224, 204)),  # a fifth of it
        (Image.new("LA", (2, 2), (0, 0)), (255, 255, 255)),
        (Image.new("LA", (2, 2), (100, 255)), (100, 100, 100)),
    ],
)
def test_transparency_lies_on_white(image, expected):
    assert as_rgb(image).getpixel((0, 0)) == expected


@pytest.mark.parametrize(
    ("mode", "ending"), [("P", "png"), ("L", "png"), ("RGB", "png"), ("1", "png"), ("P", "gif")]
)
def test_one_colour_that_is_transparent(mode, ending, tmp_path):
    image = Image.new("RGB", (2, 1), "black")
    image.putpixel((1, 0), (255, 255, 255))
    image = image.convert(mode)
    image.putpixel((0, 0), image.getpixel((0, 0)))
    black = image.getpixel((0, 0))
    image.save(tmp_path / f"image.{ending}", transparency=black)
    read = read_rgb(tmp_path / f"image.{ending}")
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255)] * 2


# --- doubts ---------------------------------------------------------------------------------------


def said(*pixels: np.ndarray) -> list[str]:
    doubts = Doubts()
    for each in pixels:
        content = io.BytesIO()
        Image.fromarray(each).save(content, "TIFF")
        doubts.look(read_rgb(content))
    return list(doubts.lines())


def ramp(most: int, kind: type = np.uint16) -> np.ndarray:
    return np.linspace(0, most, 64).reshape(8, 8).astype(kind)


def test_few_bits_in_many_are_counted():
    """10 and 12 bits in 16, and 8 in 16 or 32; 16 in 16 and 8 in 8 are as they should be."""
    dim = [ramp(1023), ramp(4095), ramp(255), ramp(255, np.int32)]
    (line,) = said(*dim, ramp(65535), ramp(255, np.uint8), ramp(65535, np.int32))
    assert line.startswith("warning: 4 images are almost black (no value above 16 of 255)")


def test_pictures_of_one_colour_are_counted():
    assert said(ramp(255, np.uint8)) == []
    constant = np.full((4, 4, 3), (9, 80, 200), np.uint8)
    assert said(constant, ramp(65535)) == [
        "warning: 1 image is of one colour: look at them or remove them"
    ]


@pytest.mark.parametrize("rule", ["error", "skip"])
def test_training_says_what_it_doubts_once(rule, shell, tmp_path, capsys):
    del shell  # latency is measured but briefly
    root = arrows("16 bits", tmp_path / "arrows")
    Image.fromarray(ramp(4095)).save(root / "train" / "up" / "00.png")
    Image.new("RGBA", (8, 8)).save(root / "val" / "up" / "00.png")
    (root / "test" / "up" / "notes.txt").touch()
    teach.main([
        *SMALL, "--data", str(root), "--out", str(tmp_path / "runs"), "--on-bad-image", rule,
    ])  # fmt: skip
    shown = capsys.readouterr().out
    assert shown.count("warning: 1 image is almost black") == 1
    assert shown.count("warning: 1 image is of one colour") == 1
    assert "left out: 1 .txt\n" in shown


def test_prediction_says_what_it_doubts(tmp_path, capsys):
    run = random_run(tmp_path / "run")
    for number, most in enumerate((255, 1023, 65535)):
        Image.fromarray(ramp(most)).save(tmp_path / f"{number}.png")
    Image.new("RGBA", (8, 8)).save(tmp_path / "empty.png")
    assert run_it(tmp_path, "--run", run) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: 2 images are almost black")
    assert second.startswith("warning: 1 image is of one colour")


# --- endings --------------------------------------------------------------------------------------


def test_endings():
    for name in ("a.JPG", "a.jfif", "a.jpe", "a.gif", "a.jp2", "a.tga", "a.webp", "a.b.mpo"):
        assert is_picture(name), name
    for name in ("a.pdf", "a.eps", "a.ps", "a.mpg", "a.h5", "a.wmf", "a.txt", "jpg", ".jpg", "a."):
        assert not is_picture(name), name


@pytest.mark.parametrize(
    "ending", [".gif", ".jfif", ".jpe", ".jp2", ".tga", ".bmp", ".ico", ".qoi"]
)
def test_what_pillow_writes_is_read_by_its_ending(ending, tmp_path):
    assert ending in endings()
    shape = np.kron(np.eye(2, dtype=np.uint8) * 255, np.ones((16, 16), np.uint8))
    Image.fromarray(shape).convert("RGB").save(tmp_path / f"image{ending}")
    assert (
        abs(np.asarray(read_rgb(tmp_path / f"image{ending}"))[..., 1] - shape.astype(int)).max() < 9
    )


def test_folders_to_predict_hold_all_endings(tmp_path, capsys):
    run = random_run(tmp_path / "run")
    photos = tmp_path / "photos"
    photos.mkdir()
    names = {"a.gif", "b.jfif", "c.jp2", "d.tga", "e.png"}
    for name in names:
        save("16 bits", arrow("up", np.random.default_rng(0)), photos / "made", 0).rename(
            photos / name
        )
    (photos / "f.heic").write_bytes(b"no decoder")
    predict.main([str(photos), "--run", str(run), "--format", "json", "--device", "cpu"])
    images = json.loads(capsys.readouterr().out)["images"]
    assert {Path(image["path"]).name for image in images} == names
    assert all(len(CLASSES) <= len(image["predictions"]) for image in images)
