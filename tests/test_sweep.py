"""The sweep: what it trains, that nothing is trained twice, and who takes over from whom."""

import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import no_training, release, started

from nettailor import stage, tailoring
from nettailor.cli import tailor
from nettailor.commands.sweep import Failure, Mode, list_jobs, run_sweep
from nettailor.core.config import RunConfig
from nettailor.core.console import Screen
from nettailor.core.errors import NotFiniteError, UserError
from nettailor.core.flags import parse
from nettailor.core.latency import measure_latency
from nettailor.session import start_session

NAME = "test_resnet-32px"
SMALL = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "1",
    "--limit.train", "100", "--limit.test", "50", "--device", "cpu", "--workers", "0",
    "--finetune", "task", "--tolerance", "100", "--eliminate.top", "[2]",
]  # fmt: skip
LEAN = [*SMALL, "--eliminate.references", "[]"]
FIGURE_SECONDS = 0.02  # latency is measured for real, but too briefly for a figure worth quoting

# says that it is up, and starts when it is told to
PROCESS = f"""
import sys
from nettailor import tailoring
from nettailor.core import training_state
from nettailor.core.console import Screen
from nettailor.core.flags import parse
from nettailor.core.latency import measure_latency
from nettailor.commands.sweep import run_sweep

measure_latency.__kwdefaults__["seconds"] = {FIGURE_SECONDS}
# saved after every epoch
training_state.TrainingState.due = property(lambda state: not state.course)
tailoring.StudentPictures = lambda *_: None
seeds, gammas, *words = sys.argv[1:]
config, _ = parse("test", "", words)
print("up", flush=True)
sys.stdin.readline()
with Screen() as screen:
    seeds, gammas = map(int, seeds.split()), map(float, gammas.split())
    sys.exit(len(run_sweep(config, screen, seeds=seeds, gammas=gammas, modes=["task"])))
"""


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(measure_latency.__kwdefaults__, "seconds", FIGURE_SECONDS)
        patch.setattr(tailoring, "StudentPictures", lambda *_: None)
        yield


def config_of(out: Path, *flags: str) -> RunConfig:
    return parse("test", "", [*LEAN, "--out", str(out), *flags])[0]


def start(
    out: Path, *flags: str, seeds: Sequence[int] = (0,), gammas: Sequence[float] = (0.3,)
) -> list[Failure]:
    with Screen() as screen:
        return run_sweep(config_of(out, *flags), screen, seeds=seeds, gammas=gammas, modes=["task"])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of two seeds."""
    out = tmp_path_factory.mktemp("sweep")
    assert start(out, seeds=[0, 1, 0], gammas=[0.3, 0.3]) == []
    return out


@pytest.fixture
def runs(done: Path, tmp_path: Path) -> Path:
    """A copy of it, times of the files included."""
    return shutil.copytree(done, tmp_path / "runs")


def folder(out: Path, kind: str, seed: int) -> Path:
    details = {"teacher": "", "tailored": "task-gamma0.3-", "eliminated": "stages2-"}[kind]
    return out / "digits" / kind / f"{NAME}-{details}seed{seed}"


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """What tells that a summary was written anew."""
    files = sorted(out.rglob("summary.json"))
    return {
        str(file.relative_to(out)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files
    }


def test_the_jobs_of_a_comparison(tmp_path: Path) -> None:
    config = parse("test", "", [*SMALL, "--eliminate.top", "null", "--out", str(tmp_path)])[0]
    session = start_session(config, Screen())
    modes: list[Mode] = ["task", "all"]
    seeded = list_jobs(session, config, seeds=[3, 0, 3], gammas=[0.3, 1], modes=modes)
    assert [[job.name for job in jobs] for jobs in seeded] == [
        [
            f"teacher {NAME}-seed{seed}",
            f"tailored {NAME}-task-gamma0.3-seed{seed}",
            f"tailored {NAME}-task-gamma1-seed{seed}",
            f"tailored {NAME}-all-gamma0.3-seed{seed}",
            f"tailored {NAME}-all-gamma1-seed{seed}",
            f"eliminated {NAME}-stages1-seed{seed}",
            f"eliminated {NAME}-stages2-seed{seed}",
            f"eliminated {NAME}-stages3-seed{seed}",
            f"head-only {NAME}-seed{seed}",
            f"scratch {NAME}-seed{seed}",
        ]
        for seed in (3, 0)
    ]
    last = seeded[1][4].config
    assert (last.seed, last.student.gamma, last.prune.finetune) == (0, 1.0, "all")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seeds", "gammas", "flags", "words"),
    [
        ([0], [-1.0], [], r"student.gamma = -1.0: must be a number ≥ 0"),
        ([-2], [0.3], [], r"seed = -2: must be a whole number ≥ 0"),
        ([0], [float("nan")], [], "student.gamma = nan: must be finite"),
        ([0], [0.1234567, 0.1234568], [], "gammas that differ within six digits"),
        ([0], [0.3], ["--eliminate.top", "[4]"], "1 to 3 can be cut"),
    ],
)
def test_what_is_out_of_range_is_refused_before_anything_trains(
    tmp_path: Path, seeds: list[int], gammas: list[float], flags: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        start(tmp_path, *flags, seeds=seeds, gammas=gammas)
    assert not list(tmp_path.iterdir())


def test_a_sweep_trains_every_job_once(done: Path) -> None:
    kinds = {"teacher", "tailored", "eliminated"}
    summaries = {folder(done, kind, seed) / "summary.json" for kind in kinds for seed in (0, 1)}
    assert set(done.rglob("summary.json")) == summaries
    assert not list(done.rglob(".*"))  # no lock is left


def test_its_networks_are_those_of_the_commands(done: Path, tmp_path: Path) -> None:
    """Jobs share one process, images and device, and know nothing of each other."""
    tailor.main([*LEAN, "--seed", "1", "--out", str(tmp_path)])
    for kind in ("teacher", "tailored"):
        one, other = (folder(out, kind, 1) / "model.safetensors" for out in (done, tmp_path))
        assert one.read_bytes() == other.read_bytes()


def test_again_it_trains_nothing_but_what_was_deleted(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stamps(runs)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "fit", no_training)
        assert start(runs, seeds=[1, 0]) == []
    shown = capsys.readouterr().out
    assert f"6 of 6: eliminated {NAME}-stages2-seed0: finished\n" in shown
    assert stamps(runs) == before
    shutil.rmtree(folder(runs, "eliminated", 1))
    assert start(runs, seeds=[0, 1]) == []
    after = stamps(runs)
    again = f"digits/eliminated/{NAME}-stages2-seed1/summary.json"
    assert before.pop(again) != after.pop(again)
    assert before == after


def test_a_failed_job_does_not_stop_the_others(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One tailored network cannot be written, and one teacher, so that its seed is lost."""
    in_the_way = [folder(runs, "tailored", 0), folder(runs, "teacher", 2)]
    shutil.rmtree(in_the_way[0])
    shutil.rmtree(folder(runs, "eliminated", 0))
    for path in in_the_way:
        path.write_text("", encoding="utf-8")
    failures = start(runs, seeds=[0, 2])
    kinds = ("teacher", "tailored", "eliminated")
    lost = [f"{kind} {folder(runs, kind, 2).name}" for kind in kinds]
    assert [failure.job for failure in failures] == [f"tailored {in_the_way[0].name}", *lost]
    assert "a file is in the way" in str(failures[0].error)
    assert str(failures[2].error) == f"it needs the teacher {NAME}-seed2, which failed"
    assert (folder(runs, "eliminated", 0) / "summary.json").exists()
    shown = capsys.readouterr().out
    assert f"4 of 6 jobs failed:\n{failures[0].job}: {in_the_way[0]}: a file is in" in shown
    # what has failed is tried again by the next start
    in_the_way[0].unlink()
    assert start(runs, seeds=[0]) == []
    assert (folder(runs, "tailored", 0) / "summary.json").exists()


