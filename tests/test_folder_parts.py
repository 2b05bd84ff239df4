"""Folders of parts under the names that people give them, and what is no class in a folder."""

import os
from pathlib import Path

import pytest
import yaml
from networks import refused
from task_folders import load, picture, sizes, tree

from nettailor.core.config import as_settings
from nettailor.core.errors import UserError
from nettailor.core.part_names import parts_of
from nettailor.core.settings import validate


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


SCENES = {"seg_train/seg_train/": 8, "seg_test/seg_test/": 3}


@pytest.mark.parametrize(
    ("classes", "pictures", "parts", "left_out"),
    [
        ({"Training/": 3, "Validation/": 2, "Testing/": 1}, (), (6, 4, 2), ()),
        ({"seg_train/": 3, "seg_dev/": 2, "seg_test/": 1}, (), (6, 4, 2), ()),
        ({"train/": 3, "eval/": 2, "test/": 1}, (), (6, 4, 2), ()),
        ({"TRAIN/": 3, "dev/": 2, "Test_Set/": 1}, (), (6, 4, 2), ()),
        # as a data set of scenes unpacks: each part in one more folder of its name
        (SCENES, ("seg_pred/seg_pred/0.png",), (12, 4, 6), ("seg_pred/",)),
        ({"train/": 10}, ("test/0.png",), (12, 4, 4), ("test/ (no class folders)",)),
        ({"train/": 10}, ("test/test/0.png",), (12, 4, 4), ("test/ (no class folders)",)),
        (
            {"train/": 8, "test/": 2, "notes/": None},
            ("val/0.png",),
            (12, 4, 4),
            ("notes/", "val/ (no class folders)"),
        ),
        # one folder in each class, or each its own
        ({"a/images": 5, "b/images": 5, "a/young as": 5, "b/young bs": 5}, (), (12, 4, 4), ()),
    ],
)
def test_parts_and_what_is_left_out(tmp_path, classes, pictures, parts, left_out):
    """Class folders a and b in each part, and single pictures; or the class folders themselves."""
    for name, number in classes.items():
        if number is None:
            (tmp_path / name).mkdir()
        else:
            each = {f"{name}a": number, f"{name}b": number} if name[-1] == "/" else {name: number}
            tree(tmp_path, each)
    for name in pictures:
        picture(tmp_path / name)
    task = load(tmp_path)
    assert task.classes == ("a", "b")
    assert sizes(task) == parts
    assert task.left_out == left_out


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


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("fold1/a fold1/b fold2/a fold2/b", r"a/, b/: which are classes\?"),
        ("A/a A/b B/a B/b C/a C/b", r"a/, b/: which are classes\?"),
        ("learn/a learn/b holdout/a holdout/b", r"a/, b/: which are classes\?"),
        ("cat/train/a cat/test/a dog/train/a dog/test/a", "test/, train/"),
    ],
)
def test_a_level_of_unknown_parts_is_refused(tmp_path, names, words):
    tree(tmp_path, dict.fromkeys(names.split(), 9))
    with refused(f"hold the same folders, {words}"):
        load(tmp_path)


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
