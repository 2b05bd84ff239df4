"""What the training loop takes its batches from."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nettailor.core.errors import UserError
from nettailor.core.random_state import random_state, set_random_state

Batch = tuple[Tensor, Tensor]
_WHOLE = slice(None)


class Epochs(Protocol):
    """Batches of training images, epoch by epoch."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in every epoch."""

    @property
    def batch_size(self) -> int:
        """Images in a batch; the last of an epoch may have fewer."""

    def epoch(self, number: int, start: int = 0, part: slice = _WHOLE) -> Iterator[Batch]:
        """The batches of an epoch from the one numbered `start`, counted from 0, on.

        Each is images (B, C, H, W) and labels (B,); of each batch only the images in `part`.
        """


class LaterEpochs:
    """The epochs of another source after the first so many, numbered from 1 again."""

    def __init__(self, epochs: Epochs, after: int) -> None:
        self.steps_per_epoch, self.batch_size = epochs.steps_per_epoch, epochs.batch_size
        self._epochs, self._after = epochs, after

    def epoch(self, number: int, start: int = 0, part: slice = _WHOLE) -> Iterator[Batch]:
        return self._epochs.epoch(number + self._after, start, part)


class LoaderEpochs:
    """The epochs of anybody's DataLoader of (images, labels).

    Before each epoch torch's generator, and the loader's own, are seeded by (seed, epoch):
    shuffling, and augmentation that draws from them, are the same again in a run that goes on.
    """

    def __init__(self, loader: DataLoader[Any], seed: int) -> None:
        """Reads no image yet; UserError where the loader has no length."""
        try:
            self.steps_per_epoch = len(loader)
        except TypeError as error:
            raise UserError(
                "the training loader has no length: expected a DataLoader of a data set that has "
                "one; give it a `__len__`"
            ) from error
        if not self.steps_per_epoch:
            raise UserError("the training loader is empty: expected a batch at least")
        self.batch_size = loader.batch_size or 1
        self._loader, self._seed = loader, seed

    def epoch(self, number: int, start: int = 0, part: slice = _WHOLE) -> Iterator[Batch]:
        """The batches before `start` are read and dropped."""
        state = random_state()
        seed_loader(self._loader, self._seed * 1_000_003 + number)
        batches = checked(self._loader)
        for _ in islice(batches, start):
            pass
        if start:  # the steps that were taken had drawn from it as well
            set_random_state(state)
        for images, labels in batches:
            yield images[part], labels[part]


def seed_loader(loader: DataLoader[Any], seed: int) -> None:
    """Seed what a loader draws from: torch's generator, and those of its own."""
    torch.manual_seed(seed)
    for one in _own(loader):
        one.manual_seed(seed)


@contextmanager
def own_kept(loader: DataLoader[Any]) -> Iterator[None]:
    """A loader's own generators are put back afterwards."""
    before = [(one, one.get_state()) for one in _own(loader)]
    try:
        yield
    finally:
        for one, state in before:
            one.set_state(state)


def _own(loader: DataLoader[Any]) -> list[torch.Generator]:
    """The generators that a loader was given; a list of batches has none."""
    sampler, batches = (getattr(loader, name, None) for name in ("sampler", "batch_sampler"))
    owners = (loader, sampler, getattr(batches, "sampler", None))
    found = (getattr(owner, "generator", None) for owner in owners)
    return [one for one in found if isinstance(one, torch.Generator)]


def checked(loader: DataLoader[Any]) -> Iterator[Batch]:
    """The batches of a loader, one at least.

    UserError for one that is not (images (B, C, H, W), labels (B,)), and where there is none.
    """
    empty = True
    for batch in loader:
        empty = False
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            raise UserError(
                f"the loader gives {_described(batch)}, expected (images, labels): give a "
                "DataLoader of such pairs"
            )
        images, labels = batch
        if not (_is_tensor(images, 4) and images.is_floating_point() and _is_tensor(labels, 1)):
            raise UserError(
                f"the loader gives {_described(images)} and {_described(labels)}, expected images "
                "(B, C, H, W) of a floating type and labels (B,)"
            )
        yield images, labels
    if empty:
        raise UserError("the loader is empty: expected a batch at least")


def _is_tensor(value: object, dims: int) -> bool:
    return isinstance(value, Tensor) and value.ndim == dims


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    length = f" of {len(value)}" if isinstance(value, list | tuple | dict) else ""
    return f"a {type(value).__name__}{length}"
