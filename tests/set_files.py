"""Files as torchvision's sets have them, each in its own layout and of few images."""

import csv
import gzip
import json
import pickle

import numpy as np
import scipy.io
from task_folders import picture, tree
from torchvision import datasets


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


def cifar(root, patch, kind, key, names):
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    patch.setattr(kind, "train_list", [["train_file", None]])
    patch.setattr(kind, "test_list", [["test_file", None]])
    patch.setattr(kind, "meta", kind.meta | {"md5": None})
    for part, count in (("train", 8), ("test", 4)):
        entry = {"data": np.zeros((count, 3072), np.uint8), key: [i % 2 for i in range(count)]}
        (folder / f"{part}_file").write_bytes(pickle.dumps(entry))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: names}))
    return tuple(names), (6, 2, 4)


def cifar10(root, patch):
    return cifar(root, patch, datasets.CIFAR10, "labels", ["plane", "car"])


def cifar100(root, patch):
    return cifar(root, patch, datasets.CIFAR100, "fine_labels", ["apple", "fish"])


def svhn(root, patch):
    lists = {part: ["", f"{part}.mat", None] for part in ("train", "test")}
    patch.setattr(datasets.SVHN, "split_list", lists)
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
    lists = {"label": ("labels.mat", None), "setid": ("setid.mat", None)}
    patch.setattr(datasets.Flowers102, "_file_dict", lists)
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


# writes the files below a folder; their classes, and the images of the three parts
LAYOUTS = {
    "CIFAR10": cifar10, "CIFAR100": cifar100, "SVHN": svhn, "STL10": stl10, "GTSRB": gtsrb,
    "StanfordCars": stanford_cars, "Food101": food101, "OxfordIIITPet": pets,
    "Flowers102": flowers, "DTD": dtd, "FGVCAircraft": aircraft, "Country211": country,
    "EuroSAT": eurosat,
}  # fmt: skip
