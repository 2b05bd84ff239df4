"""Commands that are killed and started again until they end, and what they leave compared."""

import csv
import json
import logging
import multiprocessing
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import victim
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nettailor.core.state import read_state, write_state

# a tiny task: 5 steps an epoch
_TASK = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "2",
    "--limit.train", "120", "--limit.test", "40", "--batch-size", "16", "--device", "cpu",
    "--workers", "0", "--teacher.lr", "0.1", "--out", "runs",
]  # fmt: skip
_RANK = [
    "--prune.by", "rank", "--prune.finetune", "task", "--skips", "3", "--identities", "false",
    "--exits", "false", "--student.distill", "0",
    "--batch-norm", "follow", "--adapters", "false",
    "--prune.remove", "[3, 1]", "--prune.threshold", "0",
]  # fmt: skip
_ELIMINATE = ["--eliminate.top", "[1]", "--eliminate.references", "[head-only]"]
_SCALE = ["--backbone", "test_efficientnet", "--image-size", "40", "--scale.phi", "[-0.5, 0]"]
# everything may go, but no size is within reach, so that a search goes on to its end
_FAR = ["--gamma", "100", "--prune.tolerance", "0"]

# by name: the command, and the words after it
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "teach": ("teach", _TASK),
    "tailor, all": ("tailor", [*_TASK, *_FAR, "--levers", "[blocks, resolution]"]),
    "tailor, channels": ("tailor", [*_TASK, "--max-params", "0.1"]),
    "tailor, task": ("tailor", [*_TASK, *_FAR, "--prune.finetune", "task"]),
    "tailor, rank": ("tailor", [*_TASK, *_RANK, "--prune.tolerance", "0"]),
    "eliminate": ("eliminate", [*_TASK, *_ELIMINATE]),
    "knapsack": ("knapsack", _TASK),
    "scale": ("scale", [*_TASK, *_SCALE]),
    "compare --seeds": ("compare", [*_TASK, *_ELIMINATE, "--seeds", "0", "--modes", "all"]),
}

_CLOCKS = {"seconds", "train_seconds", "latency_ms", "profile", "peak_memory"}
_WARM = [
    "nettailor.commands.compare", "nettailor.commands.tailor", "nettailor.commands.eliminate",
    "nettailor.commands.knapsack", "nettailor.commands.scale", "timm",
]  # fmt: skip


@dataclass(frozen=True)
class Kill:
    """A death: in which command and stage, while which file was saved (if any), at which point.

    hooked: at a chosen point of a save, not at a chosen moment.
    """

    command: str
    stage: str
    saving: str
    point: str
    hooked: bool


@dataclass(frozen=True)
class End:
    """How an attempt ended: exit code, seconds, points passed inside saves, where it stood."""

    code: int
    seconds: float
    points: int
    stage: str
    saving: str
    point: str


class Warm:
    """A process that has imported everything, from which every attempt is forked."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_WARM)
        self.start(str).join()  # the first one waits for the imports

    def start(self, target: Callable[..., object], *arguments: object) -> BaseProcess:
        """Call a function in a process of its own."""
        process = self._context.Process(target=target, args=arguments)
        process.start()
        return process

    def attempt(
        self, name: str, place: Path, *, at: int | None = None, after: float | None = None
    ) -> End:
        """Start a command in a folder.

        Args:
            at: the point inside a save at which it kills itself, counted from 1.
            after: seconds from the begin of its first stage until it is killed.
        """
        command, argv = COMMANDS[name]
        place.mkdir(parents=True, exist_ok=True)
        told = place / "report"
        told.unlink(missing_ok=True)
        report = victim.Report(told)
        report.tell(stage=victim.FIRST)
        started = time.perf_counter()
        process = self.start(victim.live_and_die, command, argv, str(place), str(told), at)
        if after is not None:
            while process.is_alive() and report.read()[1] == victim.FIRST:
                process.join(0.01)
            process.join(after)
            process.kill()
        process.join()
        seconds = time.perf_counter() - started
        assert process.exitcode is not None
        return End(process.exitcode, seconds, *report.read())


def kill_until_it_ends(
    warm: Warm, name: str, place: Path, chance: random.Random, *, most: int, straight: End
) -> list[Kill]:
    """Kill a command at random, half of the times inside a save, and start it again, to its end.

    Args:
        most: kills, then it is left alone.
        straight: how it ended when nobody killed it.
    """
    kills: list[Kill] = []
    while True:
        at = after = None
        hooked = chance.random() < 0.5
        if len(kills) < most:
            if hooked:
                at = chance.randint(1, max(1, 2 * straight.points // most))
            else:
                after = chance.uniform(0, 2 * straight.seconds / most)
        end = warm.attempt(name, place, at=at, after=after)
        if end.code == 0:
            return kills
        if end.code != -9:
            shown = (place / "output.txt").read_text(encoding="utf-8")
            raise AssertionError(f"{name} ended with {end.code} after {kills}:\n{shown[-3000:]}")
        kills.append(Kill(name, end.stage, end.saving, end.point if hooked else "", hooked))


def flip_a_bit(state: Path) -> None:
    """Flip one bit of one weight in a state, and make its checksum right again."""
    content = read_state(state)
    tensor = next(t for t in content["network"].values() if t.ndim == 2)
    tensor.view(torch.int32).view(-1)[0] ^= 1 << 22
    write_state(state, content)


def differences(one: Path, other: Path) -> list[str]:
    """The files in which two folders of runs differ, clocks apart."""
    mine, theirs = _content(one / "runs"), _content(other / "runs")
    names = sorted(mine.keys() | theirs.keys())
    return [name for name in names if mine.get(name, "absent") != theirs.get(name, "absent")]


def _content(runs: Path) -> dict[str, Any]:
    """What counts of every file by its path; of TensorBoard's by their folder."""
    found: dict[str, Any] = {}
    for path in sorted(runs.rglob("*")):
        name = str(path.relative_to(runs))
        if path.parent.name == "events":
            found[name] = curves(path)
        elif path.suffix == ".lock" or not path.is_file() or path.parent.parent.name == "events":
            continue  # a kill after a run's last file leaves a lock's, which nobody holds
        elif path.parent.name == "comparison":
            found[name] = "there"  # tables of latencies
        elif path.suffix == ".json":
            found[name] = _timeless(json.loads(path.read_text(encoding="utf-8")))
        elif path.name == "metrics.csv":
            with path.open(encoding="utf-8", newline="") as file:
                found[name] = [_without_seconds(row) for row in csv.DictReader(file)]
        else:
            found[name] = path.read_bytes()
    return found


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _timeless(value) for key, value in content.items() if key not in _CLOCKS}
    return [_timeless(item) for item in content] if isinstance(content, list) else content


def _without_seconds(row: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in row.items() if "seconds" not in key}


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every curve, as TensorBoard shows it."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # a restart is no news here
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if not tag.startswith("seconds/")
    }


def inside_a_save(kills: Sequence[Kill]) -> int:
    """How many of the deaths came while a file was saved."""
    return sum(bool(kill.saving) for kill in kills)


def stage_of(kill: Kill) -> str:
    """What the command was at, in a word."""
    if kill.stage in (victim.FIRST, "between stages"):
        return "at the start" if kill.stage == victim.FIRST else kill.stage
    return "candidate" if kill.stage.startswith(("size-", "remove-")) else kill.stage
