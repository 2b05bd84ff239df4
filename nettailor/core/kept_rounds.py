"""Measurements that take minutes, kept while they are taken: what is interrupted goes on."""

import hashlib
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from nettailor.core.device import processor_name
from nettailor.core.errors import UserError
from nettailor.core.files import read_json, write_json

_LEAST_SECONDS = 5.0  # between two writes

_HOW = "the last of ten passes"  # rounds that were taken in another way do not count

Times = dict[str, list[float]]


class KeptRounds:
    """Whole rounds of measurements in a folder, a file for each set of things that are measured.

    Rounds that another machine, processor or version of torch has measured do not count.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        """fresh: nothing that is there counts."""
        self._folder, self._fresh = folder, fresh
        self._saved = time.perf_counter()

    def file(self, parts: Mapping[str, str], device: torch.device) -> Path:
        """Where the rounds of these parts are kept; `parts` says what each of them is."""
        what = [platform.node(), processor_name(device), str(torch.get_num_threads())]
        what += [torch.__version__, _HOW, *(f"{name}: {part}" for name, part in parts.items())]
        return self._folder / f"{hashlib.sha256(chr(0).join(what).encode()).hexdigest()[:16]}.json"

    def read(self, file: Path, names: list[str]) -> tuple[Times, float]:
        """Milliseconds by part, a number for each round, and the seconds that they took; none
        where there is no file, or a damaged one."""
        with suppress(UserError, KeyError, TypeError, ValueError, AttributeError):
            content = {} if self._fresh else read_json(file)
            times = {name: [float(one) for one in content["ms"][name]] for name in names}
            if len({len(measured) for measured in times.values()}) == 1:
                return times, float(content["seconds"])
        return {name: [] for name in names}, 0.0

    def save(self, file: Path, times: Times, seconds: float, *, now: bool) -> None:
        """Write the rounds that are whole, if it is time to or must be now."""
        if now or time.perf_counter() - self._saved > _LEAST_SECONDS:
            rounds = min(map(len, times.values()))
            whole = {name: measured[:rounds] for name, measured in times.items()}
            write_json(file, {"seconds": seconds, "ms": whole})
            self._saved = time.perf_counter()
            self._fresh = False
