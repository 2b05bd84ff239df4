"""What paths cost as shares of the whole backbone: counted, and measured once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import lively_chain, no_training
from networks import student_of

from nettailor import path_shares
from nettailor.core import latency
from nettailor.core.backbone import Backbone
from nettailor.core.console import Screen
from nettailor.core.cost import module_flops, parameters
from nettailor.core.errors import UserError
from nettailor.core.flags import parse
from nettailor.path_shares import PathCosts
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.session import Session, start_session
from nettailor.student.costs import shares_of
from nettailor.student.latency_table import measure_paths
from nettailor.student.network import Student
from nettailor.student.wiring import Wiring

BACKBONES = ["test_resnet", "test_efficientnet", "test_convnext", "mobilenetv3_small_050"]
SMALL = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--limit.train", "100",
    "--limit.test", "20", "--device", "cpu", "--workers", "0",
]  # fmt: skip
TIMED = ["--student.cost", "latency", "--batch", "2"]


def pair(backbone: str) -> tuple[Backbone, Student]:
    student = student_of(backbone)
    return lively_chain(backbone), student


@pytest.mark.parametrize("unit", ["flops", "params"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_backbones_own_paths_are_all_of_it(backbone, unit):
    chain, student = pair(backbone)
    shares = shares_of(student, chain, 64, unit)
    assert shares.whole == (
        module_flops(chain, (3, 64, 64)) if unit == "flops" else parameters(chain)
    )
    own = [path for path in student.wiring.paths if path.kind in ("block", "head")]
    assert shares.of(student.wiring, own) == pytest.approx(1, abs=1e-9)
    by_path = dict(zip(student.wiring.paths, shares.paths, strict=True))
    assert shares.fixed + sum(by_path[path] for path in own) == pytest.approx(1, abs=1e-9)
    assert shares.fixed > 0
    for path, share in by_path.items():
        assert share == 0 if path.kind == "identity" else 0 < share < 1


def session_of(folder: Path, *flags: str) -> Session:
    return start_session(parse("test", "", [*SMALL, *flags, "--out", str(folder)])[0], Screen())


def timed(file: Path, *, fresh: bool = False) -> PathCosts:
    return PathCosts(session_of(file.parent, *TIMED), file, fresh=fresh)


@pytest.fixture
def asked(monkeypatch):
    """The settings of every measurement, which is brief."""
    seen: list[dict[str, Any]] = []

    def briefly(*arguments, **settings):
        seen.append({"batch": settings["batch"]})
        return measure_paths(*arguments, **settings, seconds=0.02)

    monkeypatch.setattr(path_shares, "measure_paths", briefly)
    return seen


def test_times_are_measured_once(tmp_path, asked):
    _, student = pair("test_resnet")
    file = tmp_path / "latency_table.json"
    costs = timed(file)
    assert asked == []
    first = costs.shares(student)
    assert asked == [{"batch": 2}]
    assert costs.shares(student) == first
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert kept.parent == tmp_path / "digits" / "times", "a run that is refused leaves nothing else"
    costs.keep(student)
    assert {path.name for path in tmp_path.iterdir()} == {file.name, "digits"}
    before = (file.read_bytes(), os.stat(file).st_mtime_ns)
    costs.keep(student)
    again = timed(file)
    assert again.shares(student) == first
    again.keep(student)
    assert len(asked) == 1
    assert (file.read_bytes(), os.stat(file).st_mtime_ns) == before

    table = json.loads(file.read_text(encoding="utf-8"))
    assert list(table["paths"]) == [path.key for path in student.wiring.paths]
    assert first.whole == table["whole"] > 0
    assert first.fixed == table["stem"] / table["whole"]
    own = [path for path in student.wiring.paths if path.kind in ("block", "head")]
    assert first.of(student.wiring, own) == pytest.approx(1, abs=1e-9)

    # a cut student finds its paths in the table of the whole one
    kept = Wiring(student.wiring.depth, tuple(own))
    smaller = remove(student, PrunePlan("route", student.wiring, kept))
    by_path = dict(zip(student.wiring.paths, first.paths, strict=True))
    for found in (costs, timed(file)):
        assert found.shares(smaller).paths == [by_path[path] for path in kept.paths]


def test_a_run_of_another_budget_measures_nothing_again(tmp_path, monkeypatch, asked):
    """A budget out of reach is told once the times are there: the next one is told at once."""
    _, student = pair("test_resnet")
    first = timed(tmp_path / "one.json").shares(student)
    with monkeypatch.context() as patch:
        patch.setattr(latency, "_pass", no_training)
        assert timed(tmp_path / "two.json").shares(student) == first
    assert timed(tmp_path / "three.json", fresh=True).shares(student) != first


def test_a_run_that_begins_anew_measures_anew(tmp_path, asked):
    _, student = pair("test_resnet")
    file = tmp_path / "latency_table.json"
    file.write_text("damaged", encoding="utf-8")
    costs = timed(file, fresh=True)
    costs.shares(student)
    assert len(asked) == 1
    file.unlink()  # as the folder does when it is opened
    costs.keep(student)
    assert timed(file).shares(student) == costs.shares(student)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("flags", "unit"),
    [
        ([], "flops"),
        (["--student.cost", "params"], "params"),
        (["--max-params", "0.5"], "params"),
        (["--student.cost", "params", "--max-flops", "0.5"], "flops"),
        (["--student.cost", "latency", "--max-flops", "0.5"], "flops"),
        (["--max-latency-ms", "4", "--batch", "3"], "latency"),
        (["--student.cost", "params", "--max-latency-ms", "4", "--batch", "3"], "latency"),
    ],
)
def test_what_a_run_goes_by(tmp_path, asked, flags, unit):
    _, student = pair("test_resnet")
    file = tmp_path / "latency_table.json"
    if unit != "latency":
        file.write_text("of no account", encoding="utf-8")
    costs = PathCosts(session_of(tmp_path, *flags), file, fresh=False)
    costs.shares(student)
    assert asked == ([{"batch": 3}] if unit == "latency" else [])
    if unit != "latency":
        # its own chain has as many classes as the task, 10
        ten = student_of(lively_chain("test_resnet", 10))  # fmt: skip
        assert costs.shares(ten) == shares_of(ten, lively_chain("test_resnet", 10), 32, unit)
        costs.keep(student)
        assert file.read_text(encoding="utf-8") == "of no account"


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table | {"whole": 0},
        lambda table: table | {"whole": None},
        lambda table: table | {"paths": {}},
        lambda table: table | {"paths": [1, 2]},
        lambda table: table | {"stem": "fast"},
        lambda table: {},
        lambda table: [],
    ],
)
def test_a_damaged_table(tmp_path, change, asked):
    _, student = pair("test_resnet")
    file = tmp_path / "latency_table.json"
    table = {
        "paths": {path.key: 1.0 for path in student.wiring.paths},
        "stem": 1.0,
        "whole": 5.0,
    }
    file.write_text(json.dumps(table), encoding="utf-8")
    timed(file).shares(student)
    file.write_text(json.dumps(change(table)), encoding="utf-8")
    words = r"latency_table\.json: (is damaged|lacks the path \S+); give --overwrite"
    with pytest.raises(UserError, match=words):
        timed(file).shares(student)
    assert asked == []
