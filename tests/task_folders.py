"""Tasks loaded in a word, and folders of pictures to load them from."""

import os
from pathlib import Path

from PIL import Image

from nettailor.core.data import load_task


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


def files_of(task, part):
    return [Path(os.fsdecode(file)) for file in getattr(task, part).files]


def picture(path, shade=0, mode="RGB", size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade).save(path)


def tree(root, counts):
    """A subfolder per class with so many pictures, each of a shade of its own."""
    shade = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(root / name / f"{number:03d}.png", (shade % 256, 0, 0))
            shade += 1
    return root
