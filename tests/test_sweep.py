"""The sweep: what it trains, that nothing is trained twice, and who takes over from whom."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from conftest import release, started
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nettailor import claims, finetune, tailoring
from nettailor.claims import Claims
from nettailor.cli import tailor
from nettailor.commands.sweep import Failure, Mode, list_jobs, open_claims, run_sweep
from nettailor.commands.tailor import tailored_folder
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

TEACHER, TAILORED, CUT = "teacher", "tailored task, gamma 0.3", "eliminated stages 2"

# says that it is up, and starts when it is told to
PROCESS = f"""
import sys
from nettailor import tailoring
from nettailor.core import trainer
from nettailor.core.console import Screen
from nettailor.core.flags import parse
from nettailor.core.latency import measure_latency
from nettailor.commands.sweep import run_sweep

measure_latency.__kwdefaults__["seconds"] = {FIGURE_SECONDS}
trainer._Stage._due = property(lambda stage: not stage.course)  # saved after every epoch
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
        patch.setattr("nettailor.commands.sweep._LOOK_EVERY", 0.1)
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


def journal(out: Path) -> Path:
    return out / "digits" / "comparison" / "sweep.journal"


def trials(out: Path) -> list[FrozenTrial]:
    config = config_of(out)
    return open_claims(start_session(config, Screen()))._study.get_trials()


def ends(out: Path) -> Counter[tuple[str, str]]:
    """How many trials of each job came to which end."""
    return Counter((trial.user_attrs["job"], trial.state.name) for trial in trials(out))


def once(*jobs: str) -> Counter[tuple[str, str]]:
    return Counter((job, "COMPLETE") for job in jobs)


