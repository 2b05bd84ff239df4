import csv
import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from nettailor.core.data import load_task
from nettailor.core.errors import UserError
from nettailor.core.loader import EvalLoader
from nettailor.core.preprocessing import Preprocessing, eval_transform


def load(data, data_dir=Path("nowhere"), **changed):
    arguments = {
        "download": False,
        "val_fraction": 0.25,
        "test_fraction": 0.2,
        "split_seed": 0,
        "limit_train": None,
        "limit_test": None,
    }
    return load_task(str(data), data_dir=data_dir, **(arguments | changed))


def sizes(task):
    return len(task.train), len(task.val), len(task.test)


def picture(path, shade=0, mode="RGB", size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade).save(path)


def tree(root, counts):
    """A subfolder per class with so many pictures, each of a shade of its own."""
    shade = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(root / name / f"{number:03d}.png", (shade % 256, 0, 0))
            shade += 1
    return root


def fault_of(batches):
    try:
        list(batches)
    except UserError as fault:
        return str(fault)
    return ""


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
    assert load("digits").val.labels == load("digits").val.labels
    assert load("digits").val.labels != load("digits", split_seed=1).val.labels


def test_limit_too_small_for_the_classes():
    with pytest.raises(UserError, match=r"class '\d' has \d of the 12 images.*lift the limit"):
        load("digits", limit_train=12)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"val_fraction": 0.0}, r"val_fraction is 0.0: give a share above 0 and below 1"),
        ({"test_fraction": 1.0}, r"test_fraction is 1.0"),
        ({"limit_train": 0}, r"limit_train is 0: give at least 1"),
        ({"limit_test": -3}, r"limit_test is -3: give at least 1"),
    ],
)
def test_shares_and_limits_out_of_range(changed, message):
    with pytest.raises(UserError, match=message):
        load("digits", **changed)


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
    assert task.train.labels == (0, 0, 0, 1, 1, 1)


def test_missing_validation_is_cut_from_train(tmp_path):
    tree(tmp_path / "train", {"a": 8, "b": 8})
    tree(tmp_path / "test", {"a": 3, "b": 2})
    assert sizes(load(tmp_path)) == (12, 4, 5)


def test_missing_test_is_cut_from_train(tmp_path):
    tree(tmp_path / "train", {"a": 10, "b": 10})
    tree(tmp_path / "val", {"a": 3, "b": 2})
    assert sizes(load(tmp_path)) == (16, 5, 4)


def test_train_alone_is_split(tmp_path):
    tree(tmp_path / "train", {"a": 10, "b": 10})
    assert sizes(load(tmp_path)) == (12, 4, 4)


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


def test_limits_on_one_tree(tmp_path):
    task = load(tree(tmp_path, {"a": 20, "b": 20}), limit_train=8, limit_test=4)
    assert sizes(task) == (6, 2, 4)
    assert sum(task.test.labels) == 2


def test_limit_above_the_count_keeps_all(tmp_path):
    assert sizes(load(tree(tmp_path, {"a": 20, "b": 20}), limit_train=99, limit_test=99)) == (
        24,
        8,
        8,
    )


def test_limit_above_the_count_of_arrays_keeps_all():
    assert sizes(load("digits", limit_train=9999, limit_test=9999)) == sizes(load("digits"))


def test_limit_leaves_own_validation_whole(tmp_path):
    for part in ("train", "val", "test"):
        tree(tmp_path / part, {"a": 5, "b": 5})
    assert sizes(load(tmp_path, limit_train=4)) == (4, 10, 10)


def test_hidden_and_foreign_files_are_ignored(tmp_path):
    tree(tmp_path, {"a": 4, "b": 4, ".git": 2})
    picture(tmp_path / "a" / ".checkpoints" / "0.png")
    (tmp_path / "a" / "._000.png").write_bytes(b"resource fork")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    picture(tmp_path / "b" / "UPPER.JPG")
    task = load(tmp_path)
    assert task.classes == ("a", "b")
    assert sum(sizes(task)) == 9


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_come_as_rgb(tmp_path, mode):
    for name in "ab":
        for number in range(3):
            suffix = "tif" if mode == "CMYK" else "png"
            picture(tmp_path / name / f"{number}.{suffix}", 0, mode)
    image, _ = load(tmp_path).train[0]
    assert image.mode == "RGB"
    assert image.size == (6, 5)


