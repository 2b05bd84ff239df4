"""Two processes that train together: what they make, and what becomes of a run that loses one."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import victim
from kills import COMMANDS, Warm, differences

from nettailor.core.state import read_state

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="torchrun, /proc")
TESTS = Path(__file__).parents[1]
_, TAILOR = COMMANDS["tailor, all"]
_, TEACH = COMMANDS["teach"]
# 15 images a step: the ranks take 7 and 8; too slow for a rounding error to grow
CALM = [
    "--batch-size",
    "15",
    "--teacher.lr",
    "1e-4",
    "--student.lr",
    "1e-4",
    "--prune.lr",
    "1e-5",
]


def torchrun(*words: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Two processes of a script."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--max-restarts", str(restarts)]
    return subprocess.run(
        [*command, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def together(
    place: Path,
    command: str,
    words: list[str],
    *,
    struck: str = "nobody",
    step: int = 0,
    name: str = "SIGKILL",
    restarts: int = 0,
) -> int:
    """Run a command of two processes in a folder; see `rank_victim`. No process is left of it."""
    place.mkdir(exist_ok=True)
    victim = [str(TESTS / "rank_victim.py"), command, str(place), struck, str(step), name]
    done = torchrun(*victim, *words, restarts=restarts)
    (place / "torchrun.txt").write_text(done.stderr, encoding="utf-8")
    processes = (place / "processes").read_text(encoding="utf-8").split()
    assert not [process for process in processes if Path("/proc", process).exists()]
    return done.returncode


def told(place: Path) -> str:
    """What its processes have said; forgotten now."""
    output = place / "output.txt"
    text = output.read_text(encoding="utf-8")
    output.unlink()
    assert "Traceback" not in text
    return text


@pytest.fixture(scope="module")
def tailored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student and its cuts, made by two processes that nobody struck."""
    place = tmp_path_factory.mktemp("tailored")
    assert together(place, "tailor", TAILOR) == 0, told(place)
    return place


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("taught")
    assert together(place, "teach", TEACH) == 0, told(place)
    return place


def test_what_ranks_share() -> None:
    done = torchrun(str(TESTS / "rank_checks.py"))
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert f"rank {rank} of 2 found nothing wrong" in done.stdout
    assert done.stdout.count("found nothing wrong") == 2


def test_two_make_what_one_makes(tmp_path: Path) -> None:
    """The same losses at every epoch of every stage, up to rounding, and scores but for an image
    that stands between two classes."""
    # every cut is good enough: an image more or less right changes no choice
    words = [*TAILOR, *CALM, "--prune.tolerance", "100"]
    one, two = _metrics_of_one_and_two(tmp_path, "tailor", words)
    assert len({row["stage"] for row in one}) > 2  # teacher, student, a cut at least
    an_image = 100 / 30 + 0.01
    for mine, theirs in zip(one, two, strict=True):
        assert float(mine["val_accuracy"]) == pytest.approx(
            float(theirs["val_accuracy"]), abs=an_image
        )
        for key in mine.keys() & {"loss", "cross_entropy", "distillation", "mimicry", "val_loss"}:
            if mine[key] or theirs[key]:
                # a distillation of 0.001 is a difference of logits that are nearly the same
                close = pytest.approx(float(theirs[key]), rel=2e-3, abs=1e-5)
                assert float(mine[key]) == close, key
    assert differences(tmp_path / "one", tmp_path / "two")  # they have rounded otherwise


def test_two_choose_the_channels_that_one_chooses(tmp_path: Path) -> None:
    _, words = COMMANDS["knapsack"]
    one, two = _metrics_of_one_and_two(tmp_path, "knapsack", [*words, *CALM])
    for mine, theirs in zip(one, two, strict=True):
        assert float(mine["loss"]) == pytest.approx(float(theirs["loss"]), rel=2e-3)
    chosen = [
        json.loads(next((tmp_path / name).rglob("channels.json")).read_text())
        for name in ("one", "two")
    ]
    assert chosen[0]["kept"] == chosen[1]["kept"]


def _metrics_of_one_and_two(
    place: Path, command: str, words: list[str]
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows of the same stages: of one process in `one`, and of two in `two`."""
    assert together(place / "two", command, words) == 0, told(place / "two")
    (place / "one").mkdir()
    alone = Warm().start(victim.run, command, words, str(place / "one"))
    alone.join()
    assert alone.exitcode == 0
    one, two = _metrics(place / "one"), _metrics(place / "two")
    assert [row["stage"] for row in one] == [row["stage"] for row in two]
    return one, two


def _metrics(place: Path) -> list[dict[str, str]]:
    rows = []
    for path in sorted((place / "runs").rglob("metrics.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    return rows


@pytest.mark.slow  # quick: what a lost process leaves is gone on with later
def test_torchrun_restarts_what_lost_a_process(tailored: Path, tmp_path: Path) -> None:
    """Killed within the student: the end is the one of a run that lost nobody."""
    code = together(tmp_path, "tailor", TAILOR, struck="1", step=17, restarts=1)
    assert code == 0, told(tmp_path) + (tmp_path / "torchrun.txt").read_text(encoding="utf-8")
    assert (tmp_path / "struck").exists()
    assert differences(tailored, tmp_path) == []


@pytest.mark.slow  # quick: all save when one is asked to end; kills of one process
@pytest.mark.parametrize("struck", ["0", "1"])
def test_a_run_that_lost_a_process_goes_on_later(taught: Path, tmp_path: Path, struck: str) -> None:
    assert together(tmp_path, "teach", TEACH, struck=struck, step=7) != 0
    assert "epoch   1/2" in told(tmp_path)
    assert together(tmp_path, "teach", TEACH) == 0
    assert "epoch   1/2" not in told(tmp_path)
    assert differences(taught, tmp_path) == []


@pytest.mark.parametrize("struck", [pytest.param("1", marks=pytest.mark.slow), "torchrun"])
def test_all_save_when_one_is_asked_to_end(taught: Path, tmp_path: Path, struck: str) -> None:
    """Of 5 steps an epoch: the state holds what was done when the signal came."""
    assert together(tmp_path, "teach", TEACH, struck=struck, step=7, name="SIGTERM") != 0
    assert "interrupted: the same command" in told(tmp_path)
    (path,) = (tmp_path / "runs").rglob("state/teacher.pt")
    state = read_state(path)
    assert len(state["history"]) == 1
    assert len(state["course"]) >= 2
    assert together(tmp_path, "teach", TEACH) == 0
    assert differences(taught, tmp_path) == []


@pytest.mark.parametrize(
    ("command", "words", "restarts", "says"),
    [
        pytest.param(
            "teach", [*TEACH, "--overwrite"], 1, "--overwrite with torchrun --max-restarts",
            marks=pytest.mark.slow,
        ),
        ("compare", TEACH, 0, "this command works in one process: start it without torchrun"),
        pytest.param(
            "teach", [*TEACH, "--device", "tpu"], 0, "device = 'tpu': must be one of",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_what_ranks_cannot_do(
    tmp_path: Path, command: str, words: list[str], restarts: int, says: str
) -> None:
    assert together(tmp_path, command, words, restarts=restarts) != 0
    lines = [line for line in told(tmp_path).splitlines() if says in line]
    assert any(line.startswith("error: ") for line in lines)
    assert not (tmp_path / "runs").exists()
