"""How much of the time training works, and how much it waits for images.

    python benchmarks/pipeline.py --data PHOTOS --image-size 224 --limit.train 1000

Images a second: of plain fine-tuning steps on one batch that stays in memory;
and of the loader alone, and of both together, in a first epoch, whose images are decoded from their
files, and in a second one, whose images are decoded already (`--cache`). Training works for the
rate of both over that of steps alone. Beside it timm's `create_loader`, of the same files, with the
same augmentation and as many workers; it decodes in each epoch. All flags are settings, such as
`--workers 2`.
"""

import sys
import time
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import torch
from PIL import Image
from steps import CLASSES, plain_steps, stepper
from timm.data import create_loader
from torch import Tensor
from torch.utils.data import Dataset

from nettailor.core.console import Screen
from nettailor.core.device import worker_count
from nettailor.core.flags import parse
from nettailor.core.images import Images
from nettailor.core.loader import TrainLoader
from nettailor.session import Session, start_session

Batch = tuple[Tensor, Tensor]
STEPS = 10  # on the batch that stays in memory


def rate(batches: Iterable[Batch], work: Callable[[Batch], None]) -> float:
    """Images a second, but for the first two batches, with which workers start."""
    images = 0
    for number, batch in enumerate(batches):
        work(batch)
        if number == 1:
            started = time.perf_counter()
        images += len(batch[1]) * (number > 1)
    return images / (time.perf_counter() - started)


class Files(Dataset[Any]):
    """A task's files, read as timm reads an image folder; `create_loader` gives the transform."""

    def __init__(self, images: Images) -> None:
        self._files, self._labels = images.files, images.labels
        self.transform: Callable[[Image.Image], Any] = lambda image: image

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        with Image.open(self._files[index]) as image:
            return self.transform(image.convert("RGB")), self._labels[index]


def timms_loader(session: Session) -> Iterable[Batch]:
    """timm's own loader of the training images."""
    config, of = session.config, session.preprocessing
    varied = config.augment
    loader: Iterable[Batch] = create_loader(
        Files(session.task.train),
        of.image_size,
        config.batch_size,
        is_training=True,
        re_prob=varied.random_erasing,
        scale=varied.scale,
        ratio=varied.ratio,
        hflip=varied.hflip,
        color_jitter=varied.color_jitter,
        auto_augment=varied.auto_augment,
        interpolation=of.interpolation,
        mean=of.mean,
        std=of.std,
        num_workers=(workers := worker_count(config.workers)),
        persistent_workers=workers > 0,
        device=session.accelerator.device,
        use_prefetcher=session.accelerator.device.type == "cuda",
    )
    return loader


def main() -> None:
    """Measure, print the table."""
    config, _ = parse("pipeline", "", sys.argv[1:])

    def loader() -> TrainLoader:
        """Of images that nobody has decoded."""
        return start_session(config, Screen()).loaders.train

    session = start_session(config, Screen())
    batch, device = next(session.loaders.train.epoch(1)), session.accelerator.device
    steps = plain_steps(config.backbone, device)
    on_device = [one.to(device) for one in batch]
    step = stepper(steps, on_device[0], on_device[1] % CLASSES, torch.float32)

    def train(batch: Batch) -> None:
        """A step; the images of the batch take the place of those in memory."""
        on_device[0].copy_(batch[0])
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    alone = rate(repeat(batch, STEPS), train)
    print("| | images a second | of steps alone |\n|---|---|---|")
    print(f"| steps alone | {alone:.1f} | 1 |")
    for name, work in (("loader alone", lambda _: None), ("both", train)):
        images = loader()
        for epoch in ("first", "second"):
            found = rate(images.epoch(1 + (epoch == "second")), work)
            print(f"| {name}, {epoch} epoch | {found:.1f} | {found / alone:.2f} |", flush=True)
        found = rate(timms_loader(session), work)
        print(f"| {name}, timm's loader | {found:.1f} | {found / alone:.2f} |", flush=True)


if __name__ == "__main__":
    main()