def test_differing_class_folders_are_listed(tmp_path):
    tree(tmp_path / "train", {"cat": 3, "dog": 3})
    tree(tmp_path / "valid", {"cat": 3, "owl": 3})
    tree(tmp_path / "test", {"cat": 3, "dog": 3, "owl": 3})
    with pytest.raises(UserError, match=r"train/ lacks 'owl'; valid/ lacks 'dog'; give every part"):
        load(tmp_path)


def test_class_without_images(tmp_path):
    tree(tmp_path, {"cat": 3, "dog": 0, "owl": 0})
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"no images of class 'dog', 'owl': add files \(.jpg"):
        load(tmp_path)


def test_class_too_small_to_split(tmp_path):
    tree(tmp_path, {"cat": 9, "dog": 2})
    with pytest.raises(UserError, match=r"class 'dog' has 2 of the 11 images, expected at least 3"):
        load(tmp_path)


def test_one_class(tmp_path):
    tree(tmp_path, {"cat": 9})
    with pytest.raises(UserError, match=r"one class 'cat': expected at least 2 classes"):
        load(tmp_path)


def test_empty_folder(tmp_path):
    with pytest.raises(UserError, match="has no subfolders: expected one per class"):
        load(tmp_path)


def test_images_without_class_folders(tmp_path):
    picture(tmp_path / "0.png")
    with pytest.raises(UserError, match="has no subfolders: expected one per class"):
        load(tmp_path)


def test_parts_without_train(tmp_path):
    tree(tmp_path / "val", {"a": 3, "b": 3})
    tree(tmp_path / "test", {"a": 3, "b": 3})
    with pytest.raises(UserError, match="has test/, val/ but no train/"):
        load(tmp_path)


def test_two_validation_folders(tmp_path):
    for part in ("train", "val", "valid"):
        tree(tmp_path / part, {"a": 3, "b": 3})
    with pytest.raises(UserError, match="both val/ and valid/: keep one of them for val"):
        load(tmp_path)


@pytest.mark.parametrize("data", ["", "missing/folder"])
def test_missing_folder(data):
    with pytest.raises(UserError, match=f"data is '{data}', expected 'digits', the path of an exi"):
        load(data)


def test_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"set.zip', expected 'digits', the path of an existing fol"
    ):
        load(tmp_path / "set.zip")


@pytest.mark.parametrize(
    ("data", "hint"),
    [("Fashion-MNIST", "'fashionmnist'"), ("cifar11", "'cifar10'"), ("digit", "'digits'")],
)
def test_unknown_name_gets_near_ones(data, hint):
    with pytest.raises(UserError, match=rf"torchvision's MNIST, .*did you mean .*{hint}"):
        load(data)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("keep", [None, 0, 60])
def test_unreadable_image_is_named_in_one_line(tmp_path, keep, workers):
    """Not an image, empty, and cut off in the middle of its pixels."""
    for part in ("train", "val", "test"):
        tree(tmp_path / part, {"a": 2, "b": 2})
    noise = np.random.RandomState(0).randint(0, 256, (32, 32, 3), dtype=np.uint8)
    bad = tmp_path / "test" / "b" / "000.png"
    Image.fromarray(noise).save(bad)
    bad.write_bytes(b"no image" if keep is None else bad.read_bytes()[: keep * 20])
    task = load(tmp_path)
    assert len(task.test) == 4
    batches = EvalLoader(
        task.test,
        eval_transform(Preprocessing(8, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)),
        batch_size=2,
        workers=workers,
        pin_memory=False,
    )
    message = fault_of(batches)
    assert message.startswith(f"{bad.resolve()} cannot be read as an image (")
    assert message.endswith("left out by --on-bad-image skip")
    assert "\n" not in message


def test_image_removed_after_the_listing(tmp_path):
    tree(tmp_path, {"a": 5, "b": 5})
    task = load(tmp_path)
    for file in tmp_path.rglob("*.png"):
        file.unlink()
    with pytest.raises(UserError, match="cannot be read as an image"):
        task.train[0]


# --- torchvision's sets ---------------------------------------------------------------------------


def idx(array):
    """The array in idx form: two zero bytes, 8 for uint8, the number of axes, their lengths."""
    header = bytes([0, 0, 8, array.ndim])
    return header + b"".join(length.to_bytes(4, "big") for length in array.shape) + array.tobytes()


