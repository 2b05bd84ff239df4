"""Batches for training and evaluation, the same for any number of worker processes."""

import multiprocessing
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nettailor.core import ranks
from nettailor.core.errors import UserError
from nettailor.core.images import Images
from nettailor.core.interruption import leave_if_asked
from nettailor.core.preprocessing import Transform

Batch = tuple[Tensor, Tensor]
_Item = tuple[Tensor, int]
_Place = tuple[int, int]
_WHOLE = slice(None)
_CPU = torch.device("cpu")
# A fork shares the images in memory and is there at once; Windows has none.
_START = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


class TrainLoader:
    """Shuffled, augmented batches of training images.

    An image's augmentation is a pure function of (seed, epoch, index) and an epoch's order of
    (seed, epoch), so neither the number of workers nor a resume changes a batch. The global random
    state is left as found.

    batch_size: images a step. seed: >= 0. workers: processes, started at the first epoch and kept;
    0 for none. device: where images are normalised, and given.

    balanced: every class is drawn as often as the others, by images that may come twice in an
    epoch, or not at all.

    The last images that fill no batch are left out of the epoch; with fewer images than
    batch_size there is one batch of them all.
    """

    def __init__(
        self,
        images: Images,
        transform: Transform,
        *,
        batch_size: int,
        seed: int,
        workers: int,
        device: torch.device = _CPU,
        balanced: bool = False,
    ) -> None:
        size = min(batch_size, len(images))
        self._order = _EpochOrder(images.labels, size, seed, balanced=balanced)
        self._augmented, self._transform = _Augmented(images, transform, seed), transform
        self._loader, self._device = (
            _data_loader(self._augmented, self._order, workers, device),
            device,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Batches in every epoch."""
        return len(self._order)

    @property
    def batch_size(self) -> int:
        """Images in every batch."""
        return self._order.batch_size

    def epoch(self, number: int, start: int = 0, part: slice = _WHOLE) -> Iterator[Batch]:
        """The batches of epoch `number` (>= 0) from the one numbered `start`, counted from 0, on.

        Finish or drop one epoch before the next.

        Each is float32 images (B, 3, S, S) on the device, channels last, and int64 labels (B,) on
        the CPU; of each batch only the images in `part` are read and given.
        Raises UserError, in this process and in one line, where an image cannot be read.
        """
        self._order.epoch, self._order.start, self._order.part = number, start, part
        yield from _checked(self._loader, self._transform, self._device)

    def first(self, count: int) -> Tensor:
        """The first images of the first epoch, at most a batch, uint8 (count, 3, S, S), read here.

        Not while an epoch is read. Raises UserError where one cannot be read.
        """
        self._order.epoch, self._order.start, self._order.part = 1, 0, slice(count)
        images = []
        for place in next(iter(self._order)):
            item = self._augmented[place]
            if isinstance(item, UserError):
                raise item
            images.append(item[0])
        return torch.stack(images)


class EvalLoader:
    """Every image once, in its own order, in batches; iterate as often as needed.

    A batch is as TrainLoader's; the last may be smaller. Ranks take the batches in turns. workers
    and device as in TrainLoader. Iterating raises UserError, in this process and in one line, where
    an image cannot be read.
    """

    def __init__(
        self,
        images: Images,
        transform: Transform,
        *,
        batch_size: int,
        workers: int,
        device: torch.device = _CPU,
    ) -> None:
        self._order = _FixedOrder(len(images), batch_size)
        self._transform, self._device = transform, device
        self._loader = _data_loader(_Transformed(images, transform), self._order, workers, device)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        return _checked(self._loader, self._transform, self._device)


class _EpochOrder:
    """Batches of (epoch, index): a worker is told the epoch with the image."""

    def __init__(
        self, labels: NDArray[np.int64], batch_size: int, seed: int, *, balanced: bool
    ) -> None:
        self._count = len(labels)
        self._odds = None
        if balanced:
            _, of_image, images = np.unique(labels, return_inverse=True, return_counts=True)
            self._odds = 1 / (images[of_image] * len(images))
        self.batch_size = batch_size
        self._seed = seed
        self.epoch = self.start = 0
        self.part = _WHOLE

    def __len__(self) -> int:
        return self._count // self.batch_size

    def __iter__(self) -> Iterator[list[_Place]]:
        epoch = self.epoch
        seeds = np.random.SeedSequence(self._seed, spawn_key=(epoch,))
        generator = np.random.default_rng(seeds)
        if self._odds is None:
            order = generator.permutation(self._count)
        else:
            order = generator.choice(self._count, self._count, p=self._odds)
        size = self.batch_size
        for start in range(self.start * size, len(self) * size, size):
            yield [(epoch, index) for index in order[start : start + size][self.part].tolist()]


class _FixedOrder:
    def __init__(self, count: int, batch_size: int) -> None:
        self._count = count
        self._batch_size = batch_size

    @property
    def _starts(self) -> range:
        """Where this rank's batches begin: asked anew each time, one may work alone for a while."""
        return range(0, self._count, self._batch_size)[ranks.rank() :: ranks.count()]

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[list[int]]:
        for start in self._starts:
            yield list(range(start, min(start + self._batch_size, self._count)))


class _Augmented(Dataset[_Item | UserError]):
    def __init__(self, images: Images, transform: Transform, seed: int) -> None:
        self._images = images
        self._transform = transform
        self._seed = seed

    def __getitem__(self, place: _Place) -> _Item | UserError:
        try:
            image, label = self._images[place[1]]
        except UserError as fault:
            return fault
        with _seeded(np.random.SeedSequence(self._seed, spawn_key=place)):
            return self._transform.pixels(image), label


class _Transformed(Dataset[_Item | UserError]):
    def __init__(self, images: Images, transform: Transform) -> None:
        self._images = images
        self._transform = transform

    def __getitem__(self, index: int) -> _Item | UserError:
        try:
            image, label = self._images[index]
        except UserError as fault:
            return fault
        return self._transform.pixels(image), label


@contextmanager
def _seeded(seeds: np.random.SeedSequence) -> Iterator[None]:
    """Inside, the global CPU generators start from `seeds`; outside they are as before."""
    words = seeds.generate_state(8)
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch_state = torch.default_generator.get_state()
    random.seed(words[:4].tobytes())
    np.random.seed(words[4:6])
    # Not torch.manual_seed, which would reseed the CUDA generators too.
    torch.default_generator.manual_seed(int.from_bytes(words[6:].tobytes(), "little"))
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.default_generator.set_state(torch_state)


def _collate(items: list[_Item | UserError]) -> Batch | UserError:
    # A fault travels from a worker as a value: DataLoader would re-raise an exception with the
    # worker's whole traceback as its text.
    good: list[_Item] = []
    for item in items:
        if isinstance(item, UserError):
            return item
        good.append(item)
    # pixels lie in memory as Pillow has them: stacked by rows they are channels last at once
    images = torch.stack([image.permute(1, 2, 0) for image, _ in good]).permute(0, 3, 1, 2)
    return images, torch.tensor([label for _, label in good], dtype=torch.int64)


def _checked(
    loader: "DataLoader[_Item | UserError]", transform: Transform, device: torch.device
) -> Iterator[Batch]:
    try:
        for batch in loader:
            if isinstance(batch, UserError):
                # A new one: a frame that holds what it raises is a cycle, and workers that the
                # garbage collector takes down with a cycle keep it waiting for seconds.
                raise UserError(str(batch))
            pixels, labels = batch
            yield transform.normalised(pixels.to(device, non_blocking=True)), labels
    except Exception:
        leave_if_asked()  # the signal has ended the workers
        raise


def _data_loader(
    dataset: Dataset[_Item | UserError],
    order: "_EpochOrder | _FixedOrder",
    workers: int,
    device: torch.device,
) -> "DataLoader[_Item | UserError]":
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        multiprocessing_context=_START if workers > 0 else None,
        # Without a generator of its own DataLoader draws from the global one at every epoch.
        generator=torch.Generator(),
    )
