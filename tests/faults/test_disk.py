"""A disk that is full or read-only: one clear line, and the last good state as it was."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import victim
from kills import COMMANDS, Warm, differences
from torch.utils.tensorboard import SummaryWriter

from nettailor.core import trainer
from nettailor.core.errors import UserError
from nettailor.core.state import read_state
from nettailor.core.watch import StageWatcher
from nettailor.study import _Journal

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts")
_, TEACH = COMMANDS["teach"]


@pytest.fixture(scope="module")
def straight(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("straight")
    assert teach(warm, place) == 0
    return place


def teach(warm: Warm, place: Path, target: Callable[..., object] = victim.run) -> int:
    process = warm.start(target, "teach", TEACH, str(place))
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[None]:
    mount(*arguments, str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def terminated_at_step_7(command: str, argv: list[str], place: str) -> None:
    """Of 5 an epoch: the state holds an epoch and two steps."""
    victim.save_every_epoch()
    take, taken = trainer._step, 0

    def signalled(self: Any, *batch: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        take(self, *batch)

    trainer._step = signalled
    victim.run(command, argv, place)


def full_before_events(command: str, argv: list[str], place: str) -> None:
    """Somebody else fills the disk after the state of the first epoch was saved."""
    written = StageWatcher._write_events

    def curves(writer: SummaryWriter, epoch: int, network: Any) -> None:
        for number in range(200):  # more than the rest of the page that the file has already
            writer.add_scalar("learning_rate", number, epoch)

    def too_late(self: StageWatcher, network: Any) -> None:
        if self._history:
            fill(Path("runs"), 0)
            self._pictures = curves
        written(self, network)

    victim.save_every_epoch()
    StageWatcher._write_events = too_late  # type: ignore[method-assign]
    victim.run(command, argv, place)


def fill(disk: Path, pages: int) -> None:
    """All but some pages of it."""
    left = shutil.disk_usage(disk).free - pages * 4096
    (disk / "filler").write_bytes(bytes(left))


def refusal(place: Path) -> str:
    """What the last attempt wrote: one line that begins with `error:`."""
    output = place / "output.txt"
    told = output.read_text(encoding="utf-8")
    output.write_text("", encoding="utf-8")
    assert "Traceback" not in told
    last = told.splitlines()[-1]
    assert last.startswith("error: cannot write "), told
    return last


def states(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (place / "runs").rglob("state/*")}


def begun(warm: Warm, place: Path) -> dict[str, bytes]:
    """A teacher that was terminated within its second epoch; returns its states."""
    assert teach(warm, place, terminated_at_step_7) == 143
    found = states(place)
    assert set(found) == {"teacher.pt", "teacher.before.pt"}
    (path,) = (place / "runs").rglob("state/teacher.pt")
    assert len(read_state(path)["history"]) == 1
    return found


@pytest.mark.parametrize("pages", [0, 1, 2, 25, 250])
def test_a_full_disk(warm: Warm, straight: Path, tmp_path: Path, pages: int) -> None:
    """Full to the last byte, for events, for rows, for half a state."""
    disk = tmp_path / "runs"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=64m", "none"):
        before = begun(warm, tmp_path)
        fill(disk, pages)
        assert teach(warm, tmp_path) == 2
        assert "No space left on device; free the disk, or choose another" in refusal(tmp_path)
        assert states(tmp_path) == before
        (disk / "filler").unlink()
        assert teach(warm, tmp_path) == 0
        assert differences(straight, tmp_path) == []


def test_no_room_for_events(warm: Warm, straight: Path, tmp_path: Path) -> None:
    disk = tmp_path / "runs"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=64m", "none"):
        assert teach(warm, tmp_path, full_before_events) == 2
        assert "events/teacher: No space left on device; free the disk" in refusal(tmp_path)
        (disk / "filler").unlink()
        (path,) = disk.rglob("state/teacher.pt")
        assert len(read_state(path)["history"]) == 1
        assert teach(warm, tmp_path) == 0
        assert differences(straight, tmp_path) == []


def test_a_read_only_disk(warm: Warm, straight: Path, tmp_path: Path) -> None:
    before = begun(warm, tmp_path)
    runs = tmp_path / "runs"
    with mounted(runs, "--bind", str(runs)):
        mount("-o", "remount,ro,bind", str(runs))
        assert teach(warm, tmp_path) == 2
        assert "Read-only file system; free the disk, or choose another" in refusal(tmp_path)
        assert states(tmp_path) == before
    assert teach(warm, tmp_path) == 0
    assert differences(straight, tmp_path) == []


def test_half_a_record_in_the_journal(tmp_path: Path) -> None:
    """A search's journal on a disk that fills up goes on where it was."""
    disk = tmp_path / "runs"
    disk.mkdir()
    journal = disk / "study.journal"
    with mounted(disk, "-t", "tmpfs", "-o", "size=1m", "none"):
        begun = _Journal(journal)
        fill(disk, 1)
        with pytest.raises(UserError, match="No space left on device; free"):  # noqa: PT012
            for number in range(10_000):
                begun.append_logs([{"record": number}])
        assert not journal.read_bytes().endswith(b"\n")
        (disk / "filler").unlink()
        _Journal(journal).append_logs([{"record": "the next"}])
        records = [log["record"] for log in _Journal(journal).read_logs(0)]
        assert records == [*range(len(records) - 1), "the next"]


def test_a_read_only_disk_from_the_start(warm: Warm, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    with mounted(runs, "--bind", str(runs)):
        mount("-o", "remount,ro,bind", str(runs))
        assert teach(warm, tmp_path) == 2
        assert "Read-only file system" in refusal(tmp_path)
    assert not any(runs.iterdir())
