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
# Linux' control groups by version: of a container, or a job of a cluster
_GROUPS = Path("/proc/self/cgroup")
_V2 = (Path("/sys/fs/cgroup"), "memory.max", "memory.current")
_V1 = (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")


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
        self._lock = multiprocessing.get_context("fork").Lock()
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
    """Bytes of memory that this process may still use: on the machine, and in its groups."""
    free: int = psutil.virtual_memory().available
    paths = ["/"]
    with suppress(OSError):  # another system
        lines = _GROUPS.read_text(encoding="utf-8").splitlines()
        paths += [line.split(":", 2)[2] for line in lines]
    for root, most, used in (_V2, _V1):
        groups = {root / path.lstrip("/") for path in paths}
        for group in {above for one in groups for above in (one, *one.parents)}:
            with suppress(OSError, ValueError):  # absent, or the word "max"
                left = int((group / most).read_text("ascii"))
                free = min(free, left - int((group / used).read_text("ascii")))
    return max(free, 0)


def _shared(count: int) -> NDArray[np.int64]:
    return np.frombuffer(mmap.mmap(-1, max(8 * count, 8)), np.int64, count)
