"""Run folders: begun, gone on with, refused, discarded, and what they hold."""

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from networks import architecture_of
from shell import contents

from nettailor.core.architecture import write_architecture
from nettailor.core.config import as_settings
from nettailor.core.errors import UserError
from nettailor.core.files import write_tensors
from nettailor.core.preprocessing import Preprocessing
from nettailor.core.run_folder import RunFolder
from nettailor.core.settings import validate

EPOCH = {"epoch": 1, "loss": 0.5}


def settings_with(**changes: Any) -> dict[str, Any]:
    """The default settings with some keys changed."""
    return as_settings(validate(changes))


@pytest.fixture
def run(tmp_path):
    """A run that has trained an epoch."""
    folder = RunFolder(tmp_path / "task" / "run")
    folder.open(settings_with(), overwrite=False)
    folder.record("teacher", [EPOCH])
    return folder


def refusal(folder: RunFolder, settings: dict[str, Any], *, overwrite: bool = False) -> str:
    """The text with which a folder is refused; everything in it must stay as it was."""
    before = contents(folder.path)
    with pytest.raises(UserError) as caught:
        folder.open(settings, overwrite=overwrite)
    assert contents(folder.path) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_same_settings_go_on(run):
    """How a run executes may differ, and what is ignored."""
    before = contents(run.path)
    assert yaml.safe_load(before["config.yaml"]) == settings_with()
    assert not run.finished
    run.open(settings_with(), overwrite=False)
    assert contents(run.path) == before
    run.open(settings_with(device="cpu", workers=2, out="x", download=True), overwrite=False)
    run.open(settings_with(seed=5), ignored=["seed"], overwrite=False)
    assert (run.path / "metrics.csv").exists()
    with pytest.raises(UserError, match="batch_size"):
        run.open(settings_with(seed=5, batch_size=8), ignored=["seed"], overwrite=False)


def test_other_settings_are_refused_and_named(run):
    shown = refusal(run, settings_with(seed=5, student={"gamma": 0.7}))
    assert "seed is 0 there and 5 here; student.gamma is 0.3 there and 0.7 here" in shown
    assert "--overwrite" in shown
    assert "--out" in shown


def test_overwrite_replaces_the_run(run):
    run.open(settings_with(seed=5), overwrite=True)
    assert set(contents(run.path)) == {"config.yaml"}
    assert yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8"))["seed"] == 5


def test_a_run_that_never_trained_binds_nobody(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open(settings_with(weights="tpyo.pth"), overwrite=False)
    folder.open(settings_with(weights="none"), overwrite=False)
    written = yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8"))
    assert written["weights"] == "none"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "foreign",
    [
        {"photo.jpg": "x"},
        {"sub/notes.txt": "x"},
        {"config.yaml": "version: 3\nservices: {}\n", "notes.txt": "x"},
        {"config.yaml": "data: x\nbackbone: y\nport: 80\n"},
        {"config.yaml": "just text", "metrics.csv": "x"},
        {"config.yaml": "[", "photo.jpg": "x"},
        {"config.yaml/photo.jpg": "x"},
    ],
)
def test_foreign_files_are_never_deleted(tmp_path, foreign, overwrite):
    for name, text in foreign.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    shown = refusal(RunFolder(tmp_path), settings_with(), overwrite=overwrite)
    assert str(tmp_path) in shown
    assert "--out" in shown


def test_file_in_the_way(tmp_path):
    place = tmp_path / "run"
    place.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"run: a file is in the way"):
        RunFolder(place).open(settings_with(), overwrite=True)
    with pytest.raises(UserError, match=r"cannot write .*config\.yaml: .*another place"):
        RunFolder(place / "below" / "it").open(settings_with(), overwrite=False)
    assert place.read_text(encoding="utf-8") == "mine"


def test_run_that_cannot_be_discarded(run, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(run.path, target_is_directory=True)
    shown = refusal(RunFolder(link), settings_with(), overwrite=True)
    assert "cannot be discarded" in shown


def test_require_same(run):
    run.require_same(settings_with(batch_size=8), ["data", "split.val"])
    with pytest.raises(UserError, match=r"split\.val is 0\.2 there and 0\.3 here.*another --out"):
        run.require_same(settings_with(split={"val": 0.3}), ["data", "split.val"])


def test_metrics_are_a_row_an_epoch_for_all_stages(run):
    run.record("teacher", [EPOCH, {"epoch": 2, "loss": 0.25}])
    run.record("student", [{"epoch": 1, "loss": 1.0, "complexity": 0.9}])
    with (run.path / "metrics.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["stage"], row["epoch"], row["loss"]) for row in rows] == [
        ("teacher", "1", "0.5"),
        ("teacher", "2", "0.25"),
        ("student", "1", "1.0"),
    ]
    assert [row["complexity"] for row in rows] == ["", "", "0.9"]


def keep_a_network(folder: Path) -> None:
    """The files that every finished run promises."""
    expected = Preprocessing(32, (0.5,) * 3, (0.25,) * 3, "bilinear", 1.0)
    architecture = architecture_of("tiny", classes=2, preprocessing=expected)  # fmt: skip
    write_architecture(folder, architecture)
    write_tensors(folder / "model.safetensors", {"weight": torch.arange(6.0)})


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut_off(name: str) -> Callable[[Path], None]:
    """Without its last two bytes."""
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 2)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lose("model.safetensors"), "model.safetensors: not found"),
        (cut_off("model.safetensors"), "model.safetensors: no readable safetensors file"),
        (lose("architecture.json"), "architecture.json: not found"),
        (cut_off("architecture.json"), "architecture.json: no readable JSON"),
        (
            lambda folder: (folder / "architecture.json").write_text('{"format": 2}'),
            "architecture.json: format: Input should be 1",
        ),
    ],
)
def test_a_run_that_lost_its_network_is_not_finished(tmp_path, damage, found):
    run = RunFolder(tmp_path / "run", "nettailor teach")
    run.open(settings_with(), overwrite=False)
    keep_a_network(run.path)
    names = "kind accuracy params flops blocks latency_ms seconds teacher"
    figures = dict.fromkeys(names.split(), 97.5)
    run.finish(figures)
    assert run.finished
    assert run.read_summary() == figures
    damage(run.path)
    advice = "restore the file, or give `nettailor teach --overwrite` to make the run again"
    shown = refusal(run, settings_with())
    assert found in shown
    assert shown.endswith(advice)
    with pytest.raises(UserError, match=re.escape(found)):
        _ = run.finished
    with pytest.raises(UserError, match=f"or remove {run.path} to make the run again"):
        _ = RunFolder(run.path).finished
    run.open(settings_with(), overwrite=True)
    assert not run.finished
    assert set(contents(run.path)) == {"config.yaml"}


@pytest.mark.parametrize("text", ["[1]", "{", "", "3", "{}", '{"accuracy": 97.5}'])
def test_damaged_summary(run, text):
    (run.path / "summary.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"summary\.json: .*(delete it|restore the file)"):
        run.read_summary()
