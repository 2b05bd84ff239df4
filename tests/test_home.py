"""`~` in settings and flags is the home folder, wherever a path is expected."""

from pathlib import Path

import pytest
from predicting import as_json, picture, random_run
from shell import SMALL
from task_folders import tree

from nettailor.cli import compare, export, predict, teach
from nettailor.core.settings import validate


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of its own; the commands start elsewhere, where `~` would be a folder's name."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_settings(home):
    config = validate({
        "data": "~/pets", "data_dir": "~/sets", "out": "~", "weights": "~/w.pth",
        "knapsack": {"of": "~/runs/one"},
    })  # fmt: skip
    assert (config.data, config.data_dir, config.out, config.weights, config.knapsack.of) == (
        f"{home}/pets", f"{home}/sets", str(home), f"{home}/w.pth", f"{home}/runs/one",
    )  # fmt: skip
    assert validate({"data": "a~b", "out": "~nobody-here/x"}).out == "~nobody-here/x"


def test_a_file_of_settings_and_what_it_names(home):
    tree(home / "pets", {"cat": 8, "dog": 8})
    (home / "mine.yaml").write_text("data: ~/pets\nout: ~/runs\n")
    teach.main([*SMALL, "--config", "~/mine.yaml"])
    (run,) = (home / "runs" / "pets" / "teacher").iterdir()
    assert (run / "summary.json").is_file()
    assert list(Path().iterdir()) == []


def test_prediction(home, capsys):
    random_run(home / "run")
    picture(home / "photos" / "0.png")
    said = as_json(capsys, "~/photos", "--run=~/run")
    assert [image["path"] for image in said["images"]] == [f"{home}/photos/0.png"]
    predict.main([
        "~/photos/*.png", "--run=~/run", "--output=~/said.csv", "--format=csv", "--device=cpu",
    ])  # fmt: skip
    assert (home / "said.csv").read_text().count("photos/0.png") > 0
    assert list(Path().iterdir()) == []


def test_export(home):
    random_run(home / "run")
    export.main(["--run=~/run", "--to=~/to", "--format", "safetensors"])
    assert (home / "to" / "model.safetensors").is_file()
    assert list(Path().iterdir()) == []


def test_comparison(home):
    tree(home / "pets", {"cat": 8, "dog": 8})
    teach.main([*SMALL, "--data=~/pets", "--out=~/runs"])
    compare.main(["~/runs", "--report=~/told"])
    assert (home / "told" / "report.html").is_file()
    assert list(Path().iterdir()) == []
