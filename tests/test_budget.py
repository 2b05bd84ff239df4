"""Budgets of multiply-adds or parameters: met by the last size, or refused before all else."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import PUBLISHED, front_in
from tailor_runs import NAME, SMALL, Runs, read, routes_by

from nettailor.cli import tailor
from nettailor.core.errors import UserError

pytestmark = pytest.mark.usefixtures("_quickly")


@pytest.mark.parametrize(
    ("flags", "unit"),
    [
        (["--max-flops", "0.3"], "flops"),
        (["--max-flops", "1.5"], "flops"),
        (["--max-params", "0.001"], "params"),
    ],
)
def test_a_budget_out_of_reach(runs: Runs, flags: list[str], unit: str) -> None:
    leanest, dearest = routes_by(unit).reach()
    most = float(flags[1])
    side = "as much as" if most > leanest else "no more than"
    assert runs.refused(*flags) == (
        f"error: no network of this backbone costs {side} {most:.4g} of the backbone's: give a "
        "budget from "
        f"{leanest * 1.005:.3g} to {dearest * 1.005:.3g} of the backbone's\n"
    )


@pytest.mark.parametrize("flag", ["--max-flops", "--max-latency-ms"])
def test_a_budget_out_of_reach_where_there_is_no_teacher(tmp_path: Path, flag: str) -> None:
    with pytest.raises(UserError, match="give a budget from"):
        tailor.main([*SMALL, flag, "0.003", "--out", str(tmp_path)])
    # what was measured is kept: the next budget is checked at once
    assert {path.parent.name for path in tmp_path.rglob("*") if path.is_file()} <= {"times"}


@pytest.mark.parametrize(
    "budget",
    [
        ["--max-flops", "0.4588"],
        ["--max-flops", "1"],
        ["--max-params", "1"],
        ["--max-params", "0.02089"],
        ["--backbone", "test_efficientnet", "--max-params", "1"],
    ],
)
def test_the_ends_of_the_range_that_is_told_are_budgets(
    budget: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are taken, and the teacher is next."""

    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nettailor.commands.tailor.ready_teacher", pressed)
    with pytest.raises(KeyboardInterrupt):
        tailor.main([*SMALL, *budget, "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([*PUBLISHED, "--max-flops", "0.6"], r"a budget needs prune\.by: route"),
        (["--skips", "1"], r"student\.skips = 1: proxies need prune\.by: rank"),
    ],
)
def test_settings_that_make_no_sense(runs: Runs, flags: list[str], words: str) -> None:
    assert re.search(words, runs.refused(*flags))


@pytest.mark.parametrize(("unit", "most"), [("flops", 0.6), ("params", 0.19)])
def test_a_budget_is_kept(runs: Runs, unit: str, most: float) -> None:
    """By the last size, which alone of the front is fine-tuned."""
    folder = runs.tailored(f"--max-{unit}", str(most), "--student.epochs", "4")
    assert folder.name == f"{NAME}-all-blocks-gamma0.3-{unit}{most}-seed0"
    front = front_in(folder)
    leanest, *dearer = front.points
    assert leanest.cost <= most
    assert getattr(leanest, unit) == pytest.approx(leanest.cost)
    assert dearer
    assert all(one.finetuned is None for one in dearer)
    assert all(one.cost < other.cost for one, other in pairwise(front.points))
    tailored_by = read(folder / "summary.json")["tailored"]
    assert tailored_by["budget"] == {"cost": unit, "most": most, "batch": None}
    assert tailored_by["cut"] == "route"
    (kept,) = read(folder / "candidates.json")
    assert kept["verdict"] == "kept"
    assert tailored_by["depth"] == kept["name"] == leanest.name
    network = runs.student(folder)
    assert leanest.paths == network.wiring.paths
    assert runs.share_of(network, unit) == pytest.approx(leanest.cost)
    assert leanest.finetuned == kept["finetuned"]
    assert leanest.accuracy == kept["before_finetuning"]
