"""Sets that `datasets` has saved: the same images as those of a folder, or one line why not."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Value,
    disable_progress_bars,
    load_dataset,
)
from datasets import Image as ImageColumn
from networks import refused
from PIL import Image
from shell import SMALL, contents, run_of
from task_folders import load, sizes

from nettailor.core.data import Task, without_broken
from nettailor.core.images import keep_decoded
from nettailor.core.listing import listing
from nettailor.core.loader import EvalLoader
from nettailor.core.preprocessing import Preprocessing, eval_transform

disable_progress_bars()
FEW = (*SMALL, "--batch-size", "8")
NAMES = ClassLabel(names=["cat", "dog"])
PLAIN = Preprocessing(16, (0.5,) * 3, (0.25,) * 3, "bicubic", 1.0)


def encoded(seed: int, kind: str = "PNG", **how: object) -> bytes:
    """Noise of a size of its own."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20 + seed % 5, 24, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **how)
    return content.getvalue()


def rows(labels, kind=NAMES, first=0, **more) -> Dataset:
    """An image for each label; more: other columns."""
    pictures = [{"bytes": encoded(first + i), "path": None} for i in range(len(labels))]
    given = {name: column for name, (_, column) in more.items()}
    kinds = {name: feature for name, (feature, _) in more.items()}
    return Dataset.from_dict(
        {"image": pictures, "label": labels, **given},
        Features({"image": ImageColumn(), "label": kind, **kinds}),
    )


def saved(place: Path, found: Dataset | DatasetDict) -> Path:
    found.save_to_disk(str(place))
    return place


@pytest.fixture
def photos(tmp_path) -> Path:
    """Ten pictures of each of two classes, in files."""
    for number in range(20):
        file = tmp_path / "files" / ("cat", "dog")[number % 2] / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(number))
    return tmp_path / "files"


def as_the_guide_says(folder: Path, place: Path) -> Path:
    """A set of a folder of images, by the guide's two lines."""
    found = load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(place.parent / "cache"))
    return saved(place, found)


def same(one: Task, other: Task) -> bool:
    """Whether both tasks have the same pixels and labels in the same order."""
    assert sizes(one) == sizes(other)
    assert one.classes == other.classes
    return all(
        a.tobytes() == b.tobytes() and i == j
        for part in ("train", "val", "test")
        for (a, i), (b, j) in zip(getattr(one, part), getattr(other, part), strict=True)
    )


# --- what is read ---------------------------------------------------------------------------------


def test_a_folder_that_was_saved_is_the_same_task(photos, tmp_path):
    """Cut and limited alike."""
    place = as_the_guide_says(photos, tmp_path / "set")
    for limits in ({}, {"limit_train": 9, "limit_test": 3}):
        assert same(load(photos, **limits), load(place, **limits))
    task = load(place)
    assert task.name == "set"
    assert sizes(task) == (12, 4, 4)
    assert task.left_out == ()
    assert set(task.train.labels) == {0, 1}


def test_parts_go_by_the_usual_names(photos, tmp_path):
    for number in range(4):
        file = tmp_path / "whole" / "valid" / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(50 + number))
    photos.rename(tmp_path / "whole" / "train")
    task = load(as_the_guide_says(tmp_path / "whole", tmp_path / "set"))
    assert same(load(tmp_path / "whole"), task)
    assert sizes(task) == (16, 4, 4)
    assert "val" not in task.origins


def test_a_dataset_alone_is_cut(tmp_path):
    task = load(saved(tmp_path / "set", rows([0, 1] * 10).with_format("torch")))
    assert sizes(task) == (12, 4, 4)
    assert task.train[0][0].mode == "RGB"


@pytest.mark.parametrize(
    ("kind", "labels", "classes", "found"),
    [
        (Value("string"), ["b", "a", "b", "ä", "a", "ä"], ("a", "b", "ä"), (1, 0, 1, 2, 0, 2)),
        (Value("int64"), [10, 9, 10, 2, 9, 2], ("2", "9", "10"), (2, 1, 2, 0, 1, 0)),
        # the order of the names, not of the alphabet; one has no image
        (ClassLabel(names=["z", "y", "x"]), [2, 2, 0, 0, 2, 0], ("z", "x"), (1, 1, 0, 0, 1, 0)),
    ],
)
def test_classes_by_the_kind_of_the_labels(tmp_path, kind, labels, classes, found):
    parts = {"train": rows(labels, kind), "validation": rows(labels, kind, 10)}
    task = load(saved(tmp_path / "set", DatasetDict({**parts, "Test": rows(labels, kind, 20)})))
    assert task.classes == classes
    for part in (task.train, task.val, task.test):
        assert tuple(part.labels.tolist()) == found
    unused = len(getattr(kind, "names", classes)) - len(classes)
    assert task.left_out == ("classes without images: 1",) * unused


