"""`knapsack` whole: its runs, their evidence, what is done with them, and what it refuses."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import interrupted_after_one_epoch
from safetensors.torch import load_file, save_file
from tailor_runs import no_training, quickly, summary_of

from nettailor import stage
from nettailor.cli import compare, export, knapsack, predict, tailor
from nettailor.core.backbone import Backbone
from nettailor.core.cost import module_flops, parameters
from nettailor.core.errors import UserError
from nettailor.core.images import FileImages, no_files
from nettailor.network import load_network
from nettailor.session import Session, start_session
from nettailor.student.network import Student

SMALL = [
    "--backbone", "test_efficientnet", "--weights", "none", "--image-size", "32", "--epochs", "2",
    "--teacher.epochs", "4", "--teacher.lr", "0.1", "--limit.train", "300", "--limit.test", "100",
    "--device", "cpu", "--workers", "0",
]  # fmt: skip
NAME = "test_efficientnet-32px"
ALONE = "all-gamma0.3-flops0.5"


pytestmark = pytest.mark.usefixtures("_quickly")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's narrow network, a tailored one, and that one's narrow network."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        knapsack.main([*SMALL, "--out", str(folder)])
        tailor.main([*SMALL, "--out", str(folder), "--max-flops", "0.5"])
        tailored = folder / "digits" / "tailored" / f"{NAME}-{ALONE}-seed0"
        knapsack.main([
            *SMALL, "--out", str(folder), "--of", str(tailored), "--max-params", "0.6",
        ])  # fmt: skip
    return folder / "digits"


def narrow_teacher(out: Path) -> Path:
    return out / "knapsack" / f"{NAME}-flops0.5-seed0"


def narrow_tailored(out: Path) -> Path:
    return out / "knapsack" / f"{NAME}-params0.6-of-{ALONE}-seed0"


def test_the_budget_is_met_by_file_memory_and_work(out: Path) -> None:
    run, teacher = narrow_teacher(out), out / "teacher" / f"{NAME}-seed0"
    mine, whole = summary_of(run), summary_of(teacher)
    assert mine["kind"] == "knapsack"
    assert 0.49 <= mine["flops"] / whole["flops"] <= 0.5
    network, _ = load_network(run)
    assert isinstance(network, Backbone)
    assert module_flops(network, (3, 32, 32)) == mine["flops"]
    assert parameters(network) == mine["params"]["total"] < whole["params"]["total"]
    assert mine["bytes"] == (run / "model.safetensors").stat().st_size < whole["bytes"]
    assert mine["peak_memory"]["64"] < whole["peak_memory"]["64"]
    assert mine["params"]["universal"] == 0


def test_the_summary_says_how(out: Path) -> None:
    how = summary_of(narrow_teacher(out))["knapsack"]
    teacher = summary_of(out / "teacher" / f"{NAME}-seed0")
    seconds = teacher["seconds"]["train"]
    assert how["of"] == {"kind": "teacher", "name": "", "train_seconds": seconds}
    assert how["budget"] == {"cost": "flops", "most": 0.5, "batch": None}
    assert how["round_to"] == 8
    assert 0 < how["value_kept"] < 1
    assert 0.49 <= how["cost"] <= 0.5
    assert 0 <= how["straight_after"]["accuracy"] <= 100
    assert how["paths"] is None
    teacher = summary_of(out / "teacher" / f"{NAME}-seed0")
    assert teacher["knapsack"] is None


def test_only_its_own_runs_record_its_settings(out: Path) -> None:
    for kind in ("teacher", "tailored", "knapsack"):
        for run in (out / kind).iterdir():
            settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
            assert ("knapsack" in settings) == (kind == "knapsack")
            assert ("gamma" in settings.get("student", {})) == (kind == "tailored")
            assert ("budget" in settings) == ("prune" in settings) == (kind != "teacher")


def test_blocks_and_channels_are_both_fitted(out: Path) -> None:
    run = narrow_tailored(out)
    tailored = out / "tailored" / f"{NAME}-{ALONE}-seed0"
    how = summary_of(run)["knapsack"]
    assert (how["of"]["kind"], how["of"]["name"]) == ("tailored", ALONE)
    assert how["of"]["train_seconds"] > 0
    whole = summary_of(tailored)
    assert 0.588 <= summary_of(run)["params"]["total"] / whole["params"]["total"] <= 0.6
    network, architecture = load_network(run)
    before, _ = load_network(tailored)
    assert isinstance(network, Student)
    assert isinstance(before, Student)
    assert network.wiring == before.wiring
    assert [tuple(row[:3]) for row in how["paths"]] == list(network.wiring.paths)
    assert architecture.narrowed is not None
    assert architecture.narrowed.nodes == tuple(spec.channels for spec in network.specs)


@pytest.mark.parametrize("which", [narrow_teacher, narrow_tailored])
def test_exported_files_answer_as_the_network(which: Any, out: Path, tmp_path: Path) -> None:
    export.main(
        ["--run", str(which(out)), "--format", "onnx", "safetensors", "--to", str(tmp_path / "to")]
    )  # raises where outputs differ
    twin, _ = load_network(tmp_path / "to")
    network, _ = load_network(which(out))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(twin(images).logits, network(images).logits)
    assert (tmp_path / "to" / "model.onnx").stat().st_size > 0


def test_a_transformer_loses_heads_and_hidden_units(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*SMALL, "--backbone", "test_vit", "--image-size", "64", "--limit.train", "100"]
    knapsack.main([*argv, "--teacher.epochs", "1", "--out", str(tmp_path), "--max-flops", "0.7"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "12 of them heads of attention" in shown
    assert "such as stem.patch_embed (permute)" in shown
    run = tmp_path / "digits" / "knapsack" / "test_vit-64px-flops0.7-seed0"
    teacher = run.parents[1] / "teacher" / "test_vit-64px-seed0"
    mine, whole = summary_of(run), summary_of(teacher)
    assert 0.68 <= mine["flops"] / whole["flops"] <= 0.7
    network, architecture = load_network(run)
    assert module_flops(network, (3, 64, 64)) == mine["flops"]
    assert architecture.narrowed is not None
    changed = {name.rpartition(".")[2] for name in architecture.narrowed.layers}
    assert {"fc1", "fc2"} <= changed <= {"fc1", "fc2", "attn", "qkv", "proj"}
    export.main(["--run", str(run), "--format", "onnx", "--to", str(tmp_path / "to")])


def test_predict_and_compare_take_it_like_any_other(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = next((narrow_teacher(out) / "mistakes").iterdir())
    predict.main([str(picture), "--run", str(narrow_teacher(out)), "--device", "cpu"])
    copied = tmp_path / "digits"
    shutil.copytree(out, copied)
    compare.main([str(copied)])
    shown = (copied / "comparison" / "comparison.md").read_text(encoding="utf-8")
    assert "| knapsack, FLOPs ≤ 0.5 |" in shown
    assert f"| knapsack of tailored {ALONE}, params ≤ 0.6 |" in shown
    assert str(picture.name) in capsys.readouterr().out


def test_again_nothing_is_trained(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "fit", no_training)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    knapsack.main([*SMALL, "--out", str(out.parent), "--max-flops", "0.5"])
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.usefixtures("_saved_every_epoch")
def test_interrupted_and_gone_on_is_bit_identical(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(out / "teacher", tmp_path / "digits" / "teacher")
    argv = [*SMALL, "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(stage, "fit", interrupted_after_one_epoch)
        with pytest.raises(KeyboardInterrupt):
            knapsack.main(argv)
    run = narrow_teacher(tmp_path / "digits")
    assert not (run / "summary.json").exists()
    torch.manual_seed(99)
    with monkeypatch.context() as patch:  # what was chosen once is not chosen again
        patch.setattr("nettailor.commands.knapsack.choose", no_training)
        knapsack.main(argv)
    for file in ("channels.json", "model.safetensors", "predictions.csv", "architecture.json"):
        assert (run / file).read_bytes() == (narrow_teacher(out) / file).read_bytes()


def test_the_test_split_is_read_at_the_end(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then its images need not be there."""
    shutil.copytree(out / "teacher", tmp_path / "digits" / "teacher")

    def start(config: Any, screen: Any) -> Session:
        session = start_session(config, screen)
        test = FileImages(no_files(), session.task.test.labels)
        return replace(session, task=replace(session.task, test=test))

    def the_end(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nettailor.commands.knapsack.start_session", start)
    monkeypatch.setattr(Session, "check_images", lambda _: None)
    monkeypatch.setattr("nettailor.commands.knapsack.gather", the_end)
    with pytest.raises(KeyboardInterrupt):
        knapsack.main([*SMALL, "--out", str(tmp_path)])


def test_a_finished_run_is_of_one_network(out: Path, tmp_path: Path) -> None:
    """Of the same name, and others that look like it: none is the answer of another."""
    whole = tmp_path / "digits"
    shutil.copytree(out, whole)
    tailored = whole / "tailored" / f"{NAME}-{ALONE}-seed0"
    teacher = whole / "teacher" / f"{NAME}-seed0"
    argv = [*SMALL, "--out", str(tmp_path)]
    cut_further = [*argv, "--max-params", "0.6", "--of", str(tailored)]
    knapsack.main(cut_further)
    moved = tailored.rename(whole / "tailored" / "elsewhere")
    with pytest.raises(UserError, match="holds no run"):
        knapsack.main(cut_further)
    moved.rename(tailored)
    # trained anew since then
    for folder, words in ((tailored, cut_further), (teacher, argv)):
        tensors = load_file(folder / "model.safetensors")
        key = next(key for key, value in tensors.items() if value.ndim == 4)
        save_file(tensors | {key: tensors[key] + 1}, folder / "model.safetensors")
        with pytest.raises(UserError, match="was begun with another network than is there now"):
            knapsack.main(words)
    shutil.rmtree(teacher)
    knapsack.main(argv)  # nobody to differ from


def test_replayed_by_its_own_settings(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "teacher", tmp_path / "digits" / "teacher")
    knapsack.main(["--config", str(narrow_teacher(out) / "config.yaml"), "--out", str(tmp_path)])
    twin = narrow_teacher(tmp_path / "digits") / "model.safetensors"
    assert twin.read_bytes() == (narrow_teacher(out) / "model.safetensors").read_bytes()


def test_milliseconds(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "teacher", tmp_path / "digits" / "teacher")
    argv = [*SMALL, "--out", str(tmp_path), "--batch", "64", "--max-latency-ms"]
    most = "1e-7"
    for _ in range(25):  # what can be met changes with the moods of a machine that has much to do
        try:
            knapsack.main([*argv, most])
        except UserError as refused:
            if found := re.findall(r"from (\S+) to below (\S+) ms", str(refused)):
                least, whole_takes = map(float, found[0])
            else:
                (quickest,) = re.findall(r"was timed takes (\S+) ms", str(refused))
                least = float(quickest)
            most = f"{(least + whole_takes) / 2:.3g}"
        else:
            break
        # refused by the clock: no run was opened
        assert not any((tmp_path / "digits").glob("knapsack/*"))
    (run,) = (tmp_path / "digits" / "knapsack").iterdir()
    assert run.name == f"{NAME}-{float(most):g}ms-batch64-seed0"
    how = summary_of(run)["knapsack"]
    assert how["budget"] == {"cost": "latency_ms", "most": float(most), "batch": 64}
    whole = summary_of(out / "teacher" / f"{NAME}-seed0")
    assert summary_of(run)["params"]["total"] < whole["params"]["total"]


def test_runs_that_cannot_be_made_narrower(out: Path, tmp_path: Path) -> None:
    argv = [*SMALL, "--out", str(tmp_path)]
    for folder in (narrow_tailored(out), out / "teacher" / f"{NAME}-seed0"):
        with pytest.raises(UserError, match="holds no tailored network of this task that stands"):
            knapsack.main([*argv, "--of", str(folder)])
    tailored = out / "tailored" / f"{NAME}-{ALONE}-seed0"
    (size, *_) = (tailored / "sizes").iterdir()
    with pytest.raises(UserError, match=r"is no network of its own .* candidates/ or picked/"):
        knapsack.main([*argv, "--of", str(size)])
    with pytest.raises(UserError, match="is of another task: seed is 0 there and 1 here"):
        knapsack.main([*argv, "--of", str(tailored), "--seed", "1"])
    assert not any(tmp_path.iterdir())


def test_a_damaged_choice_and_another_teacher(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "teacher", tmp_path / "digits" / "teacher")
    run = narrow_teacher(tmp_path / "digits")
    run.mkdir(parents=True)
    for name in ("config.yaml", "images.csv", "channels.json"):
        shutil.copy(narrow_teacher(out) / name, run / name)
    file, argv = run / "channels.json", [*SMALL, "--out", str(tmp_path)]
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | {"whole": "0"}), encoding="utf-8")
    with pytest.raises(UserError, match="was begun with another network than is there now"):
        knapsack.main(argv)
    file.write_text(json.dumps(content | {"kept": {"stem.conv_stem.weight": [999]}}), "utf-8")
    with pytest.raises(UserError, match="holds channels of another network"):
        knapsack.main(argv)
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"channels\.json: whole: Field required"):
        knapsack.main(argv)
