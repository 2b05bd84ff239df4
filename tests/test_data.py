"""Tasks of digits and of folders of images: how they are split and limited, what is refused."""

import numpy as np
import pytest
from networks import refused
from task_folders import load, picture, sizes, tree


def shades(images):
    return [images[index][0].getpixel((0, 0))[0] for index in range(len(images))]


# --- digits ---------------------------------------------------------------------------------------


def test_digits():
    task = load("Digits")
    # 1797 images: round(0.2 * 1797) = 359 for the test, round(0.25 * 1438) = 360 for validation.
    assert sizes(task) == (1078, 360, 359)
    assert task.name == "digits"
    assert task.classes == tuple("0123456789")
    image, label = task.train[0]
    assert image.mode == "RGB"
    assert image.size == (8, 8)
    assert label == task.train.labels[0]
    assert max(np.asarray(task.test[index][0]).max() for index in range(20)) == 255


def test_digits_limits():
    whole = load("digits")
    task = load("digits", limit_train=400, limit_test=50)
    assert sizes(task) == (300, 100, 50)
    assert list(task.test.labels) == list(whole.test.labels[:50])
    pool = {
        np.asarray(images[i][0]).tobytes()
        for images in (task.train, task.val)
        for i in range(len(images))
    }
    left = {np.asarray(whole.test[i][0]).tobytes() for i in range(len(whole.test))}
    assert not pool & left


def test_split_moves_with_its_seed_only():
    one, again, other = (load("digits", split_seed=seed).val.labels for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()


def test_a_limit_that_leaves_a_class_too_few_images():
    with refused(r"class '\d' has \d of the 12 images.*lift the limit"):
        load("digits", limit_train=12)


# --- folders --------------------------------------------------------------------------------------


def test_one_tree_is_split(tmp_path):
    task = load(tree(tmp_path / "pets", {"dog": 20, "cat": 20}))
    assert task.name == "pets"
    assert task.classes == ("cat", "dog")
    assert sizes(task) == (24, 8, 8)
    joined = [shade for images in (task.train, task.val, task.test) for shade in shades(images)]
    assert sorted(joined) == list(range(40))
    for images in (task.train, task.val, task.test):
        # Dogs were drawn first: shades 0 to 19 are of class index 1.
        assert [label == 1 for label in images.labels] == [shade < 20 for shade in shades(images)]
        assert [images[index][1] for index in range(len(images))] == list(images.labels)
        assert 2 * sum(images.labels) == len(images)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Validation"])
def test_three_parts_are_taken_as_they_are(tmp_path, val):
    for part, count in (("train", 3), (val, 2), ("test", 1)):
        tree(tmp_path / part, {"a": count, "b": count})
    task = load(tmp_path)
    assert sizes(task) == (6, 4, 2)
    assert task.train.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("counts", "limits", "expected"),
    [
        ({"train/a": 8, "train/b": 8, "test/a": 3, "test/b": 2}, {}, (12, 4, 5)),
        ({"train/a": 10, "train/b": 10, "val/a": 3, "val/b": 2}, {}, (16, 5, 4)),
        ({"train/a": 10, "train/b": 10}, {}, (12, 4, 4)),
        ({"a": 20, "b": 20}, {"limit_train": 8, "limit_test": 4}, (6, 2, 4)),
        # a limit above the count keeps all, and the user's own validation stays whole
        ({"a": 20, "b": 20}, {"limit_train": 99, "limit_test": 99}, (24, 8, 8)),
        (
            {f"{part}/{name}": 5 for part in ("train", "val", "test") for name in "ab"},
            {"limit_train": 4},
            (4, 10, 10),
        ),
    ],
)
def test_parts_that_are_missing_are_cut_from_train(tmp_path, counts, limits, expected):
    task = load(tree(tmp_path, counts), **limits)
    assert sizes(task) == expected
    assert 2 * sum(task.train.labels) == len(task.train)


def test_class_may_be_called_train(tmp_path):
    tree(tmp_path, {"train": 5, "plane": 5})
    assert load(tmp_path).classes == ("plane", "train")


def test_limits_on_sorted_files_keep_every_class(tmp_path):
    tree(tmp_path / "train", {"a": 20, "b": 20, "c": 20})
    tree(tmp_path / "test", {"a": 20, "b": 20, "c": 20})
    task = load(tmp_path, limit_train=24, limit_test=6)
    assert sizes(task) == (18, 6, 6)
    for images, each in ((task.train, 6), (task.val, 2), (task.test, 2)):
        assert [list(images.labels).count(label) for label in range(3)] == [each] * 3


def test_limit_above_the_count_of_arrays_keeps_all():
    assert sizes(load("digits", limit_train=9999, limit_test=9999)) == sizes(load("digits"))


def test_hidden_and_foreign_files_are_ignored(tmp_path):
    tree(tmp_path, {"a": 4, "b": 4, ".git": 2})
    picture(tmp_path / "a" / ".checkpoints" / "0.png")
    (tmp_path / "a" / "._000.png").write_bytes(b"resource fork")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    picture(tmp_path / "b" / "UPPER.JPG")
    task = load(tmp_path)
    assert task.classes == ("a", "b")
    assert sum(sizes(task)) == 9


THREE = dict.fromkeys(("train/cat", "train/dog", "valid/cat", "valid/owl"), 3)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            THREE | dict.fromkeys(("test/cat", "test/dog", "test/owl"), 3),
            "train/ lacks 'owl'; valid/ lacks 'dog'; give every part",
        ),
        ({"cat": 3, "dog": 0, "owl": 0}, r"no images of class 'dog', 'owl': add files \(.jpg"),
        ({"cat": 9, "dog": 2}, "class 'dog' has 2 of the 11 images, expected at least 3"),
        ({"cat": 9}, "one class 'cat': expected at least 2 classes"),
        ({}, "has no subfolders: expected one per class"),
        ({".": 1}, "has no subfolders: expected one per class"),
        (dict.fromkeys(("val/a", "val/b", "test/a", "test/b"), 3), "has test/, val/ but no train/"),
        (
            dict.fromkeys(("train/a", "train/b", "val/a", "val/b", "valid/a", "valid/b"), 3),
            "both val/ and valid/: keep one of them for val",
        ),
    ],
)
def test_folders_that_make_no_task(tmp_path, counts, message):
    with refused(message):
        load(tree(tmp_path, counts))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        *(
            (data, f"data is '{data}', expected 'digits', the path of an existing fol")
            for data in ("", "missing/folder")
        ),
        ("set.zip", "data is 'set.zip', a file, expected 'digits', the path of an existing"),
        ("Fashion-MNIST", "torchvision's MNIST, .*did you mean .*'fashionmnist'"),
        ("cifar11", "torchvision's MNIST, .*did you mean .*'cifar10'"),
        ("digit", "torchvision's MNIST, .*did you mean .*'digits'"),
    ],
)
def test_names_that_lead_nowhere(tmp_path, monkeypatch, data, message):
    (tmp_path / "set.zip").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with refused(message):
        load(data)
