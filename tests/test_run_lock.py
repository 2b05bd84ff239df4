"""One process at a time in a run folder, told by real processes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import release, started
from shell import DIGITS, contents

from nettailor.core import run_lock
from nettailor.core.errors import UserError
from nettailor.core.run_lock import hold, let_go, require_free, shared_out

HOLDER = """
import sys
from pathlib import Path
from nettailor.core.run_lock import hold, let_go

print("up", flush=True)
for line in sys.stdin:
    hold(Path(sys.argv[1])) if line == "\\n" else let_go(Path(sys.argv[1]))
    print("done", flush=True)
"""


@pytest.mark.parametrize("end", ["lets go", "killed", "terminated"])
def test_a_lock_vanishes_with_its_process(tmp_path, end):
    folder = tmp_path / "kind" / "run"
    with started(HOLDER, str(folder)) as other:
        release(other)
        assert other.stdout.readline() == "done\n"
        for refused in (hold, require_free):
            with pytest.raises(UserError, match=r"run: another process is at work in this run"):
                refused(folder)
        assert not folder.exists()  # the lock is no content of the run
        if end == "lets go":
            other.stdin.write("let go\n")
            other.stdin.flush()
            assert other.stdout.readline() == "done\n"
            assert list(folder.parent.iterdir()) == []
        else:
            other.send_signal(signal.SIGKILL if end == "killed" else signal.SIGTERM)
            other.wait()
        require_free(folder)
        hold(folder)
        hold(folder)  # this process has it already
        let_go(folder)
        assert list(folder.parent.iterdir()) == []
        other.kill()


def test_a_fork_does_not_hold_on(tmp_path):
    """What loads images for a process that is killed lives on for a while."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        hold(tmp_path / "run")
        child = os.fork()
        if child == 0:
            os.write(writing, b"%d\n" % os.getpid())
            time.sleep(60)
        os._exit(0)
    os.waitpid(process, 0)
    worker = int(os.read(reading, 20))
    try:
        hold(tmp_path / "run")
        let_go(tmp_path / "run")
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_second_command_in_the_same_run_folder_ends(shell):
    long = ["--teacher.epochs", "1000"]
    command = [sys.executable, "-m", "nettailor.teach", *DIGITS, *long, "--out", str(shell.out)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as first:
        assert any("epoch   1/1000" in line for line in first.stdout)
        for flags in ([], ["--overwrite"]):
            code, err = shell(*DIGITS, *long, *flags)
            assert code == 2
            said = r"error: \S+: another process is at work in this run folder; .*\n"
            assert re.fullmatch(said, err)
        first.kill()
        first.wait()
    (folder,) = (path for path in (shell.out / "digits" / "teacher").iterdir() if path.is_dir())
    assert "config.yaml" in contents(folder)
    # it has gone with its process: what is refused now are the other settings
    code, err = shell(*DIGITS)
    assert "teacher.epochs is 1000 there and 1 here" in err
    code, err = shell(*DIGITS, "--overwrite")
    assert code == 0, err
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


class Job(NamedTuple):
    name: str
    place: Path


def test_what_another_process_is_at_comes_last(tmp_path, monkeypatch):
    """It is waited for, told once, and taken over when that process is killed."""
    monkeypatch.setattr(run_lock, "_LOOK_EVERY", 0.05)
    left = [Job(name, tmp_path / name) for name in ("first", "second", "third")]
    said: list[str] = []
    order = []
    with started(HOLDER, str(tmp_path / "first")) as other:
        release(other)
        assert other.stdout.readline() == "done\n"

        def say(message):
            said.append(message)
            other.kill()

        for job in shared_out(left, say):
            order.append(job.name)
            with pytest.raises(UserError), started(HOLDER, str(job.place)) as late:  # noqa: PT012
                release(late)
                assert late.wait() == 1  # this process holds what it works on
                raise UserError
            hold(tmp_path / "beside")
            left.remove(job)
    assert order == ["second", "third", "first"]
    assert said == ["waiting for other processes: first"]
    assert list(tmp_path.iterdir()) == []  # nothing is held any more