def mnist_files(data_dir, name, packed=True, train=40, test=20):
    raw = data_dir / name / "raw"
    raw.mkdir(parents=True)
    drawn = np.random.RandomState(0)
    pixels = {}
    for part, count in (("train", train), ("t10k", test)):
        pixels[part] = drawn.randint(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for stem, array in (("images-idx3", pixels[part]), ("labels-idx1", labels)):
            body = idx(array)
            file = raw / f"{part}-{stem}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(body) if packed else body)
    return pixels


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


def test_fashion_class_names(tmp_path):
    mnist_files(tmp_path, "FashionMNIST")
    assert load("FashionMNIST", tmp_path).classes[:2] == ("T-shirt/top", "Trouser")


def test_name_wins_over_a_folder(tmp_path, monkeypatch):
    mnist_files(tmp_path, "FashionMNIST")
    monkeypatch.chdir(tmp_path)
    assert load("FashionMNIST", Path()).name == "FashionMNIST"
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
    assert task.test.labels == (0, 1, 2)


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


def test_broken_gz(tmp_path):
    mnist_files(tmp_path, "FashionMNIST")
    file = tmp_path / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte.gz cannot be unpacked \("):
        load("FashionMNIST", tmp_path)


def test_broken_idx(tmp_path):
    mnist_files(tmp_path, "FashionMNIST", packed=False)
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="FashionMNIST not found whole under"):
        load("FashionMNIST", tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full(40, 10, np.uint8), "has label 10, expected 0 to 9"),
        (np.zeros(39, np.uint8), "has 40 images but 39 labels"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, labels, message):
    mnist_files(tmp_path, "FashionMNIST", packed=False)
    file = tmp_path / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte"
    file.write_bytes(idx(labels))
    with pytest.raises(UserError, match=message):
        load("FashionMNIST", tmp_path)


def cifar(root, patch, kind, key, names):
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    patch.setattr(kind, "train_list", [["train_file", None]])
    patch.setattr(kind, "test_list", [["test_file", None]])
    patch.setattr(kind, "meta", kind.meta | {"md5": None})
    for part, count in (("train", 8), ("test", 4)):
        entry = {
            "data": np.zeros((count, 3072), np.uint8),
            key: [index % 2 for index in range(count)],
        }
        (folder / f"{part}_file").write_bytes(pickle.dumps(entry))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: names}))


def cifar10(root, patch):
    cifar(root, patch, datasets.CIFAR10, "labels", ["plane", "car"])
    return ("plane", "car"), (6, 2, 4)


def cifar100(root, patch):
    cifar(root, patch, datasets.CIFAR100, "fine_labels", ["apple", "fish"])
    return ("apple", "fish"), (6, 2, 4)


def svhn(root, patch):
    patch.setattr(
        datasets.SVHN, "split_list", {part: ["", f"{part}.mat", None] for part in ("train", "test")}
    )
    for part, count in (("train", 40), ("test", 10)):
        labels = np.arange(count)[:, None] % 10 + 1  # the files say 10 for the digit 0
        pixels = np.zeros((32, 32, 3, count), np.uint8)
        scipy.io.savemat(root / f"{part}.mat", {"X": pixels, "y": labels})
    return tuple("0123456789"), (30, 10, 10)


def stl10(root, patch):
    folder = root / "stl10_binary"
    folder.mkdir()
    patch.setattr(datasets.STL10, "train_list", [["train_X.bin", None], ["train_y.bin", None]])
    patch.setattr(datasets.STL10, "test_list", [["test_X.bin", None], ["test_y.bin", None]])
    for part, count in (("train", 40), ("test", 10)):
        np.zeros(count * 3 * 96 * 96, np.uint8).tofile(folder / f"{part}_X.bin")
        (np.arange(count, dtype=np.uint8) % 10 + 1).tofile(folder / f"{part}_y.bin")
    names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    return names, (30, 10, 10)


def gtsrb(root, patch):
    folder = root / "gtsrb"
    for sign in range(43):
        for number in range(2):
            picture(folder / "GTSRB" / "Training" / f"{sign:05d}" / f"{number}.ppm")
    picture(folder / "GTSRB" / "Final_Test" / "Images" / "7.ppm")
    with (folder / "GT-final_test.csv").open("w") as file:
        csv.writer(file, delimiter=";").writerows([["Filename", "ClassId"], ["7.ppm", 42]])
    return tuple(f"{sign:05d}" for sign in range(43)), (43, 43, 1)