def test_parts_may_number_their_classes_differently(tmp_path):
    turned = rows([0, 0, 1], ClassLabel(names=["dog", "cat"]))
    found = DatasetDict(train=rows([0, 0, 0, 1, 1, 1]), test=turned)
    assert load(saved(tmp_path / "set", found)).test.labels.tolist() == [1, 1, 0]


def test_parts_without_labels_or_a_name_are_left_out(tmp_path):
    found = DatasetDict(train=rows([0, 1] * 6), test=rows([-1] * 3), extra=rows([0]))
    task = load(saved(tmp_path / "set", found))
    assert task.left_out == ("extra/", "test/ (no labels)")
    assert task.origins["test"] == "cut from train: 20 %"


def test_images_are_read_as_those_of_files_are(tmp_path):
    """Turned upright by their tag, and 16 bits are not cut off."""
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = io.BytesIO()
    Image.fromarray(np.full((4, 4), 257 * 100, np.uint16)).save(deep, "PNG")
    pictures = [
        {"bytes": encoded(0, "JPEG", exif=exif), "path": "a.jpg"},
        {"bytes": deep.getvalue(), "path": None},
    ] * 6
    found = Dataset.from_dict({"x": pictures, "y": [0, 0, 1] * 4}).cast_column("y", NAMES)
    place = saved(tmp_path / "set", found.cast_column("x", ImageColumn(mode="L")))
    images = load(place).train.images.images
    assert images[0][0].size == (20, 24)
    assert np.asarray(images[1][0]).tolist() == [[[100] * 3] * 4] * 4


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_decoded_pixels_change_nothing(tmp_path, workers):
    place = saved(tmp_path / "set", rows([0, 1] * 10))

    def batches(room, workers):
        task = load(place)
        kept = keep_decoded((task.train, task.val, task.test), room)
        how = {"batch_size": 5, "workers": workers}
        loader = EvalLoader(task.train, eval_transform(PLAIN), **how)
        found = [images for _ in range(2) for images, _ in loader]
        assert kept is None or kept.told.startswith("12 of 20 images stay decoded")
        return found

    plain = batches("none", 0)
    for room in ("none", 0.001):
        assert all(map(torch.equal, plain, batches(room, workers)))


def test_a_set_is_listed_by_row_and_bytes(tmp_path):
    """Wherever it lies; another image in a row is another set."""
    first = rows([0, 1] * 10)
    listed = listing(load(saved(tmp_path / "a" / "set", first)))
    assert listed == listing(load(saved(tmp_path / "b", DatasetDict(train=first))))
    sizes_of = {
        file: size for part in listed for file, size in zip(part.files, part.sizes, strict=True)
    }
    assert sizes_of == {f"train/{number}": len(encoded(number)) for number in range(20)}
    assert listed != listing(load(saved(tmp_path / "c", rows([0, 1] * 10, first=3))))


# --- commands -------------------------------------------------------------------------------------


