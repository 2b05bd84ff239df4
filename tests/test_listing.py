"""A data set is what is in it: the same images under another path are the same set, others not."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import quick_latency
from PIL import Image
from shell import SMALL, run_of
from task_folders import files_of, load

from nettailor.cli import tailor, teach
from nettailor.core.console import Screen
from nettailor.core.data import images_of
from nettailor.core.duplicates import duplicates
from nettailor.core.errors import UserError
from nettailor.core.listing import Listed, listing, note_images, require_same_images
from nettailor.task_images import read_whole

FEW = (*SMALL, "--batch-size", "8")


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Ten pictures of each of two classes, and a run that has learnt them."""
    folder = tmp_path_factory.mktemp("made")
    for number in range(20):
        picture(folder / "photos" / ("cat", "dog")[number % 2] / f"{number}.png", number)
    with pytest.MonkeyPatch.context() as patch:
        quick_latency(patch)
        teach.main([*FEW, "--data", str(folder / "photos"), "--out", str(folder / "runs")])
    return folder


@pytest.fixture
def photos(made, tmp_path):
    return shutil.copytree(made / "photos", tmp_path / "here" / "photos")


@pytest.fixture
def run(made, shell):
    """The finished run, in the shell's folder of runs."""
    shutil.copytree(made / "runs", shell.out)
    return run_of(shell, "photos")


def listed_of(folder: Path) -> list[Listed]:
    return listing(load(folder, val_fraction=0.2))


def test_a_listing_says_part_class_file_and_size(photos):
    listed = listed_of(photos)
    counts = {one.part: len(one.files) for one in listed}
    assert counts == {"train": 13, "val": 3, "test": 4}
    assert len({file for one in listed for file in one.files}) == 20
    for one in listed:
        for label, file, size in zip(one.labels, one.files, one.sizes, strict=True):
            assert file.startswith(f"{label}/")
            assert size == (photos / file).stat().st_size


def test_digits_are_listed_by_number(tmp_path):
    listed = listed_of(Path("digits"))
    assert sum(len(one.files) for one in listed) == 1797
    assert {size for one in listed for size in one.sizes} == {0}
    note_images(tmp_path, listed)
    require_same_images(tmp_path, listed[::-1], "begin anew")
    for column in listed[0][1:]:
        del column[0]
    with pytest.raises(UserError, match=r"than there are now: 1 fewer \(train 0\)\. Put back"):
        require_same_images(tmp_path, listed, "begin anew")


def test_a_moved_set_is_the_same(photos, tmp_path):
    moved = shutil.copytree(photos, tmp_path / "elsewhere" / "photos")
    assert listed_of(moved) == listed_of(photos)
    note_images(tmp_path, listed_of(photos))
    require_same_images(tmp_path, listed_of(moved), "begin anew")