def stanford_cars(root, patch):
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    scipy.io.savemat(
        folder / "devkit" / "cars_meta.mat",
        {"class_names": np.array(["Audi", "Fiat"], dtype=object)},
    )
    for part, count, file in (
        ("train", 8, folder / "devkit" / "cars_train_annos.mat"),
        ("test", 4, folder / "cars_test_annos_withlabels.mat"),
    ):
        marks = [(f"{index}.png", index % 2 + 1) for index in range(count)]
        for name, _ in marks:
            picture(folder / f"cars_{part}" / name)
        table = np.array(marks, dtype=[("fname", object), ("class", object)])
        scipy.io.savemat(file, {"annotations": table})
    return ("Audi", "Fiat"), (6, 2, 4)


def food101(root, patch):
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    for part, count in (("train", 4), ("test", 2)):
        lists = {name: [f"{name}/{part}{i}" for i in range(count)] for name in ("pie", "soup")}
        (folder / "meta" / f"{part}.json").write_text(json.dumps(lists))
        for names in lists.values():
            for name in names:
                picture(folder / "images" / f"{name}.jpg")
    return ("pie", "soup"), (6, 2, 4)


def pets(root, patch):
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for part, count in (("trainval", 4), ("test", 2)):
        lines = []
        for label, name in ((1, "Abyssinian"), (2, "great_pyrenees")):
            for number in range(count):
                picture(folder / "images" / f"{name}_{part}{number}.jpg")
                lines.append(f"{name}_{part}{number} {label} 1 1\n")
        (folder / "annotations" / f"{part}.txt").write_text("".join(lines))
    return ("Abyssinian", "Great Pyrenees"), (6, 2, 4)


def flowers(root, patch):
    folder = root / "flowers-102"
    folder.mkdir()
    patch.setattr(
        datasets.Flowers102,
        "_file_dict",
        {"label": ("labels.mat", None), "setid": ("setid.mat", None)},
    )
    for number in range(1, 307):
        (folder / "jpg").mkdir(exist_ok=True)
        (folder / "jpg" / f"image_{number:05d}.jpg").touch()
    picture(folder / "jpg" / "image_00001.jpg")
    scipy.io.savemat(folder / "labels.mat", {"labels": np.arange(306) % 102 + 1})
    ids = np.arange(1, 307).reshape(3, 102)
    scipy.io.savemat(folder / "setid.mat", {"trnid": ids[0], "valid": ids[1], "tstid": ids[2]})
    return tuple(datasets.Flowers102.classes), (102, 102, 102)


def dtd(root, patch):
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        names = [f"{name}/{part}{i}.jpg" for name in ("dotted", "woven") for i in range(count)]
        (folder / "labels" / f"{part}1.txt").write_text("\n".join(names))
        for name in names:
            picture(folder / "images" / name)
    return ("dotted", "woven"), (6, 4, 2)


def aircraft(root, patch):
    folder = root / "fgvc-aircraft-2013b" / "data"
    folder.mkdir(parents=True)
    (folder / "variants.txt").write_text("Boeing 707\nA380\n")
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        lines = []
        for name in ("Boeing 707", "A380"):
            for number in range(count):
                picture(folder / "images" / f"{part}{name[0]}{number}.jpg")
                lines.append(f"{part}{name[0]}{number} {name}\n")
        (folder / f"images_variant_{part}.txt").write_text("".join(lines))
    return ("Boeing 707", "A380"), (6, 4, 2)


def country(root, patch):
    for part, count in (("train", 3), ("valid", 2), ("test", 1)):
        tree(root / "country211" / part, {"DE": count, "FR": count})
    return ("DE", "FR"), (6, 4, 2)


def eurosat(root, patch):
    tree(root / "eurosat" / "2750", {"Forest": 10, "River": 10})
    return ("Forest", "River"), (12, 4, 4)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("CIFAR10", cifar10),
        ("CIFAR100", cifar100),
        ("SVHN", svhn),
        ("STL10", stl10),
        ("GTSRB", gtsrb),
        ("StanfordCars", stanford_cars),
        ("Food101", food101),
        ("OxfordIIITPet", pets),
        ("Flowers102", flowers),
        ("DTD", dtd),
        ("FGVCAircraft", aircraft),
        ("Country211", country),
        ("EuroSAT", eurosat),
    ],
)
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
