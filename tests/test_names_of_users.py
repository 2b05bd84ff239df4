"""The commands beside files of the user's own that have the names of our parts."""

import subprocess
import sys
from pathlib import Path

import pytest

FOREIGN = "raise SystemExit('the user\\'s own file was imported')\n"
# each goes as far as it can without training: to a plan, or to runs that are not there
COMMANDS = {
    "teach": ["--dry-run"],
    "tailor": ["--dry-run"],
    "eliminate": ["--dry-run"],
    "knapsack": ["--dry-run"],
    "scale": ["--backbone", "resnet18"],
    "search": ["--trials", "0"],
    "compare": ["runs/none"],
    "export": ["--run", "runs/none"],
    "predict": ["none.jpg", "--run", "runs/none"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """teacher.py, prune.py, student/ and configs/, none of which is ours."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("teacher.py", "prune.py", "student/__init__.py", "configs/__init__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(FOREIGN, encoding="utf-8")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_such_a_folder(folder: Path, command: str) -> None:
    program = [sys.executable, "-m", f"nettailor.{command}", *COMMANDS[command]]
    run = subprocess.run(program, cwd=folder, capture_output=True, text=True)
    dry = COMMANDS[command] == ["--dry-run"]
    assert run.returncode == (0 if dry else 2), run.stderr
    assert "the user's own" not in run.stderr
    assert "Traceback" not in run.stderr


def test_the_files_would_be_in_the_way(folder: Path) -> None:
    """Or the test above would prove nothing."""
    for name in ("teacher", "prune", "student", "configs"):
        run = subprocess.run(
            [sys.executable, "-c", f"import {name}"], cwd=folder, capture_output=True, text=True
        )
        assert "the user's own" in run.stderr