def test_the_same_weights_as_of_the_folder(photos, tmp_path, shell, monkeypatch):
    """To the bit, with a worker; the finished run answers from anywhere and notices other images"""
    weights = []
    monkeypatch.chdir(tmp_path)
    place = as_the_guide_says(photos, tmp_path / "set")
    for data, workers in ((photos, "0"), (place, "1")):
        assert shell(*FEW, "--data", data.name, "--workers", workers)[0] == 0
        weights.append((run_of(shell, data.name) / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    before = contents(run_of(shell, "set"))
    monkeypatch.chdir(shell.out)
    assert shell(*FEW, "--data", "../set")[0] == 0
    assert contents(run_of(shell, "set"))["model.safetensors"] == before["model.safetensors"]
    place.rename(tmp_path / "first")
    saved(place, rows([0, 1] * 11))
    assert "other images than there are now: 2 more" in shell.refusal(*FEW, "--data", str(place))


# --- refused --------------------------------------------------------------------------------------


def test_without_the_package_the_extra_is_named(tmp_path, shell, monkeypatch):
    place = saved(tmp_path / "set", DatasetDict(train=rows([0, 1] * 10)))
    monkeypatch.setitem(sys.modules, "datasets", None)
    words = r"was saved by the package datasets, .*: run pip install 'nettailor\[datasets\]', or"
    for folder in (place, place / "train"):
        with refused(words):
            load(folder)
    assert "nettailor[datasets]" in shell.refusal(*FEW, "--data", str(place))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rows([0, 1, -1, None] * 3), "6 of the 12 images of .*/set have no label"),
        (lambda: rows(["a", None, "b", ""], Value("string")), "2 of the 4 images of .* no label"),
        (lambda: rows([3, -1, 4], Value("int32")), "1 of the 3 images of .* no label"),
        (lambda: rows([0, 1], fine=(NAMES, [0, 1])),
         r"columns image \(Image\), label \(ClassLabel\), fine \(ClassLabel\), expected one"),
        (lambda: rows(["a", "b"], Value("string"), key=(Value("int64"), [0, 1])),
         r"label \(string\), key \(int64\), expected one Image and one of classes \("),
        (lambda: rows([0, 1], other=(ImageColumn(), [None, None])), r"other \(Image\), expected"),
        (lambda: rows([0.5, 1], Value("float32")), r"label \(float32\), expected"),
        (lambda: rows([0, 1]).remove_columns("image"), r"columns label \(ClassLabel\), expected"),
        (lambda: rows([1] * 9), "set has the one class 'dog'"),
        (lambda: DatasetDict(test=rows([0, 1])), "has the parts test, expected train, and maybe"),
        (lambda: DatasetDict(train=rows([0, 1]), valid=rows([0, 1]), validation=rows([0, 1])),
         "has both valid and validation: keep one for val"),
        (lambda: DatasetDict(train=rows([0, 1]), test=rows([0, -1])), "1 of the 2 images of "),
        (lambda: DatasetDict(train=rows([0, 1]), test=rows([0, 0])), "differ: test lacks dog; gi"),
        (lambda: DatasetDict(train=rows(["a", "b"], Value("string")),
                             test=rows(["a", "c"], Value("string"))),
         "differ: train lacks c; test lacks b; give every part the same"),
    ],
)  # fmt: skip
def test_what_is_no_task(tmp_path, make, words):
    place = saved(tmp_path / "set", make())
    with refused(words):
        load(place)


def test_groups_are_of_files(tmp_path):
    place = saved(tmp_path / "set", rows([0, 1] * 10))
    with refused("expected a folder of images, in whose paths split.group_by is searched"):
        load(place, group_by="x")


@pytest.mark.parametrize("damage", [b"", b"{}", None, "half"])
def test_a_damaged_set(tmp_path, damage):
    place = saved(tmp_path / "set", rows([0, 1] * 10))
    (arrow,) = place.glob("*.arrow")
    if damage is None:
        arrow.unlink()
    elif damage == "half":
        arrow.write_bytes(arrow.read_bytes()[: arrow.stat().st_size // 2])
    else:
        (place / "state.json").write_bytes(damage)
    with refused(r"/set cannot be read as a set that datasets has saved \(.*\): save it again"):
        load(place)


def test_an_image_that_cannot_be_read_is_named_by_its_row(tmp_path):
    pictures = [{"bytes": encoded(number), "path": None} for number in range(20)]
    pictures[6] = {"bytes": b"no image", "path": None}
    pictures[7] = None
    kinds = Features({"image": ImageColumn(), "label": NAMES})
    found = Dataset.from_dict({"image": pictures, "label": [0, 1] * 10}, kinds)
    task = load(saved(tmp_path / "set", DatasetDict(train=found, test=found, val=found)))
    for row, why in ((6, "cannot identify"), (7, "there is none")):
        with refused(rf"row {row} of .*/set/train cannot be read as an image \({why}.*--on-bad-"):
            task.train[row]
    assert listing(task)[0].sizes[6:8] == [8, 0]
    read, broken = without_broken(task, lambda image: None)
    assert sizes(read) == (18, 18, 18)
    assert len(broken) == 6
