"""Commands in processes of their own, and in such that are to die and tell where they stand."""

import importlib
import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from nettailor import evidence, finetune, hand_over, path_shares, tailoring
from nettailor.commands import knapsack
from nettailor.core import files, flags, training_state, watch
from nettailor.core.latency import measure_latency
from nettailor.student.latency_table import measure_paths

FIRST = "before any stage"
_LAYOUT = struct.Struct("q64s64s64s")  # points passed, stage, file being saved, last point


class Report:
    """What a process has told of itself; a mapped file, so it outlives any death."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _LAYOUT.size)

    def read(self) -> tuple[int, str, str, str]:
        """Points passed, stage, name of the file that is being saved, last point."""
        points, *texts = _LAYOUT.unpack(self._memory[:])
        stage, saving, point = (text.rstrip(b"\0").decode() for text in texts)
        return points, stage, saving, point

    def tell(self, **changes: Any) -> None:
        """Change `points`, `stage`, `saving` or `point`."""
        names = ("points", "stage", "saving", "point")
        now = dict(zip(names, self.read(), strict=True)) | changes
        texts = (str(now[name]).encode()[:63] for name in names[1:])
        self._memory[:] = _LAYOUT.pack(now["points"], *texts)


def live_and_die(command: str, argv: list[str], place: str, report: str, at: int | None) -> None:
    """Run `python -m nettailor.<command>` in a folder, with a state saved at every step.

    Args:
        command: such as `tailor`.
        argv: the words after it.
        place: the working folder; output goes to `output.txt` in it.
        report: the file of a `Report`.
        at: the point inside a save, counted over all saves from 1, at which the process kills
            itself; None where that is left to others.
    """
    told = Report(Path(report))
    told.tell(points=0, stage=FIRST, saving="", point="")
    training_state._LEAST_SECONDS = training_state._LEAST_RATIO = 0.0
    _watch_stages(told)
    _watch_saves(told, at)
    run(command, argv, place)


def save_every_epoch() -> None:
    """A state is saved at the end of each epoch, however short."""
    training_state.TrainingState.due = property(lambda stage: not stage.course)  # type: ignore[assignment]


def run(command: str, argv: list[str], place: str) -> NoReturn:
    """Run `python -m nettailor.<command>` in a folder and leave with its exit code."""
    os.chdir(place)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _hurry()
    sys.argv = [command, *argv]
    flags.run_command(importlib.import_module(f"nettailor.cli.{command}").main)


def _hurry() -> None:
    """Few pictures; latency for real, but in no time."""
    evidence._MISTAKES_PER_CLASS = 1

    def briefly(*arguments: Any, **settings: Any) -> Any:
        return measure_latency(*arguments, **{**settings, "seconds": 0.01})

    for module in (finetune, hand_over, knapsack):
        module.measure_latency = briefly  # type: ignore[attr-defined]
    path_shares.measure_paths = partial(measure_paths, seconds=0.01)  # type: ignore[attr-defined]
    draw = tailoring.StudentPictures
    # curves only: what is drawn takes most of a second
    tailoring.StudentPictures = lambda stages, _, cost: draw(stages, (), cost)  # type: ignore


def _watch_stages(told: Report) -> None:
    begin, close = watch.StageWatcher.begin, watch.StageWatcher.close

    def telling_begin(self: watch.StageWatcher, *given: Any, **named: Any) -> None:
        told.tell(stage=self._stage)
        begin(self, *given, **named)

    def telling_close(self: watch.StageWatcher) -> None:
        close(self)
        told.tell(stage="between stages")

    watch.StageWatcher.begin = telling_begin  # type: ignore[method-assign]
    watch.StageWatcher.close = telling_close  # type: ignore[method-assign]


def _watch_saves(told: Report, at: int | None) -> None:
    """Pass a point before and after every step of the writer, and die at the chosen one."""
    write_atomically, fsync, replace = files.write_atomically, os.fsync, os.replace

    def point(name: str, half: Path | None = None) -> None:
        points, _, saving, _ = told.read()
        if not saving:
            return
        told.tell(points=points + 1, point=name)
        if points + 1 == at:
            if half is not None:
                os.truncate(half, half.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def around(name: str) -> Iterator[None]:
        point(f"before {name}")
        yield
        point(f"after {name}")

    def watched(path: Path, write: Callable[[Path], object], **named: Any) -> None:
        def writing(temporary: Path) -> None:
            with around("the temporary"):
                write(temporary)
                point("in the temporary", temporary)

        told.tell(saving=f"{path.parent.name}/{path.name}")
        try:
            write_atomically(path, writing, **named)
        finally:
            told.tell(saving="")

    def watched_fsync(file: int) -> None:
        with around("a flush"):
            fsync(file)

    def watched_replace(source: Path, target: Path) -> None:
        what = "the move" if str(source).endswith(".tmp") else "the move of the one before"
        with around(what):
            replace(source, target)

    for name, module in list(sys.modules.items()):
        if name.startswith("nettailor.") and hasattr(module, "write_atomically"):
            module.write_atomically = watched
    os.fsync, os.replace = watched_fsync, watched_replace  # type: ignore[assignment]
