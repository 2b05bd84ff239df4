"""`tailor --pick`: another of the sizes that a student passed, fine-tuned."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import no_training
from PIL import Image
from shell import Shell
from tailor_runs import (
    LEARNT,
    RANK,
    ROUTE,
    by_route,
    files_in,
    front_of,
    read,
    summary_of,
)

from nettailor import stage
from nettailor.cli import predict, tailor
from nettailor.front import Point
from nettailor.network import load_network
from nettailor.student.network import Student

pytestmark = pytest.mark.usefixtures("_quickly")


def command_of(point: Point) -> str:
    """The least share of the FLOPs, in whole thousandths, that lets a point in."""
    return f"flops={math.ceil(1000 * point.flops) / 1000:g}"


def test_a_pick_is_a_network_of_its_own_and_leaves_the_run_alone(
    tailored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = shutil.copytree(tailored, tmp_path / "runs")
    before = files_in(runs)
    point = front_of(by_route(runs)).points[1]
    argv = [*LEARNT, *ROUTE, "--pick", command_of(point), "--out", str(runs)]
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
    tailored: Path,
    flags: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files_in(tailored)
    shell = Shell(tailored, monkeypatch, capsys)
    shown = shell.refusal(*LEARNT, *flags, main=tailor.main)
    assert re.search(words, shown), shown
    assert files_in(tailored) == before


def test_a_pick_from_a_run_that_is_damaged_or_half_done(
    tailored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the least point, which is sound, and of the one whose path the student does not have."""
    runs = shutil.copytree(tailored, tmp_path / "runs")
    file = by_route(runs) / "front.json"
    front = read(file)
    least = command_of(front_of(by_route(runs)).points[0])
    front["points"][-1]["paths"] = [[0, 1, "block"], [1, 4, "proxy"], [4, 5, "head"]]
    file.write_text(json.dumps(front), encoding="utf-8")
    shell, argv = Shell(runs, monkeypatch, capsys), [*LEARNT, *ROUTE, "--pick"]
    for pick in (least, "flops=1"):
        shown = shell.refusal(*argv, pick, main=tailor.main)
        assert "front.json: is damaged; tailor again with --overwrite" in shown
    (by_route(runs) / "summary.json").unlink()
    shown = shell.refusal(*argv, "flops=0.9", main=tailor.main)
    assert "holds no finished run; give the settings of one, or tailor first" in shown