def test_what_differs_is_said(photos, tmp_path):
    """One file is new, one is gone, one has other pixels; no new split is to hide that."""
    before, changed = listed_of(photos), listed_of(photos)
    note_images(tmp_path, before)
    for one in changed:
        if "cat/2.png" in one.files:
            one.sizes[one.files.index("cat/2.png")] += 1
        if "cat/0.png" in one.files:
            place = one.files.index("cat/0.png")
            for column in one[1:]:
                del column[place]
    for column, value in zip(changed[1][1:], ("dog", "dog/99.png", 7), strict=True):
        column.append(value)
    with pytest.raises(UserError) as caught:
        require_same_images(tmp_path, changed, "begin anew")
    assert str(caught.value) == (
        f"{tmp_path} was made with other images than there are now: 1 more (dog/99.png); 1 fewer "
        "(cat/0.png); 1 in another part, of another class or of another size (cat/2.png). Put back "
        "what was there, or begin anew"
    )
    (tmp_path / "images.csv").write_text("part,class\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"images\.csv is damaged, or there is none; begin anew"):
        require_same_images(tmp_path, before, "begin anew")
    (tmp_path / "images.csv").unlink()  # as in runs of earlier versions
    with pytest.raises(UserError, match=r"images\.csv is damaged, or there is none; begin anew"):
        require_same_images(tmp_path, before, "begin anew")


def test_a_large_set_is_not_looked_at_first(shell, photos, monkeypatch, capsys):
    """A damaged image of the test, which is read last, costs no epoch once it is replaced."""
    monkeypatch.setattr("nettailor.core.data.MOST_READ_FIRST", 19)
    train, _, test = listed_of(photos)
    assert set(train.sizes) == {0}
    whole = photos / train.files[0], photos / test.files[0]
    whole[1].write_bytes(whole[1].read_bytes()[:200])
    with Screen() as screen:
        read_whole(load(photos), screen)
    assert capsys.readouterr().out.startswith("20 images are not each read before training")
    words = (*FEW, "--data", str(photos))
    assert f"{whole[1]} cannot be read as an image" in shell.refusal(*words)
    run = run_of(shell, "photos")
    (epoch,) = (run / "metrics.csv").read_text().splitlines()[1:]
    shutil.copy(*whole)
    assert shell(*words)[0] == 0
    assert (run / "metrics.csv").read_text().splitlines()[1:] == [epoch]


def test_however_a_folder_is_spelled_it_is_one_set(shell, run, photos, monkeypatch):
    """The finished run answers to every spelling, and from another place."""
    monkeypatch.chdir(photos.parent)
    before = (run / "model.safetensors").stat().st_mtime_ns
    moved = shutil.copytree(photos, photos.parents[1] / "there" / "photos")
    spellings = "photos", "photos/", "./photos", photos, f"{photos.parent}/../here/photos", moved
    for spelling in spellings:
        assert shell(*FEW, "--data", str(spelling))[0] == 0
    assert (run / "model.safetensors").stat().st_mtime_ns == before


def test_images_added_after_the_teacher_are_refused(shell, run, photos):
    """They would deal the parts anew, and the teacher has seen what validation then holds."""
    words = (*FEW, "--data", str(photos))
    for number, name in enumerate(("cat/new1.png", "dog/new2.png")):
        picture(photos / name, 98 + number)
    for main in (teach.main, tailor.main):
        shown = shell.refusal(*words, main=main)
        assert re.search(r"other images than there are now: 2 more \(cat/new1.png, dog/new2", shown)
    for name in ("cat/new1.png", "dog/new2.png"):
        (photos / name).unlink()
    assert shell(*words, "--tolerance", "100", main=tailor.main)[0] == 0
    # another set of the same name
    for number in range(20):
        path = photos / ("cat", "dog")[number % 2] / f"{number}.png"
        path.unlink()
        picture(path.with_stem(f"{20 + number}"), 20 + number)
    shown = shell.refusal(*words)
    assert "was made with other images than there are now" in shown


def test_a_folder_called_as_a_set_is_pointed_at(shell, photos, monkeypatch, capsys):
    monkeypatch.chdir(photos.parent)
    shutil.copytree(photos, photos.parent / "digits")
    shell(*FEW, "--limit.train", "60", "--limit.test", "20", "--dry-run")
    # the shell has read standard error alone
    assert shell(*FEW, "--data", "./digits")[0] == 0
    assert (shell.out / "digits" / "teacher").exists()


def test_the_same_file_in_two_parts_or_classes_is_said(shell, photos):
    """Two pictures that training has lie in the test as well, and a cat is a dog, too."""
    for name in ("cat/0.png", "dog/1.png"):
        (photos / "train" / name).parent.mkdir(parents=True, exist_ok=True)
    for number in range(20):
        name = f"{('cat', 'dog')[number % 2]}/{number}.png"
        (photos / name).rename(photos / "train" / name)
    for number in range(4):
        picture(photos / "test" / ("cat", "dog")[number % 2] / f"{number}.png", 50 + number)
    shutil.copy(photos / "train" / "cat" / "0.png", photos / "test" / "cat" / "copy.png")
    shutil.copy(photos / "train" / "dog" / "1.png", photos / "test" / "dog" / "copy.png")
    shutil.copy(photos / "train" / "cat" / "2.png", photos / "train" / "dog" / "2.png")
    for folder in ("cat", "dog"):
        (photos / folder).rmdir()
    task = load(photos, val_fraction=0.2)
    said = list(duplicates(task))
    assert said[0].startswith("warning: ")
    assert "in different parts: what was learnt is asked again" in said[0]
    copies = sum(file.name == "copy.png" for file in files_of(task, "test"))
    assert copies == 2
    assert "copy.png" in said[0]
    assert (
        said[1]
        == ("warning: 2 files are the same as others in different classes (cat/2.png = dog/2.png)")
        or "dog/2.png = cat/2.png" in said[1]
    )
    assert task.origins == {"val": "cut from train: 20 %"}
    assert images_of(task)["test"] == {"images": 6, "smallest": 3, "from": "as given"}


def test_no_two_files_are_the_same_by_their_size(photos):
    """Pictures of one size in bytes that differ are no duplicates."""
    task = load(photos, val_fraction=0.2)
    assert len({size for one in listing(task) for size in one.sizes}) < 20
    assert list(duplicates(task)) == []
    assert task.origins == {"val": "cut from train: 20 %", "test": "cut from train: 20 %"}


def test_predictions_name_file_and_class(run):
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 + 4
    for row in rows:
        assert row["file"].startswith(f"{row['class']}/")
        assert row["class"] == ("cat", "dog")[int(row["label"])]
        assert row["predicted_class"] == ("cat", "dog")[int(row["predicted"])]
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["images"]["val"] == {
        "images": 3, "smallest": 1, "from": "cut from train: 20 %",
    }  # fmt: skip


def test_pictures_of_mistakes_name_classes_and_file(shell, tmp_path):
    """The same six pictures lie in both classes of the test, so that six of the twelve are wrong;
    all have one name but for its case, and so would the pictures of a class."""
    photos = tmp_path / "photos"
    classes = ("cafe\u0301: no.yes?", "z" * 200)
    for number in range(20):
        picture(photos / "train" / classes[number % 2] / f"{number}.png", number)
    for number in range(6):
        for name in classes:
            stem = ("a picture.of", "A picture.of")[number % 2] + "x" * 100
            picture(photos / "test" / name / f"{name[0]}{number}" / f"{stem}.png", 50 + number)
    assert shell(*FEW, "--data", str(photos))[0] == 0
    (run,) = (shell.out / "photos" / "teacher").iterdir()
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    wrong = {row["picture"] for row in rows if row["label"] != row["predicted"]}
    assert len({name.casefold() for name in wrong}) == 6
    assert {row["picture"] for row in rows if row["label"] == row["predicted"]} == {""}
    assert {path.name for path in (run / "mistakes").iterdir()} == wrong
    short = {classes[0]: "caf\u00e9_no_yes_", classes[1]: "z" * 60}
    stem = "a_picture_of" + "x" * 48
    for row in rows:
        words = f"{short[row['class']]}-as-{short[row['predicted_class']]}-{stem}"
        if row["picture"]:
            assert re.fullmatch(rf"{words}(-\d)?\.png", row["picture"], re.IGNORECASE)
            places = (run / "mistakes" / row["picture"], photos / row["file"])
            shown, original = (np.asarray(Image.open(place)) for place in places)
            assert np.array_equal(shown, original)


def test_a_file_name_that_is_no_text(shell, photos):
    """As archives of other systems leave them."""
    try:
        (photos / "cat" / "0.png").rename(photos / "cat" / os.fsdecode(b"\xff0.png"))
    except OSError:
        pytest.skip("this file system takes text only")
    assert shell(*FEW, "--data", str(photos))[0] == 0
    (run,) = (shell.out / "photos" / "teacher").iterdir()
    assert b"cat/\xff0.png" in (run / "images.csv").read_bytes()
    assert shell(*FEW, "--data", str(photos))[0] == 0
    rows = (run / "predictions.csv").read_bytes().splitlines()
    assert [sum(row.startswith(part) for row in rows) for part in (b"val,", b"test,")] == [3, 4]
