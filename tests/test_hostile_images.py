"""Images as people have them: damaged, odd, hostile. None of them may end in a traceback."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from networks import refused
from PIL import Image
from task_folders import load

from nettailor.core.data import Task, without_broken
from nettailor.core.errors import UserError
from nettailor.core.images import FileImages
from nettailor.core.reading import as_rgb

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
PATTERN = np.arange(32 * 24, dtype=np.uint8).reshape(24, 32)


def encoded(kind: str, mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    Image.fromarray(PATTERN).convert(mode).save(content, kind)
    return content.getvalue()


WHOLE = {kind: encoded(kind) for kind in FORMATS}


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it is of this size, and holds nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def look_at(path: Path) -> Image.Image | str:
    """The image, or the one line that refuses it."""
    try:
        image, _ = FileImages.of([(path, 0)])[0]
    except UserError as fault:
        message = str(fault)
        assert message.isprintable(), "one line that a terminal can show"
        assert "cannot be read as an image" in message
        return message
    assert image.mode == "RGB"
    return image


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_images_are_read(tmp_path, kind):
    """The controls: what the mutations below start from is fine."""
    path = tmp_path / f"image.{kind.lower()}"
    path.write_bytes(WHOLE[kind])
    image = look_at(path)
    assert isinstance(image, Image.Image)
    assert image.size == (32, 24)


@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(FORMATS),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
)
def test_mutated_files(tmp_path, kind, cut, flips):
    content = bytearray(WHOLE[kind][: round(cut * len(WHOLE[kind]))])
    for place, value in flips:
        if content:
            content[place % len(content)] = value
    path = tmp_path / "image.png"
    path.write_bytes(content)
    look_at(path)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=200))
@example(b"")
@example(b"\x80\x04\x95")
@example(png_of(60_000, 60_000))
@example(png_of(0, 0))
def test_what_is_no_image(tmp_path, content):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    assert isinstance(look_at(path), str)


def test_sixteen_bits_are_scaled():
    """Pillow's own conversion cuts all but the darkest 256 of 65536 greys off at white."""
    grey = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    content = io.BytesIO()
    Image.fromarray(grey).save(content, "PNG")
    with Image.open(content) as image:
        assert np.asarray(as_rgb(image))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((2, 2), 0.5, np.float32),
        np.full((2, 2), 70_000, np.int32),
        -np.ones((2, 2), np.int32),
    ],
    ids=["floating", "beyond 16 bits", "negative"],
)
def test_pixels_of_unknown_range_are_refused(tmp_path, pixels):
    path = tmp_path / "image.tiff"
    Image.fromarray(pixels).save(path)
    assert "save it in 8 or 16 bits" in str(look_at(path))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_modes(mode):
    whole = Image.new("LAB", (32, 24)) if mode == "LAB" else Image.fromarray(PATTERN).convert(mode)
    assert as_rgb(whole).size == (32, 24)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = tmp_path / "moving.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    image = look_at(path)
    assert isinstance(image, Image.Image)
    assert image.getpixel((0, 0)) == (255, 0, 0)


NAMES = ("a b", "new\nline", "größe", "日本", "'quoted'", "semi;colon")


def tree(root: Path, classes: int = 2, each: int = 12) -> Path:
    for label in range(classes):
        for number in range(each):
            path = root / f"class {label}" / f"{NAMES[number % len(NAMES)]} {number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (20 * number, 0, 90 * label)).save(path)
    return root


def count(task: Task) -> int:
    return sum(len(part) for part in (task.train, task.val, task.test))


@pytest.mark.parametrize(
    ("target", "link"),
    [
        (".", "class 0/loop"),
        ("..", "class 0/up"),
        ("../class 0", "class 0/again"),
        ("nowhere", "class 0/dangling"),
        ("a b 0.png", "class 0/99.png"),
    ],
)
def test_links_that_lead_nowhere_new(tmp_path, target, link):
    """Each image counts once: one that stood in two splits would make the test a lie."""
    root = tree(tmp_path / "set")
    os.symlink(target, root / link)
    assert count(load(root, test_fraction=0.25)) == 24


def test_an_image_of_two_classes_is_refused(tmp_path):
    root = tree(tmp_path / "set")
    os.symlink("../class 0/a b 0.png", root / "class 1" / "99.png")
    with refused(r"class 1/99\.png: is the same file as an image of class 'class 0'"):
        load(root, test_fraction=0.25)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("class 1/*", "no training image of class 'class 1' can be read"),
        ("*/*", r"none of the \d+ train images can be read: "),
    ],
)
def test_a_class_or_a_part_that_is_all_broken_is_refused(tmp_path, broken, words):
    root = tree(tmp_path / "set", each=40)
    task = load(root, test_fraction=0.25)
    for path in root.glob(broken):
        path.write_bytes(b"")
    with refused(words):
        without_broken(task, lambda image: None)


def test_a_link_to_another_folder_is_followed(tmp_path):
    root, elsewhere = tree(tmp_path / "set"), tree(tmp_path / "more", classes=1, each=5)
    os.symlink(elsewhere / "class 0", root / "class 0" / "more")
    assert count(load(root, test_fraction=0.25)) == 29


def test_broken_images_are_left_out_and_told(tmp_path):
    root = tree(tmp_path / "set")
    broken = sorted((root / "class 0").iterdir())[:3]
    for path in broken:
        path.write_bytes(WHOLE["PNG"][:50])
    read = []
    task, told = without_broken(load(root, test_fraction=0.25), read.append)
    assert len(read) == 24
    assert count(task) == 21
    assert len(told) == 3
    assert all(one.reason.isprintable() for one in told)
    for part in (task.train, task.val, task.test):
        for index, label in enumerate(part.labels):
            assert part[index][1] == label


def test_ten_thousand_classes(tmp_path):
    content = encoded("PNG", "L")
    for label in range(10_000):
        folder = tmp_path / "set" / f"{label:05}"
        folder.mkdir(parents=True)
        for number in range(3):
            (folder / f"{number}.png").write_bytes(content)
    task = load(tmp_path / "set", test_fraction=0.25)
    assert len(task.classes) == 10_000
    assert (len(task.train), len(task.val), len(task.test)) == (10_000, 10_000, 10_000)


def test_a_strip_that_would_fill_memory_is_refused(tmp_path):
    strip, long = tmp_path / "strip.png", tmp_path / "long.png"
    Image.new("L", (1, 1001)).save(strip)
    Image.new("L", (1000, 1)).save(long)
    refusal = look_at(strip)
    assert isinstance(refusal, str)
    assert "1 × 1001 pixels are too long a strip" in refusal
    assert isinstance(look_at(long), Image.Image)
