"""The export command: small networks handed over, refusals, and nothing left where it fails."""

import json
import re
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from conftest import lively_chain, quick_latency
from networks import architecture_of, refused
from shell import DIGITS, SMALL, contents
from task_folders import tree

from nettailor.classifier import classifier_of_run
from nettailor.cli import export, predict, teach
from nettailor.core.architecture import EliminatedStructure
from nettailor.core.errors import UserError
from nettailor.core.preprocessing import Preprocessing
from nettailor.deploy.pt2_file import load_pt2
from nettailor.network import load_network, save_network
from nettailor.prune.eliminate import eliminate
from nettailor.prune.fold import fold

pytestmark = pytest.mark.usefixtures("_quickly")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        quick_latency(patch)
        teach.main([*DIGITS, "--out", str(out)])
    return next((out / "digits" / "teacher").iterdir())


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An eliminated network without a run: no settings, no figures, no data."""
    preprocessing = Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", 0.8)
    architecture = architecture_of(
        classes=("fuchs", "wolf: grau", "bär 🐻"),
        preprocessing=preprocessing,
        eliminated=EliminatedStructure(blocks=2, replacement=True),
    )
    folder = tmp_path_factory.mktemp("bare")
    save_network(
        folder, eliminate(lively_chain("test_resnet", 3), 2, replacement=True), architecture
    )
    return folder


def copy(run: Path, folder: Path, **changes: Callable[[bytes], bytes] | None) -> Path:
    """The run in a folder, with other content in files named by their stem, or without them."""
    shutil.copytree(run, folder)
    for stem, change in changes.items():
        (file,) = folder.glob(f"{stem}.[a-z]*")
        file.unlink() if change is None else file.write_bytes(change(file.read_bytes()))
    return folder


# What is handed over


def test_a_network_without_a_run_is_told_of_as_well(bare, tmp_path):
    export.main(["--run", str(bare), "--to", str(tmp_path / "out")])
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == ["fuchs", "wolf: grau", "bär 🐻"]
    assert (about["image_size"], about["resize"], about["interpolation"]) == ("32", "40", "bicubic")
    assert json.loads(about["mean"]) == [0.5, 0.4, 0.3]
    assert json.loads(about["std"]) == [0.2, 0.3, 0.4]
    assert "accuracy" not in about


def test_timing_has_a_bar_only_on_a_terminal(bare, tmp_path, monkeypatch, capsys):
    argv = ["--run", str(bare), "--format", "safetensors", "--to"]
    export.main([*argv, str(tmp_path / "piped")])
    assert "timing " not in capsys.readouterr().out
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    quick_latency(monkeypatch, 2.5)  # of which a fifth here; a bar is drawn ten times a second
    export.main([*argv, str(tmp_path / "seen")])
    assert re.search(r"timing .*\d+/\d+", capsys.readouterr().out)


def test_the_only_run_of_a_folder_and_the_place_beside_it(run, tmp_path):
    run = copy(run, tmp_path / "runs" / "mine")
    export.main(["--run", str(run.parent)])
    assert sorted(path.name for path in (run / "export").iterdir()) == [
        "README.md", "config.json", "model.onnx",
    ]  # fmt: skip
    # the folder is the run's, so its data is found
    assert "15 validation images" in (run / "export" / "README.md").read_text(encoding="utf-8")


def test_int8_finds_the_images_from_another_folder(tmp_path, monkeypatch, capsys):
    """Those that the run was made with, not others that lie there under the same relative path."""
    here, there = tmp_path / "here", tmp_path / "there"
    tree(here / "photos", {"cat": 20, "dog": 20})
    tree(there / "photos", {"owl": 5, "toad": 5})
    monkeypatch.chdir(here)
    teach.main([*SMALL, "--batch-size", "8", "--data", "photos", "--out", "runs"])
    monkeypatch.chdir(there)
    run = next(Path("../here/runs/photos/teacher").iterdir())
    capsys.readouterr()
    export.main(["--run", str(run), "--to", "files", "--int8"])
    assert "not at hand" not in capsys.readouterr().out
    card = Path("files/README.md").read_text(encoding="utf-8")
    assert "6 validation images" in card  # a fifth of the 32 that a fifth for the test leaves
    told = re.search(r"\| model.int8.onnx .*on validation .* ([\d.]+) % in float \|", card)
    assert told is not None
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert float(told[1]) == pytest.approx(summary["accuracy"]["val"], abs=0.005)
    assert onnx.load("files/model.int8.onnx").graph.node


def test_int8_without_openvino(run, tmp_path, monkeypatch):
    monkeypatch.setattr("nettailor.commands.export.find_spec", lambda name: None)
    export.main(["--run", str(run), "--to", str(tmp_path), "--int8"])
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert re.search(r"on validation [\d.]+ % in ONNX Runtime, [\d.]+ % in float \|", card)


# Refusals


def four_classes(content: bytes) -> bytes:
    found = json.loads(content)
    return json.dumps(found | {"classes": found["classes"][:4]}).encode()


@pytest.mark.parametrize(
    ("changes", "flags", "words"),
    [
        ({"model": lambda whole: whole[:-100]}, [], r"model\.safetensors: no readable safetensors"),
        ({"architecture": four_classes}, [], "weights of another network or class count"),
        ({"architecture": lambda _: b"{"}, [], r"architecture\.json: no readable JSON"),
        ({"summary": lambda _: b"{}"}, [], r"summary\.json: "),
        ({"summary": lambda _: b"[1]"}, [], r"summary\.json: "),
        ({"config": None}, ["--int8"], "--int8 needs the run's training images"),
        ({}, ["--format", "torchscript"], "invalid choice: 'torchscript'"),
        ({}, ["--task", "digits"], "give --library as well"),
    ],
)
def test_bad_runs_and_flags(run, tmp_path, changes, flags, words):
    folder = copy(run, tmp_path / "run", **changes)
    before, to = contents(tmp_path), tmp_path / "deep" / "to"
    with refused(words):
        export.main(["--run", str(folder), *flags, "--to", str(to)])
    assert contents(tmp_path) == before
    assert not to.parent.exists()


def test_folders_that_hold_no_finished_run_or_several(run, tmp_path):
    """Export and predict take the same, and say the same of the others."""
    (tmp_path / "empty").mkdir()
    for name in ("one", "two"):
        copy(run, tmp_path / "runs" / name)
    copy(run, tmp_path / "begun", architecture=None, summary=None)
    copy(run, tmp_path / "not summed up", summary=None)
    (tmp_path / "image.png").write_bytes(b"")
    before = contents(tmp_path)
    for name, words in {
        "empty": "holds no network",
        "nowhere": "holds no network",
        "runs": "holds 2 runs: one, two; give the folder of one",
        "begun": "is not finished",
        "not summed up": "is not finished",
    }.items():
        folder = str(tmp_path / name)
        with pytest.raises(UserError, match=words) as caught:
            export.main(["--run", folder, "--to", str(tmp_path / "deep" / "to")])
        with refused(f"^{re.escape(str(caught.value))}$"):
            predict.main([str(tmp_path / "image.png"), "--run", folder, "--device", "cpu"])
    assert contents(tmp_path) == before
    assert not (tmp_path / "deep").exists()
    found, given = (
        classifier_of_run(place) for place in (copy(run, tmp_path / "only" / "it").parent, run)
    )
    assert found.about | {"run": str(run)} == given.about
    assert found.about["run"] == str(tmp_path / "only" / "it")
    assert found.labels == given.labels


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("file", "is a file; give a folder"),
        ("file/below/it", "nothing can be written in"),
        ("full", "holds files already; give --overwrite"),
    ],
)
def test_bad_targets(bare, tmp_path, to, words):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model.onnx").write_text("mine")
    before = contents(tmp_path)
    with refused(words):
        export.main(["--run", str(bare), "--to", str(tmp_path / to)])
    assert contents(tmp_path) == before


def test_a_run_is_no_target(run, tmp_path):
    """Not even with --overwrite: what was trained beside it goes by its weights."""
    other = copy(run, tmp_path / "other")
    before = contents(tmp_path)
    argv = ["--run", str(run), "--to", str(other), "--format", "safetensors"]
    for flags in ([], ["--overwrite"]):
        with refused("holds a run, whose files stay as they are; choose another"):
            export.main([*argv, *flags])
    assert contents(tmp_path) == before


def test_overwrite_replaces_what_is_written_anew(bare, tmp_path):
    for name, content in (("notes.txt", "mine"), ("model.safetensors", "old")):
        (tmp_path / name).write_text(content)
    argv = ["--run", str(bare), "--to", str(tmp_path), "--format", "safetensors"]
    export.main([*argv, "--overwrite"])
    after = contents(tmp_path)
    assert after["notes.txt"] == b"mine"
    assert after["model.safetensors"] != b"old"
    assert sorted(after) == [
        "README.md", "architecture.json", "config.json", "model.safetensors", "notes.txt",
    ]  # fmt: skip


def test_a_wrong_fold_leaves_nothing(bare, tmp_path, monkeypatch):
    def forgetful(network):
        """As if the fold had forgotten something."""
        plain = fold(network)
        with torch.no_grad():
            next(plain.parameters()).mul_(1.01)
        return plain

    monkeypatch.setattr("nettailor.commands.export.fold", forgetful)
    to = tmp_path / "deep" / "to"
    for formats in (["onnx"], ["pt2"], ["safetensors", "onnx"]):
        with refused("the folded network: its outputs differ"):
            export.main(["--run", str(bare), "--to", str(to), "--format", *formats])
    assert not to.parent.exists()
    # the one that is not folded
    export.main(["--run", str(bare), "--to", str(to), "--format", "safetensors"])
    assert (to / "model.safetensors").exists()


def test_one_wrong_file_of_several_leaves_nothing(bare, tmp_path, monkeypatch):
    """The writer of the last format drops something; what was written before it goes, too."""

    def of_another(content):
        network = load_pt2(content)
        answer = network._answer
        network._answer = lambda images: answer(images) + 0.01 * answer(images).roll(1, 1)
        return network

    monkeypatch.setattr("nettailor.commands.export.load_pt2", of_another)
    with refused(r"model\.pt2: its outputs differ"):
        export.main(["--run", str(bare), "--to", str(tmp_path), "--format", "safetensors", "pt2"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_no_parity(bare, tmp_path, value):
    """Damaged weights answer nothing, which a file may answer as well."""
    run = tmp_path / "run"
    network, architecture = load_network(bare)
    with torch.no_grad():
        next(network.parameters())[0] = value
    save_network(run, network, architecture)
    with refused("its outputs differ|no number"):
        export.main(["--run", str(run), "--to", str(tmp_path / "to")])
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("missing", ["onnx_file", "int8"])
def test_a_missing_package(run, tmp_path, missing, monkeypatch):
    def without(name):
        if name.endswith(missing):
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return import_module(name)

    monkeypatch.setattr("nettailor.commands.export.later", without)
    argv = ["--run", str(run), "--to", str(tmp_path / "to")]
    with refused(r"the package onnxruntime is not installed.*pip install 'nettailor\[onnx\]'"):
        export.main([*argv, "--int8"])
    assert not (tmp_path / "to").exists()
    # the other formats do without
    export.main([*argv, "--format", "pt2", "safetensors"])
    assert (tmp_path / "to" / "model.pt2").is_file()
