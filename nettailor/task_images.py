"""The images of a task before anything is trained: found, fetched, and read once."""

import itertools
from functools import partial
from pathlib import Path

from PIL import Image

from nettailor.core import ranks
from nettailor.core.config import RunConfig
from nettailor.core.console import Screen
from nettailor.core.data import MOST_READ_FIRST, PARTS, Task, load_task, without_broken
from nettailor.core.duplicates import duplicates
from nettailor.core.errors import UserError
from nettailor.core.files import write_json
from nettailor.core.images import EncodedImages, keep_decoded, source_of
from nettailor.core.reading import Doubts

SKIPPED_FILE = "skipped_images.json"
_SHOWN = 10  # broken images on the screen


def ready_task(config: RunConfig, screen: Screen) -> Task:
    """The task of the settings, and what is to be said of its images.

    Raises UserError where its data is missing, or too little for the ranks.
    """
    task = _load(config)
    keep_decoded((task.train, task.val, task.test), config.cache)
    if config.data == task.name and Path(task.name).is_dir():
        screen.say(f"{task.name}: the set of that name, not the folder: give ./{task.name} for it")
    if task.left_out:
        screen.say(f"left out: {', '.join(task.left_out)}")
    for line in task.notes:
        screen.say(line)
    if min(config.batch_size, len(task.train)) < ranks.count():
        raise UserError(
            f"{min(config.batch_size, len(task.train))} images a step for {ranks.count()} "
            "processes: give torchrun a lower --nproc-per-node, or a larger --batch-size"
        )
    if config.on_bad_image == "skip":
        task = _readable(task, Path(config.out), screen)
    return task


def _load(config: RunConfig) -> Task:
    load = partial(
        load_task,
        config.data,
        data_dir=Path(config.data_dir),
        out=Path(config.out),
        download=config.download,
        val_fraction=config.split.val,
        test_fraction=config.split.test,
        split_seed=config.split.seed,
        limit_train=config.limit.train,
        limit_test=config.limit.test,
        group_by=config.split.group_by,
    )
    if config.download and ranks.count() > 1:  # they must not all fetch it at once
        ranks.from_main(lambda: bool(load()))
    return load()


def _readable(task: Task, out: Path, screen: Screen) -> Task:
    """The task without its broken images, which are counted, shown and listed in a file."""
    count = sum(len(getattr(task, part)) for part in PARTS)
    doubts, read = Doubts(), itertools.count(1)
    with screen.counting("reading images") as tell:

        def advance(image: Image.Image | None) -> None:
            if image is not None:
                doubts.look(image)
            tell(next(read), count)

        task, broken = without_broken(task, advance)
    for line in doubts.lines():
        screen.say(line)
    if broken:
        listed = out / task.name / SKIPPED_FILE
        write_json(listed, [one._asdict() for one in broken])
        screen.say(f"left out {len(broken)} of {count} images, listed in {listed}:")
        for one in broken[:_SHOWN]:
            screen.say(f"  {one.part}: {one.reason}")
    return task


def read_whole(task: Task, screen: Screen) -> None:
    """Read every image once, and say what is doubtful of them; of a large set, that none is read.

    Raises UserError that names the first one that cannot be read whole.
    """
    doubts, parts = Doubts(), [getattr(task, part) for part in PARTS]
    if task.large:
        screen.say(
            f"{sum(map(len, parts)):,} images are not each read before training, as up to "
            f"{MOST_READ_FIRST:,} are: one that is damaged stops it when its turn comes; replace "
            "it, and the same command goes on"
        )
        return
    images = (part[index][0] for part in parts for index in range(len(part)))
    for image in screen.each("reading images", images, sum(map(len, parts))):
        doubts.look(image)
    for line in (*doubts.lines(), *duplicates(task)):
        screen.say(line)
    source = source_of(task.train)
    if isinstance(source, EncodedImages) and source.decoded:
        screen.say(source.decoded.told)
