"""A small budget of milliseconds: blocks leave room for channels, and the clock says how many go.

The clock is a made-up one: a millisecond for 100 000 parameters.
"""

import shutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tailor_runs import SMALL, Runs, no_training, read, rows_of, summary_of
from test_gone_on_with import interrupt, same_bytes
from torch import nn

from nettailor import by_sizes, narrowed_sizes, narrowing, path_shares
from nettailor.cli import tailor
from nettailor.core.cost import parameters
from nettailor.network import load_network
from nettailor.prune.items import Channels
from nettailor.prune.widths import Costs, count_parameters
from nettailor.student.costs import shares_of
from nettailor.student.latency_table import LatencyTable

pytestmark = pytest.mark.usefixtures("_quickly")

WHOLE = 3.74  # milliseconds
BUDGET = 0.2 * WHOLE
FLAGS = ["--levers", "[blocks, channels]", "--max-latency-ms", f"{BUDGET:g}"]


def table(student: Any, chain: Any, size: int, *_: object, **__: object) -> LatencyTable:
    shares = shares_of(student, chain, size, "params")
    paths = zip(student.wiring.paths, shares.paths, strict=True)
    return LatencyTable({p.key: s * WHOLE for p, s in paths}, shares.fixed * WHOLE, WHOLE)


def layers(network: nn.Module, channels: Channels, *_: object, **__: object) -> tuple[Costs, float]:
    return count_parameters(channels, network), 1.0


def clock(factor: float) -> Callable[..., float]:
    def share_of_time(network: nn.Module, whole: nn.Module, *_: object, **__: object) -> float:
        return factor * parameters(network) / parameters(whole)

    return share_of_time


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock; by it networks take so many times what their paths and layers add up to."""
    monkeypatch.setattr(path_shares, "measure_paths", table)
    monkeypatch.setattr(narrowing, "measure_times", layers)

    def by(factor: float) -> None:
        for module in (by_sizes, narrowed_sizes):
            monkeypatch.setattr(module, "share_of_time", clock(factor))

    return by


@pytest.mark.parametrize("factor", [1.0, 1.2])
def test_channels_take_the_rest_of_the_way(
    runs: Runs, made_up: Callable[[float], None], factor: float
) -> None:
    """Of a budget of 0.2, from 0.32 on, both by the clock."""
    made_up(factor)
    folder = runs.tailored(*FLAGS, "--student.epochs", "3")
    points = read(folder / "front.json")["points"]
    (narrow,) = [one for one in points if one["wide"]]
    (wide,) = [one for one in points if one["name"] == narrow["wide"]]
    assert narrow["name"] == f"{wide['name']}-to-0.200"
    assert 0.2 < factor * wide["cost"] <= 0.33
    whole, _ = load_network(runs.teacher)
    share = summary_of(folder)["params"]["total"] / parameters(whole)
    assert 0.9 * 0.2 < narrow["cost"] <= 0.2
    assert factor * share == pytest.approx(narrow["cost"], rel=0.02)
    assert read(folder / "architecture.json")["narrowed"]["layers"]
    assert {row["stage"] for row in rows_of(folder)} == {"student", narrow["name"]}


def test_time_that_no_choice_of_channels_keeps(
    runs: Runs, made_up: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    made_up(30.0)
    folder = runs.tailored(*FLAGS)
    # the leanest there is, of all channels
    assert read(folder / "architecture.json")["narrowed"] is None
    said = " ".join(capsys.readouterr().out.split())
    assert f"warning: no network keeps {BUDGET:g} ms by the clock; the one that is kept" in said


def test_channels_alone_cannot_keep_it(runs: Runs, made_up: Callable[[float], None]) -> None:
    """What the fewest take is only known once layers were timed; what is told can be given."""
    made_up(1.0)
    alone = ["--levers", "channels", "--max-latency-ms"]
    err = runs.refusal(*SMALL, *alone, f"{0.01 * WHOLE:g}", main=tailor.main)
    assert "no network of this backbone takes no more than 0.0374 ms: give a budget from" in err
    tailor.main([*SMALL, *alone, err.split()[-2], "--out", str(runs.out)])


def test_blocks_keep_a_budget_that_channels_miss(
    runs: Runs,
    made_up: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the clock none of them saves a thing."""
    made_up(1.0)
    monkeypatch.setattr(narrowed_sizes, "share_of_time", lambda *_, **__: 0.3)
    argv = [*SMALL, *FLAGS, "--prune.epochs", "3", "--out"]
    stopped = shutil.copytree(runs.out, runs.out.with_name("stopped"))
    folder = runs.tailored(*argv[len(SMALL) : -1])
    summary = summary_of(folder)
    assert summary["params"]["total"] <= 0.2 * summary["teacher"]["params"]["total"]
    assert read(folder / "architecture.json")["narrowed"] is None
    assert "keeps" not in capsys.readouterr().out
    # stopped as what is left is trained, it goes on with the same
    interrupt([*argv, str(stopped)], monkeypatch, 2, 2)
    tailor.main([*argv, str(stopped)])
    (other,) = (stopped / "digits" / "tailored").iterdir()
    assert same_bytes(folder, other)


def test_a_run_that_goes_on_asks_no_clock_whether_channels_go(
    runs: Runs, made_up: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped as what is left is trained; by another machine's layers channels would stay."""
    made_up(1.0)
    argv = [*SMALL, *FLAGS, "--prune.epochs", "3", "--out", str(runs.out)]
    interrupt(argv, monkeypatch, 2, 2)
    before = read(runs.only() / "fewest_channels.json")
    assert before["32"] < 0.5
    monkeypatch.setattr(narrowing, "measure_times", no_training)
    tailor.main(argv)
    assert read(runs.only() / "fewest_channels.json") == before
    assert read(runs.only() / "architecture.json")["narrowed"]


def test_channels_stay_where_they_save_no_time(
    runs: Runs,
    made_up: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nine tenths of the time are no layer's: blocks go all of the way."""
    made_up(1.0)

    def hardly(network: nn.Module, channels: Channels, *_: object, **__: object) -> Any:
        whole = parameters(network)
        each = count_parameters(channels, network)
        return SimpleNamespace(of=lambda counts: each.of(counts) + 9 * whole), 1.0

    monkeypatch.setattr(narrowing, "measure_times", hardly)
    folder = runs.tailored(*FLAGS)
    said = " ".join(capsys.readouterr().out.split())
    assert "channels stay at 32 px: at least 0.9" in said
    points = read(folder / "front.json")["points"]
    assert not any(one["wide"] for one in points)
    assert points[0]["cost"] <= 0.2
