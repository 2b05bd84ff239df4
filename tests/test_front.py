"""The front of a run on disk, and which of its points a user gets."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nettailor.core.errors import UserError
from nettailor.core.training_state import Fitted
from nettailor.front import (
    Front,
    Point,
    Seconds,
    pick,
    read_front,
    size_name,
    write_front,
)
from nettailor.share import Share, read_share
from nettailor.student.wiring import Path as Way
from nettailor.student.wiring import full_wiring

STUDENT = full_wiring(2, 0, identities=[1], exits=[1])  # two blocks
LEAN = (Way(0, 1, "identity"), Way(1, 3, "exit"))
WHOLE = (Way(0, 1, "block"), Way(1, 2, "block"), Way(2, 3, "head"))
# the middle one has more parameters than the dearest
FRONT = Front(
    [
        Point("size-0.150", LEAN, 0.15, 0.15, 0.05, 40.0, 0.5),
        Point("size-0.400", (*WHOLE[:1], Way(1, 3, "exit")), 0.4, 0.4, 0.9, 80.25, 0.4, 91.5),
        Point("size-0.800", WHOLE, 0.8, 0.8, 0.7, 100 / 3, 0.5, 92.0),
    ],
    Seconds(1.25, 2.5),
)


def test_round_trip(tmp_path: Path) -> None:
    write_front(tmp_path, FRONT)
    assert [path.name for path in tmp_path.iterdir()] == ["front.json"]
    assert read_front(tmp_path, STUDENT) == FRONT


@pytest.mark.parametrize(
    ("cost", "name"),
    [(1.0, "size-1.00"), (0.25, "size-0.250"), (0.0123456, "size-0.0123"), (0.9999, "size-1.00")],
)
def test_names_say_the_cost(cost: float, name: str) -> None:
    assert size_name(cost, None) == name
    assert size_name(cost, 48) == f"{name}-48px"


def test_seconds_add_up() -> None:
    stages = [Fitted([{"seconds": 2.0, "val_seconds": 0.5}] * 2), Fitted([])]
    assert Seconds(1.0, 1.5).plus(*stages) == Seconds(5.0, 6.5)


@pytest.mark.parametrize(
    ("unit", "most", "name"),
    [
        ("flops", 0.15, "size-0.150"),
        ("flops", 0.399, "size-0.150"),
        ("flops", 0.41, "size-0.400"),
        ("flops", 7, "size-0.800"),
        ("params", 0.06, "size-0.150"),
        ("params", 0.89, "size-0.800"),
        ("params", 0.95, "size-0.400"),
    ],
)
def test_the_nearest_that_is_not_above(unit: Any, most: float, name: str) -> None:
    assert pick(FRONT, Share(unit, most)).name == name


def test_of_several_resolutions_it_is_that_of_the_kept_network() -> None:
    """At 48 px there is a size that is dearer, and nearer to what is asked for."""
    lower = [one._replace(name=f"{one.name}-48px", flops=one.flops + 0.1, side=48)
             for one in FRONT.points]  # fmt: skip
    both = FRONT._replace(points=[*lower, *FRONT.points])
    assert pick(both, Share("flops", 0.3)).name == "size-0.150"
    assert pick(both, Share("flops", 0.3), 48).name == "size-0.150-48px"
    assert pick(both, Share("flops", 0.45)).name == "size-0.400"
    assert pick(both, Share("flops", 0.45), 48).name == "size-0.150-48px"


@given(st.sampled_from(["flops", "params"]), st.floats(0.01, 1.2))
def test_no_other_point_lies_between(unit: Any, most: float) -> None:
    costs = [getattr(point, unit) for point in FRONT.points]
    if most < min(costs):
        with pytest.raises(UserError):
            pick(FRONT, Share(unit, most))
        return
    cost = getattr(pick(FRONT, Share(unit, most)), unit)
    assert cost <= most
    assert not any(cost < other <= most for other in costs)


def test_below_the_leanest_the_range_is_told() -> None:
    with pytest.raises(UserError, match=r"^--pick flops=0\.1: .* from 0\.150 to 0\.800; give"):
        pick(FRONT, Share("flops", 0.1))
    with pytest.raises(UserError, match=r"^--pick params=0\.01: .* from 0\.050 to 0\.900; give"):
        pick(FRONT, Share("params", 0.01))
    upwards = Front([FRONT.points[0]._replace(flops=0.1344)], FRONT.seconds)
    with pytest.raises(UserError, match=r"from 0\.135 to 0\.135; give"):
        pick(upwards, Share("flops", 0.1))
    assert pick(upwards, Share("flops", 0.135)) == upwards.points[0]


@pytest.mark.parametrize(
    ("text", "share", "name"),
    [
        ("flops=0.25", Share("flops", 0.25), "flops0.25"),
        ("params=1e-1", Share("params", 0.1), "params0.1"),
        ("flops=2", Share("flops", 2.0), "flops2"),
    ],
)
def test_a_share_is_read(text: str, share: Share, name: str) -> None:
    assert read_share(text) == share
    assert share.name == name


@pytest.mark.parametrize(
    "text",
    ["", "flops", "0.25", "=0.25", "flops=", "flops=x", "flops=0", "flops=-1", "flops=nan",
     "flops=inf", "latency=4", "FLOPS=0.2", "flops=0.2=3", "params=0,1"],
)  # fmt: skip
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(UserError, match=r"^--pick .*expected a share .*flops=0\.25 or params=0\.1"):
        read_share(text)


def content(**changes: Any) -> dict[str, Any]:
    point = {
        "name": "a", "paths": [list(way) for way in WHOLE], "flops": 1.0, "params": 1.0,
        "accuracy": 50.0, "loss": 0.5, "cost": 1.0, "finetuned": None,
    }  # fmt: skip
    return {"seconds": {"train": 1.0, "total": 2.0}, "points": [{**point, **changes}]}


def test_the_undamaged_content_is_read(tmp_path: Path) -> None:
    (tmp_path / "front.json").write_text(json.dumps(content()), encoding="utf-8")
    assert read_front(tmp_path, STUDENT).points[0].paths == WHOLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        json.dumps({"points": []}),
        json.dumps({**content(), "points": 3}),
        json.dumps({**content(), "points": [3]}),
        json.dumps({**content(), "seconds": {"train": 1}}),
        json.dumps(content(flops="much")),
        json.dumps(content(accuracy=None)),
        json.dumps(content(cost="much")),
        json.dumps(content(name=3)),
        json.dumps(content(name="../b")),
        json.dumps(content(paths=3)),
        json.dumps(content(paths=[[0, 1]])),
        json.dumps(content(paths=[[0, 1, "magic"]])),
        json.dumps(content(paths=[[0, 9, "proxy"]])),
        json.dumps(content(paths=[[0, 2, "block"]])),
        json.dumps(content(paths=[[0, 1, "block"], [0, 1, "block"]])),
        json.dumps({**content(), "points": []}),
        json.dumps({**content(), "points": {}}),
        # paths that the student lacks
        json.dumps(content(paths=[[0, 2, "proxy"], [2, 3, "head"]])),
        json.dumps(content(paths=[[0, 1, "block"], [1, 2, "identity"], [2, 3, "head"]])),
        json.dumps(content(paths=[[0, 1, "block"], [1, 2, "block"], [2, 3, "exit"]])),
        # its own paths, but no whole route
        json.dumps(content(paths=[])),
        json.dumps(content(paths=[[0, 1, "block"], [2, 3, "head"]])),
        json.dumps(content(paths=[[1, 2, "block"], [2, 3, "head"]])),
        json.dumps(content(paths=[[0, 1, "block"], [1, 2, "block"]])),
        json.dumps(content(paths=[[0, 1, "block"], [0, 1, "identity"], [1, 3, "exit"]])),
        json.dumps(content(paths=[list(way) for way in (*WHOLE, Way(1, 3, "exit"))])),
    ],
)
def test_a_damaged_front(tmp_path: Path, text: str) -> None:
    (tmp_path / "front.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"front\.json: [^\n]+$"):
        read_front(tmp_path, STUDENT)


def test_the_front_of_another_student(tmp_path: Path) -> None:
    write_front(tmp_path, FRONT)
    for other in (full_wiring(2, 0, exits=[1]), full_wiring(3, "dense", identities=[1, 2, 3])):
        with pytest.raises(UserError, match=r"front\.json: is damaged; tailor again"):
            read_front(tmp_path, other)


def test_no_front(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"front\.json: [^\n]+$"):
        read_front(tmp_path, STUDENT)
