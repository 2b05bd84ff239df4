"""Searches in several processes: one that was killed is gone on with, and two share a study."""

import re
import signal
import time
from pathlib import Path

import pytest
from conftest import release
from search_runs import (
    metrics,
    process,
    quickly,
    require_proposals_follow,
    run_folder,
    start,
    study_folder,
    trials,
)

pytestmark = pytest.mark.slow  # quick: the same of a sweep


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)


def test_a_killed_search_goes_on_with_the_same_trials(tmp_path: Path) -> None:
    """Killed in the second trial, of whose three epochs at least one is done."""
    flags = ["--trials", "4", "--search.trial-epochs", "3"]
    with process(tmp_path, *flags) as first:
        release(first)
        until = time.monotonic() + 60
        while not any(len(metrics(place)) for place in study_folder(tmp_path).glob("trials/1-*")):
            assert time.monotonic() < until
            time.sleep(0.002)
        first.send_signal(signal.SIGKILL)
    before = trials(tmp_path)
    assert [trial.state.name for trial in before] == ["COMPLETE", "RUNNING"]
    again = start(tmp_path, *flags)
    after = trials(tmp_path)
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 4
    assert [trial.params for trial in after[:2]] == [trial.params for trial in before]
    assert after[0].values == before[0].values
    # the sampler has read the latencies that were measured before the kill
    require_proposals_follow(after, again)
    # the network is the one that it would have been, to the bit
    start(tmp_path / "straight", *flags, "--trials", "2")
    name = f"1-{again.study.tried[1].key}"
    killed, straight = (
        next(path for path in place.rglob(f"*{name}*") if path.is_dir())
        for place in (tmp_path / "digits", tmp_path / "straight")
    )
    assert metrics(killed)[:3] == metrics(straight)[:3]


def test_two_processes_share_a_study(tmp_path: Path) -> None:
    few = ["--trials", "3"]
    with process(tmp_path, *few) as one, process(tmp_path, *few) as other:
        release(one, other)
        shown = [running.communicate(timeout=200)[0] for running in (one, other)]
        assert (one.returncode, other.returncode) == (0, 0), shown
    assert [trial.state.name for trial in trials(tmp_path)] == ["COMPLETE"] * 3
    # 3 × 1 epoch, 1 × 1 more, 1 × 2 more: no epoch twice, and each process trained some
    epochs = [len(re.findall(r"searched +epoch", text)) for text in shown]
    assert sum(epochs) == 6
    assert all(epochs)
    assert sum(len(re.findall(r"teacher +epoch", text)) for text in shown) == 4
    assert (run_folder(tmp_path) / "summary.json").exists()