def test_weights_that_break_fail_their_job_only(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise NotFiniteError("the loss became nan")

    shutil.rmtree(folder(runs, "tailored", 1))
    monkeypatch.setattr(stage, "fit", broken)
    (failure,) = start(runs, seeds=[1])
    assert failure.job == f"tailored {NAME}-task-gamma0.3-seed1"
    assert isinstance(failure.error, NotFiniteError)


def test_other_settings_than_the_runs_have_are_refused(runs: Path) -> None:
    before = stamps(runs)
    # student.lr is of no account to teacher and eliminated networks
    (failure,) = start(runs, "--student.lr", "0.5")
    assert failure.job == f"tailored {NAME}-task-gamma0.3-seed0"
    assert "student.lr is 0.001 there and 0.5 here" in str(failure.error)
    with pytest.raises(UserError, match=r"teacher/.*teacher.lr is [0-9.]+ there and 0.5 here"):
        start(runs, "--teacher.lr", "0.5", seeds=[0, 1])
    assert stamps(runs) == before


def process(out: Path, seeds: str, gammas: str, *flags: str) -> "subprocess.Popen[str]":
    return started(PROCESS, seeds, gammas, *LEAN, "--out", str(out), *flags)


def wait_for(path: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.002)


def test_a_killed_sweep_goes_on_with_what_is_left(tmp_path: Path) -> None:
    """Killed in the middle of the third of four jobs, of which an epoch is done."""
    flags = ["--teacher.epochs", "3", "--eliminate.top", "[1, 2]"]
    killed = tmp_path / "digits" / "eliminated" / f"{NAME}-stages1-seed0"
    with process(tmp_path, "0", "0.3", *flags) as first:
        release(first)
        wait_for(killed / "state" / "eliminated.pt")
        first.send_signal(signal.SIGKILL)
    finished = stamps(tmp_path)
    assert len(finished) == 2
    assert killed.with_name(f".{killed.name}.lock").exists()  # and nobody holds it
    assert start(tmp_path, *flags) == []
    after = stamps(tmp_path)
    assert len(after) == 4
    assert {name: after[name] for name in finished} == finished


@pytest.mark.slow  # quick: a killed one goes on with what is left
def test_two_processes_share_a_sweep(tmp_path: Path) -> None:
    with process(tmp_path, "0 1", "") as one, process(tmp_path, "0 1", "") as other:
        release(one, other)
        shown = [running.communicate(timeout=120)[0] for running in (one, other)]
        assert (one.returncode, other.returncode) == (0, 0)
    # either begins with a teacher of its own; every network trains in one stage of one epoch
    assert all("teacher        epoch   1/1" in text for text in shown)
    assert sum(text.count("epoch   1/1") for text in shown) == 4
    assert len(stamps(tmp_path)) == 4