def of_seeds(*seeds: int) -> list[str]:
    return [f"{kind}, seed {seed}" for seed in seeds for kind in (TEACHER, TAILORED, CUT)]


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """What tells that a summary was written anew."""
    files = sorted(out.rglob("summary.json"))
    return {
        str(file.relative_to(out)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files
    }


def nothing_trains(*_: object, **__: object) -> None:
    raise AssertionError("something was trained")


def forbid_training(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(finetune, "fit", nothing_trains)
    patch.setattr(tailoring, "fit", nothing_trains)


def test_the_jobs_of_a_comparison(tmp_path: Path) -> None:
    config = parse("test", "", [*SMALL, "--eliminate.top", "null", "--out", str(tmp_path)])[0]
    session = start_session(config, Screen())
    modes: list[Mode] = ["task", "all"]
    jobs = list_jobs(session, seeds=[3, 0, 3], gammas=[0.3, 1], modes=modes)
    a_seed = [
        "teacher",
        "tailored task, gamma 0.3",
        "tailored task, gamma 1",
        "tailored all, gamma 0.3",
        "tailored all, gamma 1",
        "eliminated stages 1",
        "eliminated stages 2",
        "eliminated stages 3",
        "head-only",
        "scratch",
    ]
    assert [job.name for job in jobs] == [
        f"{name}, seed {seed}" for seed in (3, 0) for name in a_seed
    ]
    last = jobs[14].config
    assert (last.seed, last.student.gamma, last.prune.finetune) == (0, 1.0, "all")
    assert not list(tmp_path.iterdir())


def test_jobs_of_different_runs_have_different_names(tmp_path: Path) -> None:
    """What parts two tailored runs' folders parts their names: the journal is that of all."""
    settings = {
        "": [],
        ", by rank": ["--prune.by", "rank"],
        ", flops0.6": ["--max-flops", "0.6"],
        ", flops0.61": ["--max-flops", "0.61"],
        ", params0.6": ["--max-params", "0.6"],
        ", 4ms-batch1": ["--max-latency-ms", "4"],
        ", 4ms-batch8": ["--max-latency-ms", "4", "--batch", "8"],
    }
    names, folders = [], set()
    for part, flags in settings.items():
        session = start_session(config_of(tmp_path, *flags), Screen())
        teacher, job, *_ = list_jobs(session, seeds=[0], gammas=[0.3], modes=["task"])
        assert job.name == f"{TAILORED}{part}, seed 0"
        assert teacher.name == f"{TEACHER}, seed 0"
        names.append(job.name)
        folders.add(tailored_folder(replace(session, config=job.config)).path)
    assert len(set(names)) == len(folders) == len(settings)


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
    assert ends(done) == once(*of_seeds(0, 1))
    assert len(stamps(done)) == 6
    for trial in trials(done):
        run = done / "digits" / trial.user_attrs["folder"]
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        assert trial.values == [summary["accuracy"]["val"], summary["flops"]]
        assert trial.params["kind"] == summary["kind"]
        assert trial.user_attrs["seed"] == summary["seed"]


def test_its_networks_are_those_of_the_commands(done: Path, tmp_path: Path) -> None:
    """Jobs share one process, images and device, and know nothing of each other."""
    tailor.main([*LEAN, "--seed", "1", "--out", str(tmp_path)])
    for kind in ("teacher", "tailored"):
        one, other = (folder(out, kind, 1) / "model.safetensors" for out in (done, tmp_path))
        assert one.read_bytes() == other.read_bytes()


def test_again_it_trains_nothing(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forbid_training(monkeypatch)
    before = stamps(runs)
    assert start(runs, seeds=[1, 0]) == []
    assert "6 of 6: eliminated stages 2, seed 0: finished\n" in capsys.readouterr().out
    # runs that are finished count, also where no journal tells of them
    journal(runs).unlink()
    assert start(runs, seeds=[0, 1]) == []
    assert stamps(runs) == before
    assert ends(runs) == once(*of_seeds(0, 1))


def test_a_run_that_was_deleted_is_trained_again(runs: Path) -> None:
    before = stamps(runs)
    shutil.rmtree(folder(runs, "eliminated", 1))
    assert start(runs, seeds=[0, 1]) == []
    after = stamps(runs)
    again = "digits/eliminated/test_resnet-32px-stages2-seed1/summary.json"
    assert before.pop(again) != after.pop(again)
    assert before == after
    assert ends(runs) == once(*of_seeds(0, 1), f"{CUT}, seed 1")


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
    assert [failure.job for failure in failures] == [f"{TAILORED}, seed 0", *of_seeds(2)]
    assert "a file is in the way" in str(failures[0].error)
    assert str(failures[2].error) == "it needs the teacher, seed 2, which failed"
    assert (folder(runs, "eliminated", 0) / "summary.json").exists()
    (told,) = (
        trial
        for trial in trials(runs)
        if trial.state == TrialState.FAIL and "2" in trial.user_attrs["job"]
    )
    assert "a file is in the way" in told.user_attrs["reason"]
    shown = capsys.readouterr().out
    assert f"4 of 6 jobs failed:\n{TAILORED}, seed 0: {in_the_way[0]}: a file is in" in shown
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
    monkeypatch.setattr(tailoring, "fit", broken)
    (failure,) = start(runs, seeds=[1])
    assert failure.job == f"{TAILORED}, seed 1"
    assert isinstance(failure.error, NotFiniteError)


def test_other_settings_than_the_runs_have_are_refused(runs: Path) -> None:
    before = stamps(runs)
    # student.lr is of no account to teacher and eliminated networks
    (failure,) = start(runs, "--student.lr", "0.5")
    assert failure.job == f"{TAILORED}, seed 0"
    assert "student.lr is 0.003 there and 0.5 here" in str(failure.error)
    with pytest.raises(UserError, match=r"teacher/.*teacher.lr is [0-9.]+ there and 0.5 here"):
        start(runs, "--teacher.lr", "0.5", seeds=[0, 1])
    assert stamps(runs) == before


def test_ctrl_c_ends_the_sweep_and_gives_the_job_back(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    shutil.rmtree(folder(runs, "tailored", 0))
    with monkeypatch.context() as patch:
        patch.setattr(tailoring, "fit", pressed)
        with pytest.raises(KeyboardInterrupt):
            start(runs)
    last = trials(runs)[-1]
    assert last.user_attrs["job"] == f"{TAILORED}, seed 0"
    assert (last.state, last.user_attrs["reason"]) == (TrialState.FAIL, "KeyboardInterrupt")


def truncate_a_line(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join([*lines[:3], lines[3][:20] + lines[4], *lines[5:]])


@pytest.mark.parametrize(
    "damage",
    [
        truncate_a_line,
        lambda _: b"\x00\xff\xfe binary\nmore\n",
        lambda _: b'{"something": "else"}\n',
        lambda _: b"[1, 2]\n",
    ],
    ids=["a torn line", "binary", "other JSON", "a list"],
)
def test_a_damaged_journal_is_refused(runs: Path, damage: Callable[[bytes], bytes]) -> None:
    content = damage(journal(runs).read_bytes())
    journal(runs).write_bytes(content)
    with pytest.raises(UserError, match=r"sweep\.journal: damaged, .* delete the file") as refused:
        start(runs)
    assert "\n" not in str(refused.value)
    assert journal(runs).read_bytes() == content


def test_a_journal_that_cannot_be_written_is_a_user_error(runs: Path) -> None:
    journal(runs).unlink()
    journal(runs).parent.rmdir()
    journal(runs).parent.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot write .*sweep\.journal"):
        start(runs)


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
    jobs = [f"{job}, seed 0" for job in (TEACHER, TAILORED, "eliminated stages 1", CUT)]
    killed = f"{NAME}-stages1-seed0"
    with process(tmp_path, "0", "0.3", *flags) as first:
        release(first)
        wait_for(tmp_path / "digits" / "eliminated" / killed / "state" / "eliminated.pt")
        first.send_signal(signal.SIGKILL)
    finished = stamps(tmp_path)
    assert len(finished) == 2
    assert ends(tmp_path) == once(*jobs[:2]) + Counter({(jobs[2], "RUNNING"): 1})
    assert start(tmp_path, *flags) == []
    after = stamps(tmp_path)
    assert len(after) == 4
    assert {name: after[name] for name in finished} == finished
    # each was begun once, but for the one that was killed
    assert ends(tmp_path) == once(*jobs) + Counter({(jobs[2], "FAIL"): 1})


def test_two_processes_share_a_sweep(tmp_path: Path) -> None:
    with process(tmp_path, "0 1", "") as one, process(tmp_path, "0 1", "") as other:
        release(one, other)
        shown = [running.communicate(timeout=120)[0] for running in (one, other)]
        assert (one.returncode, other.returncode) == (0, 0)
    # either begins with a teacher of its own; every network trains in one stage of one epoch
    assert all("teacher        epoch   1/1" in text for text in shown)
    assert sum(text.count("epoch   1/1") for text in shown) == 4
    assert len(stamps(tmp_path)) == 4
    counts = {job: n for job, n in ends(tmp_path).items() if job[1] != "PRUNED"}
    assert counts == once(*(f"{kind}, seed {seed}" for seed in (0, 1) for kind in (TEACHER, CUT)))
    holders = {trial.user_attrs["holder"]["pid"] for trial in trials(tmp_path) if trial.values}
    assert holders == {one.pid, other.pid}


def claims_at(path: Path) -> Claims:
    return Claims(path / "journal", "study", [StudyDirection.MAXIMIZE])


def claims_elsewhere(path: Path) -> Claims:
    """Those of a process on another machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "_host", lambda: "elsewhere boot pid:[1]")
        return claims_at(path)


def test_one_of_many_gets_a_job(tmp_path: Path) -> None:
    jobs = [f"job {number}" for number in range(6)]
    taken: list[str] = []

    def take_all(mine: Claims) -> None:
        taken.extend(job for job in jobs if mine.take(job, {}, {}, {}) is not None)

    crowd = [Thread(target=take_all, args=(claims_at(tmp_path),)) for _ in range(4)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert sorted(taken) == jobs
    assert claims_at(tmp_path).held().keys() == set(jobs)


def test_a_claim_of_another_machine_lasts_as_long_as_it_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RENEWED_EVERY", 0.05)
    monkeypatch.setattr(claims, "GIVEN_UP_AFTER", 0.6)
    mine, theirs = claims_at(tmp_path), claims_elsewhere(tmp_path)
    there = f"elsewhere, process {os.getpid()}"
    claim = theirs.take("job", {}, {}, {})
    assert claim is not None
    until = time.monotonic() + 1.5
    with theirs.working(claim):
        while time.monotonic() < until:
            assert mine.held() == {"job": there}
            assert mine.take("job", {}, {}, {}) is None
            time.sleep(0.1)
    # now nobody renews it
    assert mine.held() == {"job": there}
    time.sleep(0.7)
    assert mine.held() == {}
    retaken = mine.take("job", {}, {}, {})
    assert retaken is not None
    # the other wakes up and is not believed
    theirs.complete(claim, [1.0], {})
    assert mine.completed("job") == []
    mine.complete(retaken, [2.0], {})
    assert [trial.values for trial in theirs.completed("job")] == [[2.0]]


def test_a_reused_process_number_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if claims._began(os.getpid()) is None:
        pytest.skip("when a process began is read from /proc")
    with monkeypatch.context() as patch:
        patch.setattr(claims, "_began", lambda _: "1")
        before = claims_at(tmp_path)
    assert before.take("job", {}, {}, {}) is not None
    assert before.take("other", {}, {}, {}) is not None
    mine = claims_at(tmp_path)
    assert mine.held() == {}
    assert mine.take("job", {}, {}, {}) is not None
    assert mine.held().keys() == {"job"}


def test_it_waits_for_another_machine_until_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(claims, "GIVEN_UP_AFTER", 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "_host", lambda: "elsewhere boot pid:[1]")
        theirs = open_claims(start_session(config_of(tmp_path), Screen()))
    assert theirs.take("teacher, seed 0", {}, {}, {}) is not None
    assert start(tmp_path, "--eliminate.top", "[2]", gammas=[]) == []
    shown = capsys.readouterr().out
    waiting = f"waiting for other processes: teacher, seed 0 (elsewhere, process {os.getpid()})"
    assert shown.startswith(f"{waiting}\n1 of 2: teacher, seed 0\n")
    assert shown.count("waiting") == 1
    assert ends(tmp_path) == once("teacher, seed 0", f"{CUT}, seed 0") + Counter(
        {("teacher, seed 0", "FAIL"): 1}
    )
