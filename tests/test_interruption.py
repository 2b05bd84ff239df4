"""SIGINT and SIGTERM: saved at the step, the right exit code, and on to the same bits."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import victim
from kills import COMMANDS, Warm, differences

from nettailor.core import interruption, loader, trainer, training_state
from nettailor.core.state import read_state
from nettailor.core.watch import StageWatcher
from nettailor.loaders import Loaders

STEPS = 5  # of an epoch
_, TEACH = COMMANDS["teach"]
LONG = 60.0  # seconds that nobody may have to wait

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture(scope="module")
def straight(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that nobody interrupted."""
    place = tmp_path_factory.mktemp("straight")
    assert run(warm, victim.run, "teach", TEACH, str(place)) == 0
    return place


def run(warm: Warm, target: Callable[..., object], *arguments: object) -> int:
    process = warm.start(target, *arguments)
    process.join(LONG)
    if process.is_alive():
        process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def teach(place: str, workers: int) -> None:
    """With states saved as seldom as users have them saved."""
    victim.run("teach", [*TEACH, "--workers", str(workers)], place)


def at_a_step(place: str, number: int, step: int, workers: int) -> None:
    """The signal comes in the midst of a step, to the whole group, as a terminal sends it."""
    os.setsid()
    take, taken = trainer._step, 0

    def signalled(self: Any, *batch: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == step:
            os.killpg(0, number)
        take(self, *batch)

    trainer._step = signalled
    teach(place, workers)


def from_a_worker(place: str, number: int) -> None:
    """The signal comes while everybody waits for an image of the third batch."""
    os.setsid()
    parent, read, get = os.getpid(), 0, loader._Augmented.__getitem__

    def signalled(self: Any, where: Any) -> Any:
        nonlocal read
        read += os.getpid() != parent
        if read == 40:
            time.sleep(0.5)
            os.killpg(0, number)
        return get(self, where)

    loader._Augmented.__getitem__ = signalled  # type: ignore[method-assign]
    teach(place, 1)


def in_validation(place: str) -> None:
    def validate(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LONG)

    Loaders.validate = validate  # type: ignore[assignment,method-assign]
    teach(place, 0)


def while_events_are_written(place: str) -> None:
    written = StageWatcher._write_events

    def signalled(self: StageWatcher, network: Any) -> None:
        if self._history:
            os.kill(os.getpid(), signal.SIGTERM)
        written(self, network)

    StageWatcher._write_events = signalled  # type: ignore[method-assign]
    teach(place, 0)


def twice(place: str, numbers: tuple[int, int]) -> None:
    """The second one while the state is saved because of the first."""

    def never_ends(*_: Any) -> None:
        os.kill(os.getpid(), numbers[1])
        time.sleep(LONG)

    training_state.write_state = never_ends  # type: ignore[assignment]
    at_a_step(place, numbers[0], 3, 0)


def saved(place: Path) -> tuple[int, int]:
    """Epochs that ended, and steps of the one after, in the teacher's state."""
    (path,) = (place / "runs").rglob("state/teacher.pt")
    state = read_state(path)
    return len(state["history"]), len(state["course"])


def shown(place: Path) -> str:
    return (place / "output.txt").read_text(encoding="utf-8")


def goes_on(warm: Warm, place: Path, straight: Path, workers: int = 0) -> None:
    """The same command ends with the same bits; what the first part wrote was one clear line."""
    assert "Traceback" not in shown(place)
    assert shown(place).endswith(
        "interrupted: the same command, given again without --overwrite, goes on from what is "
        "saved\n"
    )
    assert run(warm, teach, str(place), workers) == 0
    settings = [] if workers == 0 else ["digits/teacher/test_resnet-32px-seed0/config.yaml"]
    assert differences(straight, place) == settings


@pytest.mark.parametrize(
    ("number", "code", "step", "saved_at", "workers"),
    [
        (signal.SIGTERM, 143, 1, (0, 1), 0),
        (signal.SIGTERM, 143, STEPS, (0, STEPS), 0),
        (signal.SIGINT, 130, STEPS + 2, (1, 2), 0),
        (signal.SIGTERM, 143, STEPS + 2, (1, 2), 2),
        (signal.SIGINT, 130, STEPS + 2, (1, 2), 2),
    ],
)
def test_a_signal_at_a_step(
    warm: Warm,
    straight: Path,
    tmp_path: Path,
    number: int,
    code: int,
    step: int,
    saved_at: tuple[int, int],
    workers: int,
) -> None:
    """The first of all, the last of an epoch, one of the second epoch."""
    assert run(warm, at_a_step, str(tmp_path), number, step, workers) == code
    assert saved(tmp_path) == saved_at
    goes_on(warm, tmp_path, straight, workers)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_ends_loader_workers_too(
    warm: Warm, straight: Path, tmp_path: Path, number: int, code: int
) -> None:
    """They die before the process that waits for their batch has saved, within a few seconds."""
    began = time.monotonic()
    assert run(warm, from_a_worker, str(tmp_path), number) == code
    assert time.monotonic() - began < 20
    epochs, steps = saved(tmp_path)
    assert epochs == 0
    assert 1 <= steps < STEPS
    goes_on(warm, tmp_path, straight, workers=1)


def test_a_signal_in_validation(warm: Warm, straight: Path, tmp_path: Path) -> None:
    """It does not wait for the end of it, and no step is lost."""
    assert run(warm, in_validation, str(tmp_path)) == 143
    assert saved(tmp_path) == (0, STEPS)
    goes_on(warm, tmp_path, straight)


def test_a_signal_while_events_are_written(warm: Warm, straight: Path, tmp_path: Path) -> None:
    assert run(warm, while_events_are_written, str(tmp_path)) == 143
    assert saved(tmp_path) == (1, 0)
    goes_on(warm, tmp_path, straight)


@pytest.mark.parametrize(
    ("numbers", "code"),
    [((signal.SIGTERM, signal.SIGTERM), 143), ((signal.SIGINT, signal.SIGINT), 130)],
)
def test_a_second_signal_ends_at_once(
    warm: Warm, tmp_path: Path, numbers: tuple[int, int], code: int
) -> None:
    """Also a save that would take forever."""
    assert run(warm, twice, str(tmp_path), numbers) == code


def test_a_command_as_a_shell_starts_it(tmp_path: Path) -> None:
    """From outside, at any moment of many epochs: 143 within a few seconds, and a state."""
    argv = [*TEACH, "--teacher.epochs", "1000"]
    command = [sys.executable, "-m", "nettailor.teach", *argv]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch   2/1000" in line:
            break
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, told = process.communicate(timeout=LONG)
    assert time.monotonic() - began < 30  # on a machine that has much to do
    assert process.returncode == 143
    assert told.startswith("interrupted: ")
    assert told.count("\n") == 1
    epochs, _ = saved(tmp_path)
    assert 2 <= epochs < 1000


def test_without_handlers_nothing_is_asked() -> None:
    """A library that trains leaves the signals of its process alone."""
    with interruption.deferred() as asked:
        assert asked() == 0
    interruption.leave_if_asked()
