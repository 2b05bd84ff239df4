"""Help, versions and bad flags answer before anything heavy is imported; good flags go on."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

HEAVY = {
    "torch", "timm", "torchvision", "accelerate", "sklearn", "matplotlib", "scipy", "optuna",
    "pandas",
}  # fmt: skip
COMMANDS = (
    "teach", "tailor", "eliminate", "scale", "knapsack", "search", "compare", "export", "predict",
)  # fmt: skip
# runs a module as `python -m` does, and writes down what was imported when it ends
PROBE = """
import atexit, pathlib, runpy, sys
note = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: note.write_text("\\n".join(sys.modules)))
module = sys.argv.pop(1)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def answer(folder: Path, module: str, *argv: str) -> tuple[int, str, set[str]]:
    """Of `python -m module …`: the exit code, what it said, and the packages it imported."""
    note = folder / "modules"
    program = [sys.executable, "-c", PROBE, str(note), module, *argv]
    done = subprocess.run(
        program, cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip
    packages = {name.partition(".")[0] for name in note.read_text("utf-8").splitlines()}
    return done.returncode, done.stdout + done.stderr, packages


@pytest.mark.parametrize(
    ("module", "argv", "code", "said"),
    [
        ("nettailor", [], 0, "NetTailor cuts a pretrained"),
        ("nettailor", ["--help"], 0, "NetTailor cuts a pretrained"),
        ("nettailor", ["--version"], 0, "nettailor "),
        ("nettailor", ["tailr"], 2, "error: 'tailr': no such command; did you mean 'tailor'"),
        ("nettailor", ["tailor", "--gama", "0.3"], 2, "error: --gama: unknown flag"),
        ("nettailor.tailor", ["--gamma=-1"], 2, "error: settings: student.gamma = -1: must be"),
        ("nettailor.tailor", ["--pick", "flops"], 2, "error: --pick flops: expected a share"),
        ("nettailor.compare", ["--seeds", "x"], 2, "error: argument --seeds: invalid int"),
        ("nettailor.predict", ["a.png", "--task", "x"], 2, "error: --task is the name of"),
        *(("nettailor", [name, "--help-all"], 0, "usage: ") for name in COMMANDS),
        *((f"nettailor.{name}", ["--help"], 0, "usage: python -m ") for name in COMMANDS),
        ("nettailor.tailor", ["--version"], 0, "nettailor "),
    ],
)
def test_an_answer_without_anything_heavy(tmp_path, module, argv, code, said):
    left, shown, packages = answer(tmp_path, module, *argv)
    assert (left, shown[: len(said)]) == (code, said)
    assert "pydantic" in packages
    assert not packages & HEAVY
    if said == "usage: python -m ":  # help fits two screens
        assert len(shown.splitlines()) <= 90
        assert max(map(len, shown.splitlines())) <= 100
        assert "--help-all" in shown
    if "--version" in argv:
        assert shown == f"nettailor {version('nettailor')}\n"


def test_what_only_timm_knows_is_checked_before_anything_is_trained(tmp_path):
    argv = ["--optimizer", "sdg"]
    names = [f"--{stage}.optimizer" for stage in ("teacher", "student")]
    words = [word for name in names for word in (name, argv[1])]
    code, shown, packages = answer(tmp_path, "nettailor.teach", *words)
    assert code == 2
    hint = r"no optimizer of timm's that can train here; did you mean 'sgd'[^\n]*"
    assert re.fullmatch(
        rf"error: settings: teacher\.optimizer = 'sdg': {hint}\n"
        rf"student\.optimizer = 'sdg': {hint}\n",
        shown,
    )
    assert "timm" in packages  # the list of what is heavy would find it
    assert [path.name for path in tmp_path.iterdir()] == ["modules"]
