"""How much of the time training works, and how much it waits for images.

    python benchmarks/pipeline.py --data PHOTOS --image-size 224 --limit.train 1000

Images a second: of plain fine-tuning steps on one batch that stays in memory;
and of the loader alone, and of both together, in a first epoch, whose images are decoded from their
files, and in a second one, whose images are decoded already (`--cache`). Training works for the
rate of both over that of steps alone. All flags are settings, such as `--workers 2`.
"""

import sys
import time
from collections.abc import Callable, Iterable
from itertools import repeat

import torch
from steps import CLASSES, plain_steps, stepper
from torch import Tensor

from nettailor.core.console import Screen
from nettailor.core.flags import parse
from nettailor.core.loader import TrainLoader
from nettailor.session import start_session

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


if __name__ == "__main__":
    main()
