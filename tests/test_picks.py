"""`tailor --pick`: another of the sizes that a student passed, fine-tuned."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import no_training, quick_latency
from PIL import Image
from tailored_runs import (
    RANK,
    ROUTE,
    SMALL,
    by_route,
    files_in,
    front_of,
    refusal,
    summary_of,
    tailored_once,
)

from nettailor import stage, tailoring
from nettailor.cli import predict, tailor
from nettailor.front import Point
from nettailor.network import load_network
from nettailor.student.network import Student


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_latency(monkeypatch)
    monkeypatch.setattr(tailoring, "StudentPictures", lambda *_: None)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tailored_once(tmp_path_factory)


def command_of(point: Point) -> str:
    """The least share of the FLOPs, in whole thousandths, that lets a point in."""
    return f"flops={math.ceil(1000 * point.flops) / 1000:g}"


def test_a_pick_is_a_network_of_its_own_and_leaves_the_run_alone(
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = shutil.copytree(out, tmp_path / "runs")
    before = files_in(runs)
    point = front_of(by_route(runs)).points[1]
    argv = [*SMALL, *ROUTE, "--pick", command_of(point), "--out", str(runs)]
    tailor.main(argv)
    after = files_in(runs)
    picked = by_route(runs) / "picked" / command_of(point).replace("=", "")
    assert {name: after[name] for name in before} == before
    assert all((runs / name).is_relative_to(picked) for name in after.keys() - before.keys())

    summary = summary_of(picked)
    assert summary.keys() == summary_of(by_route(runs)).keys()
    assert summary["kind"] == "picked"
    assert summary["tailored"]["depth"] == point.name
    assert summary["flops"] == pytest.approx(point.flops * summary["teacher"]["flops"])
    assert all(0 <= summary["accuracy"][split] <= 100 for split in ("train", "val", "test"))
    assert summary["seconds"]["train"] > front_of(by_route(runs)).seconds.train
    network, _ = load_network(picked)
    assert isinstance(network, Student)
    assert network.wiring.paths == point.paths
    assert not (picked / "state").exists()
    capsys.readouterr()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    predict.main([
        str(tmp_path / "image.png"), "--run", str(picked), "--device", "cpu", "--format", "json",
    ])  # fmt: skip
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert image["predictions"]

    with monkeypatch.context() as patch:
        patch.setattr(stage, "fit", no_training)
        tailor.main(argv)
    assert files_in(runs) == after
    assert picked.name in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            [*ROUTE, "--pick", "flops=0.01"],
            r"--pick flops=0\.01: the front of this run goes from 0\.",
        ),
        ([*ROUTE, "--pick", "flops=0.9", "--overwrite"], "--overwrite: a pick discards nothing"),
        ([*ROUTE, "--pick", "lots"], "--pick lots: expected a share"),
        ([*ROUTE, "--gamma", "7", "--pick", "flops=0.9"], "holds no finished run"),
        ([*ROUTE, "--student.lr", "0.7", "--pick", "flops=0.9"], "a run of other settings"),
        ([*RANK, "--pick", "flops=0.9"], r"front\.json: "),
    ],
)
def test_a_pick_that_cannot_be(
    out: Path,
    flags: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files_in(out)
    shown = refusal(monkeypatch, capsys, *SMALL, *flags, "--out", str(out))
    assert re.search(words, shown), shown
    assert files_in(out) == before


def no_points(front: dict[str, Any]) -> None:
    front["points"] = []


def a_path_too_far(front: dict[str, Any]) -> None:
    """The student of these settings has no proxies."""
    front["points"][-1]["paths"] = [[0, 1, "block"], [1, 4, "proxy"], [4, 5, "head"]]


def disconnected(front: dict[str, Any]) -> None:
    del front["points"][-1]["paths"][1]


def a_name_that_leads_elsewhere(front: dict[str, Any]) -> None:
    front["points"][-1]["name"] = "../student"


@pytest.mark.parametrize(
    "damage", [no_points, a_path_too_far, disconnected, a_name_that_leads_elsewhere]
)
def test_a_pick_from_a_damaged_front(
    out: Path,
    tmp_path: Path,
    damage: Callable[[dict[str, Any]], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where the point that is asked for is sound."""
    runs = shutil.copytree(out, tmp_path / "runs")
    file = by_route(runs) / "front.json"
    front = json.loads(file.read_text(encoding="utf-8"))
    least = command_of(front_of(by_route(runs)).points[0])
    damage(front)
    file.write_text(json.dumps(front), encoding="utf-8")
    before = files_in(runs)
    for pick in (least, "flops=1"):
        argv = [*SMALL, *ROUTE, "--pick", pick, "--out", str(runs)]
        shown = refusal(monkeypatch, capsys, *argv)
        assert "front.json: is damaged; tailor again with --overwrite" in shown
    assert files_in(runs) == before


def test_a_pick_from_a_run_that_is_half_done(
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = shutil.copytree(out, tmp_path / "runs")
    argv = [*SMALL, *ROUTE, "--out", str(runs)]
    (by_route(runs) / "summary.json").unlink()
    assert (by_route(runs) / "front.json").exists()
    before = files_in(runs)
    shown = refusal(monkeypatch, capsys, *argv, "--pick", "flops=0.9")
    assert "holds no finished run; give the settings of one, or tailor first" in shown
    assert files_in(runs) == before
