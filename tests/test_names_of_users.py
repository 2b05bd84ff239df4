"""The commands beside files of the user's own that have the names of our parts."""

import subprocess
import sys

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
def folder(tmp_path_factory):
    """teacher.py, prune.py, student/ and configs/, none of which is ours."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("teacher.py", "prune.py", "student/__init__.py", "configs/__init__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(FOREIGN, encoding="utf-8")
    return folder


# all in one process, as `python -m` starts each: what is heavy is imported once
PROGRAM = """
import runpy, sys

for command, arguments in COMMANDS.items():
    sys.argv = [command, *arguments]
    code = 0
    try:
        runpy.run_module(f"nettailor.{command}", run_name="__main__")
    except SystemExit as left:
        code = left.code
    print(command, code, file=sys.stderr)
"""


def test_every_command_in_such_a_folder(folder):
    program = [sys.executable, "-c", f"COMMANDS = {COMMANDS!r}\n{PROGRAM}"]
    run = subprocess.run(program, cwd=folder, capture_output=True, text=True)
    lines = run.stderr.splitlines()
    for command, arguments in COMMANDS.items():
        assert f"{command} {0 if arguments == ['--dry-run'] else 2}" in lines, run.stderr
    assert "the user's own" not in run.stderr
    assert "Traceback" not in run.stderr


def test_the_files_would_be_in_the_way(folder):
    """Or the test above would prove nothing."""
    for name in ("teacher", "prune", "student", "configs"):
        run = subprocess.run(
            [sys.executable, "-c", f"import {name}"], cwd=folder, capture_output=True, text=True
        )
        assert "the user's own" in run.stderr
