"""`eliminate` whole: its runs, their evidence, and what it refuses."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import interrupted_after_one_epoch
from PIL import Image
from tailor_runs import no_training, quick_latency, summary_of

from nettailor import stage
from nettailor.cli import eliminate
from nettailor.core.backbone import Backbone
from nettailor.core.console import Screen
from nettailor.core.errors import UserError
from nettailor.core.flags import parse
from nettailor.core.weights import universal_digest
from nettailor.network import load_network
from nettailor.session import start_session

SMALL = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "2",
    "--teacher.lr", "0.1", "--eliminate.lr", "0.1", "--limit.train", "300", "--limit.test", "100",
    "--device", "cpu", "--workers", "0",
]  # fmt: skip
NAME = "test_resnet-32px"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the bare command leaves, and a network with a replacement whose head alone trained."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        quick_latency(patch)
        eliminate.main([*SMALL, "--out", str(folder)])
        eliminate.main([
            *SMALL, "--out", str(folder), "--unit", "blocks", "--top", "[2]", "--trainable", "head",
            "--replacement", "--references", "[]",
        ])  # fmt: skip
    return folder / "digits"


def test_every_number_of_stages_the_references_and_the_teacher_are_trained(out: Path) -> None:
    assert {str(path.parent.relative_to(out)) for path in out.rglob("summary.json")} == {
        f"teacher/{NAME}-seed0",
        f"eliminated/{NAME}-stages1-seed0",
        f"eliminated/{NAME}-stages2-seed0",
        f"eliminated/{NAME}-stages3-seed0",
        f"eliminated/{NAME}-blocks2-conv-head-seed0",
        f"head-only/{NAME}-seed0",
        f"scratch/{NAME}-seed0",
    }


def test_summaries_say_what_was_cut(out: Path) -> None:
    two = summary_of(out / "eliminated" / f"{NAME}-stages2-seed0")
    assert two["kind"] == "eliminated"
    assert two["eliminated"] == {
        "unit": "stages", "top": 2, "kept_blocks": 2, "replacement": False, "trainable": "all",
    }  # fmt: skip
    assert two["stages"] == [0, 1, 2, 3]
    assert two["blocks"] == {"universal": 2, "proxy": 0}
    assert two["params"]["universal"] == 0
    teacher = summary_of(out / "teacher" / f"{NAME}-seed0")
    assert two["teacher"]["accuracy"] == teacher["accuracy"]
    assert teacher["eliminated"] is teacher["teacher"] is None
    assert two["teacher"]["latency_ms"] != teacher["latency_ms"]  # measured in turn, today


def test_shared_parameters_of_a_network_whose_head_alone_trained(out: Path) -> None:
    folder = out / "eliminated" / f"{NAME}-blocks2-conv-head-seed0"
    row = summary_of(folder)
    assert row["eliminated"]["replacement"]
    assert row["eliminated"]["trainable"] == "head"
    assert row["blocks"] == {"universal": 2, "proxy": 0}
    network, _ = load_network(folder)
    assert isinstance(network, Backbone)
    own = [network.blocks[2], network.classifier]
    task = sum(tensor.numel() for part in own for tensor in part.parameters())
    assert row["params"]["task"] == task
    assert row["params"]["total"] == sum(tensor.numel() for tensor in network.parameters())


def test_head_only_leaves_the_backbone_untouched(out: Path) -> None:
    network, architecture = load_network(out / "head-only" / f"{NAME}-seed0")
    assert isinstance(network, Backbone)
    assert universal_digest(network) == architecture.weights_digest
    network, architecture = load_network(out / "scratch" / f"{NAME}-seed0")
    assert isinstance(network, Backbone)
    assert universal_digest(network) != architecture.weights_digest


def test_mistakes_are_the_most_confident_wrong_test_images(out: Path) -> None:
    folder = out / "eliminated" / f"{NAME}-stages3-seed0"
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    wrong = [row for row in rows if row["label"] != row["predicted"]]
    names = {int(row["index"]): row["picture"] for row in rows if row["picture"]}
    shown = set(names)
    assert {path.name for path in (folder / "mistakes").iterdir()} == set(names.values())
    for index, name in names.items():
        assert name == f"{rows[index]['class']}-as-{rows[index]['predicted_class']}-{index}.png"
    assert shown <= {int(row["index"]) for row in wrong}
    assert wrong
    by_class = Counter(row["label"] for row in wrong)
    kept = Counter(rows[index]["label"] for index in shown)
    assert kept == {label: min(8, count) for label, count in by_class.items()}
    for label in kept:
        sure = {int(r["index"]): float(r["probability"]) for r in wrong if r["label"] == label}
        left_out = [value for index, value in sure.items() if index not in shown]
        assert min(sure[i] for i in shown if i in sure) >= max(left_out, default=0)
    config, _ = parse("test", "", [*SMALL, "--out", str(out.parent)])
    with Screen() as screen:
        task = start_session(config, screen).task
    index = min(shown)
    with Image.open(folder / "mistakes" / names[index]) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(task.test[index][0]))


@pytest.mark.usefixtures("_saved_every_epoch")
def test_interrupted_and_gone_on_is_bit_identical(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(out / "teacher", tmp_path / "digits" / "teacher")
    argv = [*SMALL, "--out", str(tmp_path), "--top", "[2]", "--references", "[head-only]"]
    for kind in ("eliminated", "head-only"):
        with monkeypatch.context() as patch:
            patch.setattr(stage, "fit", interrupted_after_one_epoch)
            with pytest.raises(KeyboardInterrupt):
                eliminate.main(argv)
        ((run,)) = (tmp_path / "digits" / kind).iterdir()
        assert (run / "state").is_dir()
        assert not (run / "summary.json").exists()
        torch.manual_seed(99)  # another process begins in another state
        if kind == "eliminated":
            eliminate.main([*argv[:-1], "[]"])
    eliminate.main(argv)
    for kind, name in (("eliminated", f"{NAME}-stages2-seed0"), ("head-only", f"{NAME}-seed0")):
        for file in ("model.safetensors", "predictions.csv"):
            mine = (tmp_path / "digits" / kind / name / file).read_bytes()
            assert mine == (out / kind / name / file).read_bytes()


def test_again_nothing_is_trained_and_other_settings_are_refused(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "fit", no_training)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    eliminate.main([*SMALL, "--out", str(out.parent)])
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    # a later run's folder shows it before the first of them trains
    shutil.copytree(out / "scratch", tmp_path / "digits" / "scratch")
    with pytest.raises(UserError, match=r"scratch\S* holds a run of other settings: eliminate\.lr"):
        eliminate.main([*SMALL, "--out", str(tmp_path), "--top", "[1]", "--eliminate.lr", "0.03"])
    assert {path.name for path in (tmp_path / "digits").iterdir()} == {"scratch"}


@pytest.mark.parametrize(
    ("kind", "name"), [("eliminated", f"{NAME}-stages3-seed0"), ("scratch", f"{NAME}-seed0")]
)
def test_a_run_is_replayed_alone_by_its_own_settings(
    out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, name: str
) -> None:
    eliminate.main(["--config", str(out / kind / name / "config.yaml"), "--out", str(tmp_path)])
    replayed = {path.parent for path in (tmp_path / "digits").rglob("summary.json")}
    assert {path.relative_to(tmp_path / "digits") for path in replayed} == {
        Path(kind, name), Path("teacher", f"{NAME}-seed0"),
    }  # fmt: skip
    for path in replayed:  # the teacher, too, is trained as it was
        twin = out / path.relative_to(tmp_path / "digits") / "model.safetensors"
        assert (path / "model.safetensors").read_bytes() == twin.read_bytes()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--top", "[4]"], "test_resnet has 4 stages, of which 1 to 3 can be cut off"),
        (["--top", "[1, 9]"], "of which 1 to 3 can be cut off"),
        (["--top", "[0]"], r"eliminate\.top"),
        (["--top", "[]", "--references", "[]"], "both empty"),
    ],
)
def test_what_cannot_be_cut_is_refused(tmp_path: Path, flags: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        eliminate.main([*SMALL, "--out", str(tmp_path), *flags])
    assert not any(tmp_path.iterdir())
