"""`scale` whole: its runs at their own image sizes, their evidence, and what it refuses."""

import csv
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from tailor_runs import no_training, quick_latency, summary_of

from nettailor import stage
from nettailor.cli import compare, export, predict, scale
from nettailor.commands.scale import scaled_run
from nettailor.core.console import Screen
from nettailor.core.cost import module_flops
from nettailor.core.errors import UserError
from nettailor.core.flags import parse
from nettailor.core.weights import _PACKAGES
from nettailor.deploy.check_images import check_images
from nettailor.network import load_network
from nettailor.session import start_session

SMALL = [
    "--backbone", "test_efficientnet", "--image-size", "40", "--epochs", "2", "--teacher.lr",
    "0.05", "--scale.lr", "0.05", "--limit.train", "160", "--limit.test", "50", "--batch-size",
    "32", "--device", "cpu", "--workers", "0",
]  # fmt: skip
NAME = "test_efficientnet-40px"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the family's base."""
    torch.manual_seed(3)
    file = tmp_path_factory.mktemp("weights") / "base.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), file)
    return file


@pytest.fixture(scope="module")
def argv(weights: Path) -> list[str]:
    return [*SMALL, "--weights", str(weights)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, argv: list[str]) -> Path:
    """The base, and a network of half a step less."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        quick_latency(patch)
        scale.main([*argv, "--out", str(folder), "--phi", "0", "-0.5"])
    return folder / "digits"


def run_of(out: Path, name: str) -> Path:
    return out / "scaled" / f"{NAME}-{name}-seed0"


def test_a_summary_says_what_phi_made(out: Path, argv: list[str]) -> None:
    less, base = (summary_of(run_of(out, name)) for name in ("phi-0.5", "phi0"))
    assert less["kind"] == base["kind"] == "scaled"
    # the image size of the task, and that of the network: 40 / 1.15 ** 0.5 is 37.3
    assert less["image_size"] == base["image_size"] == 40
    assert less["scaled"] == {
        "phi": -0.5, "coefficients": [1.2, 1.1, 1.15], "depth": 1.2**-0.5, "width": 1.1**-0.5,
        "image_size": 36, "member": None, "pretrained": False,
    }  # fmt: skip
    assert base["scaled"] == {
        "phi": 0.0, "coefficients": [1.2, 1.1, 1.15], "depth": 1.0, "width": 1.0,
        "image_size": 40, "member": "test_efficientnet", "pretrained": True,
    }  # fmt: skip
    teacher = summary_of(out / "teacher" / f"{NAME}-seed0")
    assert teacher["scaled"] is None
    assert less["teacher"]["accuracy"] == teacher["accuracy"]
    assert base["params"] == teacher["params"]
    assert base["flops"] == teacher["flops"]
    assert less["stages"] == [0, 1, 2, 3, 4]
    # every figure is at the network's own size
    network, architecture = load_network(run_of(out, "phi-0.5"))
    assert architecture.preprocessing.image_size == 36
    assert less["flops"] == module_flops(network, (3, 36, 36))
    assert architecture.weights_origin == "random initialisation"
    assert load_network(run_of(out, "phi0"))[1].weights_origin == f"file {argv[-1]}"


def test_evidence_is_of_images_of_the_networks_own_size(out: Path, argv: list[str]) -> None:
    folder = run_of(out, "phi-0.5")
    network, architecture = load_network(folder)
    with Screen() as screen:
        session = start_session(parse("test", "", [*argv, "--out", str(out.parent)])[0], screen)
        own, _ = scaled_run(session, -0.5)
        assert own.preprocessing == architecture.preprocessing
        assert {images.shape[2:] for images, _ in own.loaders.val} == {(36, 36)}
        assert {images.shape[2:] for images, _ in own.loaders.train.epoch(0)} == {(36, 36)}
        assert own.config == session.config
        assert session.preprocessing.image_size == 40
        accuracy = own.loaders.validate(network).accuracy
    assert accuracy == pytest.approx(summary_of(folder)["accuracy"]["val"], abs=1e-3)


def test_again_nothing_is_trained_or_loaded_and_other_settings_are_refused(
    out: Path, argv: list[str], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "fit", no_training)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    hidden = weights.rename(weights.with_suffix(".hidden"))
    scale.main([*argv, "--out", str(out.parent), "--phi", "-0.5", "0", "-0"])
    hidden.rename(weights)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(UserError, match=r"holds a run of other settings: scale\.lr"):
        scale.main([*argv, "--out", str(out.parent), "--phi", "0", "--scale.lr", "0.03"])


def test_a_run_is_replayed_by_its_own_settings(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_latency(monkeypatch)
    folder = run_of(out, "phi0")
    text = (folder / "config.yaml").read_text("utf-8")
    assert "scale:" in text
    assert "student:" not in text
    scale.main(["--config", str(folder / "config.yaml"), "--out", str(tmp_path)])
    assert [path.name for path in (tmp_path / "digits" / "scaled").iterdir()] == [folder.name]
    for kind, name in (("scaled", folder.name), ("teacher", f"{NAME}-seed0")):
        twin = (tmp_path / "digits" / kind / name / "model.safetensors").read_bytes()
        assert twin == (out / kind / name / "model.safetensors").read_bytes()


def test_coefficients_and_a_start_from_nothing_are_runs_of_their_own(
    out: Path, argv: list[str]
) -> None:
    own = ["--scale.coefficients", "[1.5, 1.1, 1]", "--scale.pretrained", "false"]
    with Screen() as screen:
        flags = [*argv, *own, "--out", str(out.parent)]
        session = start_session(parse("test", "", flags)[0], screen)
    inside, run = scaled_run(session, 0)
    assert run.folder.path == run_of(out, "phi0-by-1.5-1.1-1-scratch")
    assert run.make()[1].origin == "random initialisation"
    assert run.scaled is not None
    assert (run.scaled["pretrained"], run.scaled["member"]) == (False, "test_efficientnet")
    # no member is of this depth: it begins at random weights either way
    assert scaled_run(session, 0.5)[1].folder.path.name == f"{NAME}-phi0.5-by-1.5-1.1-1-seed0"
    inside, run = scaled_run(session, 2)
    assert inside.preprocessing.image_size == 40
    assert inside.stages == (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4)  # 1.5² rounded up


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--phi", "0", "-9"], r"phi -9 is out of range: .* 40 pixels .*phi can be -1\.59 to"),
        (["--phi", "0", "--backbone", "test_resnet"], "'test_resnet' cannot be scaled"),
        (["--scale.phi", "[]"], "phi is empty"),
        (["--phi", "nan"], "phi = nan: must be finite"),
        (["--phi", "0.5", "0.50000001"], r"φ 0\.5 and 0\.50000001 would share the run"),
        (["--coefficients", "[0.5, 1, 1]"], r"scale\.coefficients = 0\.5: must be a list of 3"),
        (["--coefficients", "[1, 1, 1]"], "are all 1"),
        (
            ["--phi", "0", "1", "--backbone", "tf_efficientnet_lite0", "--weights", "package"],
            "the package no-such-package .*lite1' is not installed.*--scale.pretrained false",
        ),
    ],
)
def test_bad_input_shows_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], message: str
) -> None:
    monkeypatch.setattr(stage, "fit", no_training)
    # whether the `lite` extra is installed here or not
    monkeypatch.setitem(_PACKAGES, "tf_efficientnet_lite1", "no-such-package")
    with pytest.raises(UserError, match=message) as caught:
        scale.main([*SMALL, "--weights", "none", *flags, "--out", str(tmp_path)])
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_scaled_network_predicts_and_is_exported_at_its_size(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_of(out, "phi-0.5")
    with Screen() as screen:
        images = check_images(folder, load_network(folder)[1], screen)
    assert images.what.endswith("validation images")
    assert {tuple(batch.shape[1:]) for batch in images.batches} == {(3, 36, 36)}
    export.main(["--run", str(folder), "--to", str(tmp_path), "--format", "onnx", "safetensors"])
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "test_efficientnet, scaled and trained to digits" in card
    assert "float32 (batch, 3, 36, 36)" in card
    picture = next(iter((folder / "mistakes").iterdir()))
    capsys.readouterr()
    told = []
    for run in (folder, tmp_path):
        predict.main([str(picture), "--run", str(run), "--format", "json", "--device", "cpu"])
        told.append(json.loads(capsys.readouterr().out))
    assert [answer["network"]["image_size"] for answer in told] == [36, 36]
    assert told[0]["images"][0]["predictions"] == told[1]["images"][0]["predictions"]


def test_all_sizes_of_a_family_are_compared(out: Path, argv: list[str]) -> None:
    compare.main([*argv, "--out", str(out.parent)])
    with (out / "comparison" / "comparison.csv").open(encoding="utf-8") as handle:
        rows = {row["method"]: row for row in csv.DictReader(handle)}
    assert list(rows) == ["teacher", "scaled φ -0.5, from scratch", "scaled φ 0"]
    assert [row["image_size"] for row in rows.values()] == ["40"] * 3
    assert [row["input_px"] for row in rows.values()] == ["40", "36", "40"]
    page = (out / "comparison" / "report.html").read_text("utf-8")
    assert "The best within each budget" in page
