"""Commands called as a shell would, into one folder of runs: exit codes, streams, refusals."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nettailor.cli import teach
from nettailor.core.flags import run_command

SMALL = (
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--device", "cpu",
    "--workers", "0", "--epochs", "1", "--precision", "float32",
)  # fmt: skip
DIGITS = (*SMALL, "--limit.train", "60", "--limit.test", "20", "--batch-size", "16")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class Shell:
    """Runs commands in this process as a shell would, all into one folder of runs."""

    def __init__(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.out, self._monkeypatch, self._capsys = out, monkeypatch, capsys

    def __call__(
        self, *argv: str, main: Callable[[list[str]], None] = teach.main
    ) -> tuple[int, str]:
        """The exit code and what went to stderr."""
        self._monkeypatch.setattr("sys.argv", ["teach", *argv, "--out", str(self.out)])
        with pytest.raises(SystemExit) as left:
            run_command(main)
        assert isinstance(left.value.code, int)
        return left.value.code, self._capsys.readouterr().err

    def refusal(self, *argv: str, main: Callable[[list[str]], None] = teach.main) -> str:
        """The one line of a refusal, which leaves every file that was there as it was."""
        before = contents(self.out)
        code, err = self(*argv, main=main)
        after = contents(self.out)
        assert code == 2, err
        assert {name: after.get(name) for name in before} == before
        assert re.fullmatch(r"error: [^\n]+\n", err), err
        return err


def run_of(shell: Shell, task: str) -> Path:
    """The only teacher of a task."""
    (folder,) = (shell.out / task / "teacher").iterdir()
    return folder


def program(*argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "40"}
    return subprocess.run(
        [sys.executable, "-m", *argv], capture_output=True, text=True, env=environment, check=False
    )
