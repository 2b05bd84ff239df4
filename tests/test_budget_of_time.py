"""Budgets of milliseconds: tables of times that are kept, and what the clock says of the whole."""

import re
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from conftest import front_in
from tailor_runs import NAME, SMALL, Runs, read, routes_by, rows_of

from nettailor import by_shrinking, by_sizes, path_shares, resolutions
from nettailor.cli import tailor
from nettailor.core.backbone import Backbone
from nettailor.core.cost import module_flops
from nettailor.network import load_network
from nettailor.prune.descent import Descent
from nettailor.student.costs import shares_of
from nettailor.student.latency_table import LatencyTable
from nettailor.student.network import Student
from nettailor.tailoring import Tailoring


@pytest.mark.parametrize("most", ["0.0001", "100000"])
def test_a_budget_of_time_out_of_reach(runs: Runs, most: str) -> None:
    assert re.search(
        r"(no more than|as much as) [\de+.]+ ms: give a budget from [\d.]+ to [\d.]+ ms$",
        runs.refused("--max-latency-ms", most).strip(),
    )


def by_flops(asked: list[int]) -> Callable[..., LatencyTable]:
    """A table as of a device of a million multiply-adds a millisecond, on which no other process
    runs; notes the batch of each measurement."""

    def measure(
        student: Student, chain: Any, size: int, _: object, *, batch: int, **__: object
    ) -> LatencyTable:
        asked.append(batch)
        shares = shares_of(student, chain, size, "flops")
        whole = shares.whole / 1e6
        return LatencyTable(
            {p.key: s * whole for p, s in zip(student.wiring.paths, shares.paths, strict=True)},
            shares.fixed * whole,
            whole,
        )

    return measure


