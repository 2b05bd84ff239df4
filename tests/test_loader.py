"""Batches of an epoch: their order, their augmentation, and what stays the same at every call."""

import pickle
import random

import numpy as np
import pytest
import torch
from noise import PREPROCESSING, STRONG, Noise, seed_all
from task_folders import load, tree

from nettailor.core import loader as loading
from nettailor.core.data import without_broken
from nettailor.core.errors import UserError
from nettailor.core.loader import EvalLoader, TrainLoader
from nettailor.core.preprocessing import (
    Transform,
    eval_transform,
    train_transform,
)


def train_loader(count=11, *, batch_size=4, seed=7, workers=0, augmentation=STRONG, broken=None):
    return TrainLoader(
        Noise(count, broken),
        train_transform(PREPROCESSING, augmentation),
        batch_size=batch_size,
        seed=seed,
        workers=workers,
    )


def eval_loader(count=11, *, workers=0, broken=None):
    return EvalLoader(
        Noise(count, broken),
        eval_transform(PREPROCESSING),
        batch_size=4,
        workers=workers,
    )


def identical(left, right):
    left, right = list(left), list(right)
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


def fault_of(batches):
    try:
        list(batches)
    except UserError as fault:
        return str(fault)
    return None


def labels_of(batches):
    return [label for _, labels in batches for label in labels.tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_any_process(workers):
    """Channels-last floats and int64 labels; an image that cannot be read is one plain line."""
    for loader in (train_loader(workers=workers).epoch(0), eval_loader(workers=workers)):
        images, labels = next(iter(loader))
        assert (images.shape, images.dtype) == ((4, 3, 16, 16), torch.float32)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert (labels.shape, labels.dtype) == ((4,), torch.int64)
    for batches in (
        train_loader(12, workers=workers, broken=5).epoch(0),
        eval_loader(12, workers=workers, broken=5),
    ):
        assert fault_of(batches) == "image 5 is broken"


def test_batches_follow_from_seed_and_epoch_alone():
    loader = train_loader()
    zero, one = loader.epoch(0), loader.epoch(1)  # asked for ahead
    first = list(loader.epoch(3))
    for seed, again in enumerate((loader, train_loader())):
        seed_all(seed)
        assert identical(first, again.epoch(3))
    assert identical(zero, train_loader().epoch(0))
    assert identical(one, train_loader().epoch(1))
    assert labels_of(first) != labels_of(loader.epoch(4))
    assert labels_of(first) != labels_of(train_loader(seed=2).epoch(3))
    # the augmentation of one image as well
    alone = train_loader(1)
    images = [
        next(one)[0] for one in (alone.epoch(0), alone.epoch(1), train_loader(1, seed=2).epoch(0))
    ]
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_each_generator_is_seeded():
    def draws(image):
        drawn = [random.random(), np.random.rand(), torch.rand(()).item()]
        return torch.tensor(drawn).view(3, 1, 1)

    found = []
    for seed in (3, 4):
        transform = Transform(draws, (0.0,) * 3, (1.0,) * 3)
        loader = TrainLoader(Noise(2), transform, batch_size=2, seed=0, workers=0)
        seed_all(seed)
        found.append(next(loader.epoch(0))[0])
    assert torch.equal(*found)
    assert (found[0][0] != found[0][1]).all()


def test_workers_change_nothing():
    alone, helped = train_loader(40), train_loader(40, workers=2)
    for epoch in (0, 1, 5):
        assert identical(alone.epoch(epoch), helped.epoch(epoch))
    next(helped.epoch(2))  # an epoch left halfway does not reach the next
    assert identical(alone.epoch(3), helped.epoch(3))
    judged = eval_loader(workers=2)
    for _ in range(2):
        assert identical(eval_loader(), judged)
    batches = list(judged)
    assert len(judged) == len(batches) == 3
    assert labels_of(batches) == list(range(11))


def test_augmentation_does_not_depend_on_the_order():
    # The same image in a set of 11 and in one of 5: other batches, same epoch and index.
    def image(loader, label):
        return next(x[list(y).index(label)] for x, y in loader.epoch(0) if label in y)

    large = train_loader(11, batch_size=1)
    small = train_loader(5, batch_size=1)
    assert torch.equal(image(large, 2), image(small, 2))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_spawned_workers_change_nothing(monkeypatch, workers):
    """Where there is no fork, a worker gets images and transforms in a pickle."""
    monkeypatch.setattr(loading, "_START", "spawn")
    alone, helped = train_loader(), train_loader(workers=workers)
    for epoch in (0, 5):
        assert identical(alone.epoch(epoch), helped.epoch(epoch))
    assert identical(eval_loader(), eval_loader(workers=workers))
    assert fault_of(train_loader(12, workers=workers, broken=5).epoch(0)) == "image 5 is broken"


@pytest.mark.parametrize("policy", [None, "rand-m9-mstd0.5", "augmix-m3", "original"])
def test_tasks_and_transforms_travel_to_a_spawned_worker(tmp_path, policy):
    tasks = [load("digits"), load(tree(tmp_path / "photos", {"a": 5, "b": 5}))]
    tasks += [without_broken(task, lambda _: None)[0] for task in tasks]
    transform = train_transform(PREPROCESSING, STRONG.model_copy(update={"auto_augment": policy}))
    for task in tasks:
        there, other = pickle.loads(pickle.dumps((task.train, transform)))
        assert (there.labels == task.train.labels).all()
        image, _ = there[1]
        assert image.tobytes() == task.train[1][0].tobytes()
        seed_all(0)
        expected = transform(image)
        seed_all(0)
        assert torch.equal(other(image), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_state_is_left_alone(workers):
    def state():
        _, words, *place = np.random.get_state()
        return random.getstate(), words.tolist(), place, torch.get_rng_state().tolist()

    before = state()
    list(train_loader(workers=workers).epoch(0))
    list(eval_loader(workers=workers))
    assert state() == before


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(11, 4, [4, 4]), (12, 4, [4, 4, 4]), (9, 4, [4, 4]), (3, 4, [3]), (4, 4, [4])],
)
def test_incomplete_last_batch_is_left_out(count, batch_size, sizes):
    loader = train_loader(count, batch_size=batch_size)
    batches = list(loader.epoch(0))
    assert [len(labels) for _, labels in batches] == sizes
    assert loader.steps_per_epoch == len(sizes)
    assert len(set(labels_of(batches))) == sum(sizes)


def test_left_out_images_change_with_the_epoch():
    loader = train_loader(11)
    seen = {label for epoch in range(8) for label in labels_of(loader.epoch(epoch))}
    assert seen == set(range(11))


class Rare(Noise):
    """Of twenty images one is of class 1, and of class 2 four."""

    def __init__(self) -> None:
        super().__init__(20)
        self.labels = (0,) * 15 + (1,) + (2,) * 4


def test_balanced_sampling_draws_every_class_as_often():
    """A third of 4 000 images each, ± 4 standard deviations; the same again for the same seed."""

    def drawn(seed):
        loader = TrainLoader(
            Rare(), eval_transform(PREPROCESSING), batch_size=20, seed=seed, workers=0,
            balanced=True,
        )  # fmt: skip
        return [int(label) for epoch in range(200) for _, labels in loader.epoch(epoch)
                for label in labels]  # fmt: skip

    labels = drawn(7)
    assert len(labels) == 4000
    for label in range(3):
        assert abs(labels.count(label) - 4000 / 3) < 4 * (4000 * 2 / 9) ** 0.5
    assert drawn(7) == labels
    assert drawn(8) != labels
