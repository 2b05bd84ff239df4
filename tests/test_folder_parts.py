"""Folders of parts under the names that people give them, and what is no class in a folder."""

import os
from pathlib import Path

import pytest
import yaml
from task_folders import load, picture, sizes, tree

from nettailor.core.config import as_settings
from nettailor.core.errors import UserError
from nettailor.core.part_names import parts_of
from nettailor.core.settings import validate


def parted(root: Path, **counts: int) -> Path:
    """Class folders a and b in each folder named, with so many pictures."""
    for name, count in counts.items():
        tree(root / name, {"a": count, "b": count})
    return root


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("train", "val", "test"), "train val test"),
        (("Training", "Testing"), "train test"),
        (("TRAIN", "Valid", "TEST"), "train val test"),
        (("seg_train", "seg_test", "seg_pred"), "train test -"),
        (("training_set", "test_set"), "train test"),
        (("train-images", "dev", "Test Images"), "train val test"),
        (("trainset", "evaluation", "testset"), "train val test"),
        (("train2017", "val2017"), "train val"),
        (("my data.train", "my data.eval"), "train val"),
        (("trainval", "test"), "train test"),
        (("freight_train", "bus"), "- -"),
        (("freight_train", "crash_test"), "- -"),
        (("trains", "tester", "contest", "interval", "device", "a.train"), "- - - - - -"),
    ],
)
def test_names_of_parts(names, parts):
    found = parts_of(names)
    assert [found.get(name, "-") for name in names] == parts.split()


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "Validation", "Testing"),
        ("seg_train", "seg_dev", "seg_test"),
        ("train", "eval", "test"),
        ("TRAIN", "dev", "Test_Set"),
    ],
)
def test_parts_are_taken_as_they_are(tmp_path, train, val, test):
    task = load(parted(tmp_path, **{train: 3, val: 2, test: 1}))
    assert task.classes == ("a", "b")
    assert sizes(task) == (6, 4, 2)
    assert task.left_out == ()


def test_an_unlabelled_part_is_left_out(tmp_path):
    """As a data set of scenes unpacks: each part in one more folder of its name."""
    parted(tmp_path / "seg_train", seg_train=8)
    parted(tmp_path / "seg_test", seg_test=3)
    for number in range(4):
        picture(tmp_path / "seg_pred" / "seg_pred" / f"{number}.png")
    task = load(tmp_path)
    assert task.classes == ("a", "b")
    assert sizes(task) == (12, 4, 6)
    assert task.left_out == ("seg_pred/",)


@pytest.mark.parametrize("inner", ["", "test/"])
def test_a_part_without_class_folders_is_left_out(tmp_path, inner):
    parted(tmp_path, train=10)
    picture(tmp_path / "test" / inner / "0.png")
    task = load(tmp_path)
    assert sizes(task) == (12, 4, 4)
    assert task.left_out == ("test/ (no class folders)",)


def test_flat_validation_beside_parts(tmp_path):
    parted(tmp_path, train=8, test=2)
    picture(tmp_path / "val" / "0.png")
    (tmp_path / "notes").mkdir()
    task = load(tmp_path)
    assert sizes(task) == (12, 4, 4)
    assert task.left_out == ("notes/", "val/ (no class folders)")


@pytest.mark.parametrize(
    "names", [("test", "train"), ("Training", "dev"), ("seg_test", "seg_train", "seg_pred")]
)
def test_flat_parts_are_no_classes(tmp_path, names):
    for name in names:
        for number in range(9):
            picture(tmp_path / name / f"{number}.png")
    (tmp_path / "labels.csv").write_text("0.png,cat\n")
    with pytest.raises(
        UserError, match=rf": {names[0]}/, {names[1]}/ have parts' names and no class folders: put"
    ) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [("fold1", "fold2"), ("A", "B", "C"), ("learn", "holdout")])
def test_a_level_of_unknown_parts_is_refused(tmp_path, names):
    parted(tmp_path, **dict.fromkeys(names, 9))
    with pytest.raises(UserError, match=r"hold the same folders, a/, b/: which are classes\?"):
        load(tmp_path)


def test_parts_inside_the_classes_are_refused(tmp_path):
    for name in ("cat", "dog"):
        parted(tmp_path / name, train=5, test=5)
    with pytest.raises(UserError, match="cat/, dog/ hold the same folders, test/, train/"):
        load(tmp_path)


def test_folders_inside_classes_are_fine_otherwise(tmp_path):
    """One folder in each, or each its own."""
    for name in ("cat", "dog"):
        tree(tmp_path / name, {"images": 5, f"young {name}s": 5})
    task = load(tmp_path)
    assert task.classes == ("cat", "dog")
    assert sum(sizes(task)) == 20


# --- what is no class -----------------------------------------------------------------------------


def a_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(as_settings(validate({}))))
    picture(folder / "evidence" / "0.png")


@pytest.mark.parametrize("place", ["runs/pets/teacher/one", "mine/pets/teacher/one", "old/one"])
def test_runs_are_no_class(tmp_path, monkeypatch, place):
    root = tree(tmp_path / "pets", {"cat": 10, "dog": 10})
    a_run(root / place)
    monkeypatch.chdir(root)
    task = load(".")
    assert task.classes == ("cat", "dog")
    assert task.left_out == (f"{place.partition('/')[0]}/ (runs)",)


def test_the_folder_for_runs_is_no_class(tmp_path, monkeypatch):
    """What it holds may be a list of broken images alone."""
    root = tree(tmp_path / "pets", {"cat": 10, "dog": 10})
    (root / "runs" / "pets").mkdir(parents=True)
    for number in range(5):
        picture(root / "runs" / "pets" / f"{number}.png")
    monkeypatch.chdir(root)
    assert load(".", out=Path("runs")).classes == ("cat", "dog")
    assert load(".").classes == ("cat", "dog", "runs"), "or this would prove nothing"


def test_settings_of_others_make_no_run(tmp_path):
    tree(tmp_path, {"cat": 10, "dog": 10})
    (tmp_path / "cat" / "config.yaml").write_text("data: cats\nbackbone: felis\nweight: 4 kg\n")
    assert load(tmp_path).classes == ("cat", "dog")


def test_other_files_are_counted_by_their_endings(tmp_path):
    tree(tmp_path, {"cat": 10, "dog": 10})
    for name in ("0.heic", "1.HEIC", "2.heic", "a.txt", "deep/b.txt", "README", "._0.png"):
        path = tmp_path / "cat" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    picture(tmp_path / "stray.png")
    task = load(tmp_path)
    assert sum(sizes(task)) == 20
    assert task.left_out == (
        "3 .heic", "2 .txt", "1 without an ending", "1 outside the class folders",
    )  # fmt: skip


def test_a_class_of_other_files_says_which(tmp_path):
    tree(tmp_path, {"cat": 10, "dog": 0})
    (tmp_path / "dog" / "0.heic").touch()
    with pytest.raises(UserError, match=r"no images of class 'dog'.*\(left out: 1 \.heic\)$"):
        load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_class_that_may_not_be_read(tmp_path):
    tree(tmp_path, {"cat": 10, "dog": 10})
    (tmp_path / "dog").chmod(0)
    try:
        with pytest.raises(UserError, match=r"dog: cannot be read \(Permission denied\)"):
            load(tmp_path)
    finally:
        (tmp_path / "dog").chmod(0o755)