def clock(factor: float) -> Callable[..., float]:
    """By which whatever is shrunk takes so many times what its multiply-adds say."""

    def share_of_time(network: Student, whole: Backbone, size: int, *_: Any, **__: Any) -> float:
        shape = (3, size, size)
        return factor * module_flops(network, shape) / module_flops(whole, shape)

    return share_of_time


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_a_budget_of_time_is_kept_by_the_clock(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    """The whole takes 4.1 ms by the table; what paths add up to is not what a network takes."""
    asked: list[int] = []
    monkeypatch.setattr(path_shares, "measure_paths", by_flops(asked))
    monkeypatch.setattr(by_sizes, "share_of_time", clock(factor))
    flags = ["--max-latency-ms", "2.46", "--batch", "3", "--student.epochs", "4"]
    folder = runs.tailored(*flags)
    assert asked == [3]
    assert folder.name == f"{NAME}-all-blocks-gamma0.3-2.46ms-batch3-seed0"
    table = read(folder / "latency_table.json")
    assert table["whole"] == pytest.approx(4.099, abs=0.001)
    summary = read(folder / "summary.json")
    assert summary["tailored"]["budget"] == {"cost": "latency_ms", "most": 2.46, "batch": 3}
    network = runs.student(folder)
    share, most = runs.share_of(network, "flops"), 2.46 / 4.099 / factor
    assert share <= most


def test_of_each_resolution_that_is_tried_times_are_kept(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what misses the budget by the clock is not kept where another resolution keeps it.

    Of so small a network the whole one keeps the budget at a lower resolution, and is tried here.
    """
    monkeypatch.setattr(resolutions, "_ROOM", 0.0)
    asked: list[int] = []
    monkeypatch.setattr(path_shares, "measure_paths", by_flops(asked))

    def slow_unless_small(network: Student, whole: Backbone, size: int, *_: Any, **more: Any):
        shape, at = (3, size, size), more["side"] or size
        share = module_flops(network, (3, at, at)) / module_flops(whole, shape)
        return share * (1 if at == 16 else 3)

    monkeypatch.setattr(by_sizes, "share_of_time", slow_unless_small)
    folder = runs.tailored("--max-latency-ms", "2.46", "--levers", "[blocks, resolution]")
    assert asked == [1, 1, 1]
    whole = {name: read(folder / f"latency_table{name}.json")["whole"] for name in ("", "-16px")}
    chain, _ = load_network(runs.teacher)
    assert whole["-16px"] == pytest.approx(module_flops(chain, (3, 16, 16)) / 1e6)
    assert whole[""] == pytest.approx(module_flops(chain, (3, 32, 32)) / 1e6)
    assert read(folder / "architecture.json")["preprocessing"]["image_size"] == 16


def test_a_budget_of_time_that_nothing_keeps_by_the_clock_is_told(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(path_shares, "measure_paths", by_flops([]))
    monkeypatch.setattr(by_sizes, "share_of_time", clock(3))
    folder = runs.tailored("--max-latency-ms", "2.46")
    network = runs.student(folder)
    share = runs.share_of(network, "flops")
    assert share == pytest.approx(routes_by("flops").reach()[0], abs=1e-3)
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "warning: no network keeps 2.46 ms by the clock; the one that is kept takes "
        f"{3 * share * 4.099008:.4g} ms"
    ) in said


def test_what_the_last_try_leaves_is_timed_as_well(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once the student has trained, four times by the clock, the next time is longer."""
    monkeypatch.setattr(path_shares, "measure_paths", by_flops([]))
    monkeypatch.setattr(by_shrinking, "_TRIES", 1)
    calls = count(1)

    def once_slow(*arguments: Any, **settings: Any) -> float:
        return clock(2.0 if next(calls) == 5 else 1.0)(*arguments, **settings)

    monkeypatch.setattr(by_sizes, "share_of_time", once_slow)
    runs.tailored("--max-latency-ms", "2.46", "--student.epochs", "4", "--levers", "blocks")
    assert next(calls) == 7
    said = capsys.readouterr().out
    assert "what is left takes" in said
    assert "no network keeps" not in said


@pytest.mark.parametrize(
    "flags",
    [
        ["--max-latency-ms", "2.46"],
        ["--student.cost", "latency", "--tolerance", "100"],
    ],
)
def test_a_resumed_run_reads_the_same_table(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(path_shares, "measure_paths", by_flops(asked))
    monkeypatch.setattr(by_sizes, "share_of_time", clock(1.0))
    argv = [*SMALL, *flags, "--out", str(runs.out)]

    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tailoring, "finetune", pressed)
        with pytest.raises(KeyboardInterrupt):
            tailor.main(argv)
    folder = runs.only()
    before = (folder / "latency_table.json").read_bytes()
    front = front_in(folder)
    with monkeypatch.context() as patch:
        # neither is worked out anew: times, and what parts are worth, need not come out alike
        patch.setattr(Descent, "_next", pressed)
        patch.setattr("nettailor.commands.tailor.check_budget", pressed)
        tailor.main(argv)
    assert asked == [1]
    assert (folder / "latency_table.json").read_bytes() == before
    after = front_in(folder)
    assert [one._replace(finetuned=None) for one in after.points] == front.points
    spent = sum(float(row["seconds"]) for row in rows_of(folder) if row["stage"] == "student")
    assert after.seconds.train == pytest.approx(spent, abs=0.1)
    assert read(folder / "summary.json")["tailored"]["depth"] == after.points[0].name


def test_overwriting_measures_anew_and_a_refusal_keeps_what_is_there(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time the device is ten times slower, and the budget out of reach."""
    flags = ["--max-latency-ms", "2.46"]
    asked: list[int] = []
    table = by_flops(asked)
    monkeypatch.setattr(path_shares, "measure_paths", table)
    folder = runs.tailored(*flags)

    def slow(*arguments: Any, **settings: Any) -> LatencyTable:
        paths, stem, whole = table(*arguments, **settings)
        return LatencyTable({key: 10 * ms for key, ms in paths.items()}, 10 * stem, 10 * whole)

    monkeypatch.setattr(path_shares, "measure_paths", slow)
    assert "ms: give a budget from" in runs.refused(*flags, "--overwrite")
    assert asked == [1, 1]
    assert (folder / "summary.json").exists()
