"""Decoded images in memory that processes share: the very pixels, or none."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nettailor.core import decoded
from nettailor.core.decoded import Decoded, room_for_pixels
from nettailor.core.errors import UserError
from nettailor.core.images import ArrayImages, ChosenImages, FileImages, keep_decoded
from nettailor.core.loader import EvalLoader, TrainLoader
from nettailor.core.preprocessing import Preprocessing, eval_transform, train_transform
from nettailor.core.sections import AugmentConfig

PREPROCESSING = Preprocessing(16, (0.5,) * 3, (0.25,) * 3, "bicubic", 1.0)
AUGMENTATION = AugmentConfig(scale=(0.3, 1.0))


def noise(seed: int, height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """JPEGs of different sizes."""
    paths = [tmp_path / f"{number}.jpg" for number in range(12)]
    for number, path in enumerate(paths):
        noise(number, 20 + number, 31 - number).save(path)
    return paths


def test_pixels_come_back_as_they_went_in() -> None:
    kept = Decoded(3, 10_000)
    assert kept.get(1) is None
    first, second = noise(0, 5, 7), noise(1, 30, 2)
    kept.put(1, first)
    kept.put(1, second)  # the first stays
    kept.put(0, second)
    assert kept.get(1).tobytes() == first.tobytes()
    assert kept.get(0).size == (2, 30)
    assert kept.get(0).tobytes() == second.tobytes()
    assert kept.get(2) is None
    assert kept.told == "2 of 3 images stay decoded in memory, 2.85e-07 GB"


def test_what_does_not_fit_stays_out() -> None:
    kept = Decoded(3, 3 * 5 * 7 + 11)
    kept.put(0, noise(0, 5, 7))
    kept.put(1, noise(1, 2, 2))  # 12 bytes where 11 are left
    kept.put(2, noise(2, 1, 3))
    assert [kept.get(number) is None for number in range(3)] == [False, True, False]


def test_a_process_finds_what_another_one_put_there() -> None:
    kept, image = Decoded(2, 1000), noise(3, 6, 6)
    other = multiprocessing.get_context("fork").Process(target=kept.put, args=(1, image))
    other.start()
    other.join()
    assert kept.get(1).tobytes() == image.tobytes()


def test_files_are_read_once(files: list[Path]) -> None:
    """Parts may share images; those of a test part have a place of their own."""
    images = FileImages.of(zip(files[:8], (0, 1) * 4, strict=True))
    train, val = (ChosenImages(images, np.array(some)) for some in ((0, 2, 4), (1, 3)))
    test = FileImages.of(zip(files[8:], (0, 1, 0, 1), strict=True))
    assert keep_decoded((train, val, test), 0.001) is images.decoded is test.decoded
    before = [part[i][0].tobytes() for part in (train, val, test) for i in range(len(part))]
    for path in files:
        path.unlink()
    after = [part[i][0].tobytes() for part in (train, val, test) for i in range(len(part))]
    assert before == after
    assert len(set(after)) == 9
    with pytest.raises(UserError, match="cannot be read"):
        images[5]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_are_the_same_with_and_without(files: list[Path], workers: int) -> None:
    """In the epoch that fills the memory and in the next; where half of it fits, too."""

    def batches(room: float | str, workers: int) -> list[torch.Tensor]:
        images = FileImages.of((file, i % 2) for i, file in enumerate(files))
        keep_decoded([images], room)  # type: ignore[arg-type]
        how = {"batch_size": 5, "workers": workers}
        train = TrainLoader(images, train_transform(PREPROCESSING, AUGMENTATION), seed=3, **how)
        val = EvalLoader(images, eval_transform(PREPROCESSING), **how)
        found = [x for epoch in (1, 2) for x, _ in train.epoch(epoch)] + [x for x, _ in val]
        assert images.decoded is None or not images.decoded.told.startswith("0 of 12")
        return found

    plain = batches("none", 0)
    for room in (0.001, 1e-5):
        assert all(map(torch.equal, plain, batches(room, workers)))


def test_room_by_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert room_for_pixels("none") == 0
    assert room_for_pixels(0.5) == 5e8
    whole = decoded.psutil.virtual_memory().available
    assert 0.1 * whole < room_for_pixels("auto") < 0.4 * whole

    job = tmp_path / "job" / "step"
    job.mkdir(parents=True)
    (tmp_path / "groups").write_text("0::/job/step\n")
    monkeypatch.setattr(decoded, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(decoded, "_V2", (tmp_path, "max", "current"))
    for group, most, used in ((job, "max", "7"), (job.parent, "4500000", "500000")):
        (group / "max").write_text(most)
        (group / "current").write_text(used)
    assert room_for_pixels("auto") == 1_000_000, "a quarter of what the job has left"
    (job / "max").write_text("2000007")
    assert room_for_pixels("auto") == 500_000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert room_for_pixels("auto") == 125_000


def test_no_memory_and_no_files() -> None:
    pixels = ArrayImages(np.zeros((2, 4, 4), np.uint8), np.arange(2))
    assert keep_decoded([pixels], "auto") is None
    with pytest.raises(UserError, match=r"cache = 1e\+09: the system does not give"):
        keep_decoded([FileImages.of([("a", 0)])], 1e9)
