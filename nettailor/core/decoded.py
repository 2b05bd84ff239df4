"""Decoded images, kept in memory that all loader processes of a command share."""

import mmap
import multiprocessing
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

_SHARE = 0.25  # of the memory that is free: what "auto" takes at most
_GB = 1e9
# what a container may use, by the two versions of Linux' control groups
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Decoded:
    """Pixels by the number of their image, as long as there is room; none is thrown out.

    One mapping without a file: what a process puts there, those that were forked find. A page of it
    takes memory once it is written to.
    """

    def __init__(self, count: int, limit: int) -> None:
        """
        Args:
            count: of images.
            limit: bytes of pixels at most.

        Raises OSError where there is no such memory.
        """
        self._lock = multiprocessing.Lock()
        self._pixels = np.frombuffer(mmap.mmap(-1, max(limit, 1)), np.uint8)
        # where each begins, its height and width; a height of 0 is of one that is not there
        self._table = _shared(3 * count).reshape(count, 3)
        self._used = _shared(1)

    def get(self, number: int) -> Image.Image | None:
        """The RGB image, or None where it is not there."""
        with self._lock:
            start, height, width = map(int, self._table[number])
        if not height:
            return None
        pixels = self._pixels[start : start + 3 * height * width]
        return Image.fromarray(pixels.reshape(height, width, 3))

    def put(self, number: int, image: Image.Image) -> None:
        """Keep an RGB image that is not there, if it fits."""
        size = 3 * image.width * image.height
        with self._lock:
            start = int(self._used[0])
            if self._table[number, 1] or start + size > len(self._pixels):
                return
            self._pixels[start : start + size] = np.asarray(image).reshape(-1)
            self._used[0] += size
            self._table[number] = start, image.height, image.width

    @property
    def told(self) -> str:
        """Such as `2,527 of 2,527 images stay decoded in memory, 1.49 GB`."""
        there = int((self._table[:, 1] > 0).sum())
        return (
            f"{there:,} of {len(self._table):,} images stay decoded in memory, "
            f"{self._used[0] / _GB:.3g} GB"
        )


def room_for_pixels(room: float | Literal["auto", "none"]) -> int:
    """Bytes, of GB; "auto": a quarter of the memory that is free, shared with other ranks here.

    0 where processes cannot be forked.
    """
    if room == "none" or "fork" not in multiprocessing.get_all_start_methods():
        return 0
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return int((_SHARE * _free() if room == "auto" else room * _GB) / ranks)


def _free() -> int:
    """Bytes of memory that this process may still use."""
    free: int = psutil.virtual_memory().available
    for file in _LIMITS:
        with suppress(OSError, ValueError):  # absent, or the word "max"
            free = min(free, int(Path(file).read_text(encoding="ascii")))
    return free


def _shared(count: int) -> NDArray[np.int64]:
    return np.frombuffer(mmap.mmap(-1, max(8 * count, 8)), np.int64, count)
