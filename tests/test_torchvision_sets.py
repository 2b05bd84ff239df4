"""Torchvision's sets: each read in its own layout, fetched only if asked, refused if damaged."""

from pathlib import Path

import numpy as np
import pytest
from networks import refused
from set_files import LAYOUTS, idx, mnist_files
from task_folders import load, sizes
from torchvision import datasets

from nettailor.core.errors import UserError


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_mnist_family(tmp_path, name, packed):
    pixels = mnist_files(tmp_path, name, packed)
    before = sorted(tmp_path.rglob("*"))
    task = load(name.lower(), tmp_path)
    assert sizes(task) == (30, 10, 20)
    assert task.name == name
    assert len(task.classes) == 10
    assert sorted(tmp_path.rglob("*")) == before
    image, label = task.test[13]
    assert label == 3
    assert (np.asarray(image) == pixels["t10k"][13][..., None]).all()
    assert np.asarray(image).shape == (28, 28, 3)


def test_name_wins_over_a_folder(tmp_path, monkeypatch):
    mnist_files(tmp_path, "FashionMNIST")
    monkeypatch.chdir(tmp_path)
    task = load("FashionMNIST", Path())
    assert task.name == "FashionMNIST"
    assert task.classes[:2] == ("T-shirt/top", "Trouser")
    with pytest.raises(UserError, match="no images of class 'raw'"):
        load("./FashionMNIST", Path())


def test_limits_take_the_first_images_of_arrays(tmp_path):
    pixels = mnist_files(tmp_path, "FashionMNIST")
    task = load("FashionMNIST", tmp_path, limit_train=20, limit_test=3, val_fraction=0.5)
    assert sizes(task) == (10, 10, 3)
    taken = {
        np.asarray(images[i][0])[..., 0].tobytes()
        for images in (task.train, task.val)
        for i in range(10)
    }
    assert taken == {array.tobytes() for array in pixels["train"][:20]}
    assert task.test.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["CIFAR10", "MNIST", "dtd", "EuroSAT", "stanfordcars", "SVHN"])
def test_absent_set_is_not_downloaded(tmp_path, name):
    with pytest.raises(UserError, match=rf"(?i){name} not found whole under .*with --download or "):
        load(name, tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_download_is_asked_for_only_where_absent(tmp_path, monkeypatch):
    asked = []

    def fetch(self):
        asked.append(self.root)
        if not asked[1:]:
            mnist_files(Path(self.root), "MNIST", packed=False)

    monkeypatch.setattr(datasets.MNIST, "download", fetch)
    assert sizes(load("MNIST", tmp_path, download=True)) == (30, 10, 20)
    assert asked == [tmp_path]


def test_download_that_fails(tmp_path, monkeypatch):
    def fetch(self):
        raise OSError("no route\nto host")

    monkeypatch.setattr(datasets.MNIST, "download", fetch)
    with pytest.raises(UserError, match=r"MNIST could not be fetched into .*\(no route to host\)"):
        load("MNIST", tmp_path, download=True)


@pytest.mark.parametrize(
    ("packed", "name", "damage", "message"),
    [
        (True, "train-labels-idx1-ubyte.gz", lambda whole: whole[:20], "cannot be unpacked "),
        (False, "train-images-idx3-ubyte", lambda whole: whole[:-1], "not found whole under"),
        (False, "train-labels-idx1-ubyte", lambda _: idx(np.full(40, 10, np.uint8)),
         "has label 10, expected 0 to 9"),
        (False, "train-labels-idx1-ubyte", lambda _: idx(np.zeros(39, np.uint8)),
         "has 40 images but 39 labels"),
    ],
)  # fmt: skip
def test_damaged_files(tmp_path, packed, name, damage, message):
    mnist_files(tmp_path, "FashionMNIST", packed)
    file = tmp_path / "FashionMNIST" / "raw" / name
    file.write_bytes(damage(file.read_bytes()))
    with refused(message):
        load("FashionMNIST", tmp_path)


@pytest.mark.parametrize(("name", "write"), LAYOUTS.items(), ids=LAYOUTS)
def test_torchvision_sets_are_read_in_their_own_layout(tmp_path, monkeypatch, name, write):
    classes, counts = write(tmp_path, monkeypatch)
    task = load(name, tmp_path)
    assert task.classes == classes
    assert sizes(task) == counts
    for images in (task.train, task.val):
        assert set(images.labels) == set(range(len(classes)))
        # Every set here has as many images of each class.
        assert len(set(np.bincount(images.labels))) == 1
    image, label = task.train[0]
    assert image.mode == "RGB"
    assert label == task.train.labels[0]
    assert isinstance(label, int)
