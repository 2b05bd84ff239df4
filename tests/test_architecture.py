"""architecture.json: whatever is damaged in it is told in one line that names the place."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from networks import architecture_of, student_of
from test_timm_loads import narrowed, scaled, searched

from nettailor.core.architecture import read_architecture
from nettailor.core.backbone import create_backbone
from nettailor.core.errors import UserError
from nettailor.core.preprocessing import Preprocessing
from nettailor.network import load_network, save_network


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    student = student_of(create_backbone("test_resnet", 3))
    mean = (0.5, 0.5, 0.5)
    architecture = architecture_of(
        classes=3, preprocessing=Preprocessing(32, mean, mean, "bilinear", 0.9)
    )
    save_network(folder, student, architecture)
    return folder


def damage(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one place of the content."""

    def apply(content: dict[str, Any]) -> None:
        place: Any = content
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value

    return apply


def require_refused(folder: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    content = json.loads((folder / "architecture.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "architecture.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_network(folder)
    shown = str(caught.value)
    assert re.search(message, shown), shown
    assert str(folder) in shown
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage("format", value=2), r"format: .*1; it is damaged or of another version"),
        (damage("extra", value=1), r"extra: "),
        (damage("backbone", value="resnet34x"), r"unknown backbone .*did you mean 'resnet34"),
        (damage("backbone", value="test_efficientnet"), r"heads and exits, .*lead to the logits"),
        (damage("backbone", value=None), r"backbone: "),
        (damage("classes", value=["one"]), r"classes: .*at least 2"),
        (damage("classes", value=["a", "b", "a"]), r"classes: a class is listed twice"),
        (damage("classes", value=["a", "b"]), r"classifier\.weight is \(3, .*expected \(2, "),
        (damage("preprocessing", value={}), r"preprocessing\.\w+: "),
        (damage("preprocessing", "mean", value=[0.5]), r"mean is \(0\.5,\), expected three"),
        (damage("preprocessing", "mean", value=[0, 0, float("nan")]), r"mean is .*expected three"),
        (damage("preprocessing", "std", value=[1, 1, 0]), r"std is .*above 0"),
        (damage("preprocessing", "crop_pct", value=2), r"crop_pct is 2\.0"),
        (damage("preprocessing", "image_size", value=0), r"image_size is 0"),
        (damage("preprocessing", "interpolation", value="magic"), r"no interpolation 'magic'"),
        (damage("student", "paths", value=[]), r"no path leads to the logits"),
        (damage("student", "paths", value=[[3, 4, "block"]]), r"starts at node 3, where no path"),
        (damage("student", "paths", 0, value=[0, 99, "proxy"]), r"does not lead forward"),
        (damage("student", "paths", 0, value=[0, 1, "magic"]), r"student\.paths\.0\.2: "),
        (
            damage("student", "paths", 0, value=[0, 2, "block"]),
            r"block leads from a node to the next",
        ),
        (
            damage("student", "paths", 0, value=[0, 5, "proxy"]),
            r"heads and exits, and nothing else",
        ),
        (damage("student", "paths", 0, value=[0, 1, "proxy"]), r"a path is listed twice"),
        (damage("student", "paths", 0, value=[0, 1]), r"student\.paths\.0"),
        (damage("student", "finetune", value="some"), r"student\.finetune: "),
        (damage("student", value=None), r"weights of another network .*missing"),
    ],
)
def test_damaged_architecture(student_folder, tmp_path, change, message):
    folder = shutil.copytree(student_folder, tmp_path / "run")
    load_network(folder)
    require_refused(folder, change, message)


ELIMINATED = damage("eliminated", value={"blocks": 1, "replacement": False})


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (scaled, damage("scaled", "width", value=1e9), r"scaled\.width: .*than or equal to 10"),
        (scaled, damage("scaled", "depth", value=float("nan")), r"scaled\.depth: "),
        (scaled, damage("scaled", "height", value=1), r"scaled\.height: "),
        (scaled, damage("scaled", "width", value=2.0), "weights of another network"),
        (scaled, damage("backbone", value="test_resnet"), "'test_resnet' cannot be scaled"),
        (scaled, ELIMINATED, "eliminated and scaled are given, expected one"),
        (narrowed, damage("narrowed", "layers", value={"x": [1]}), "there is no layer x"),
        (
            narrowed,
            damage("narrowed", "layers", value={"stem.conv1.0": [8, 3]}),
            "not fit together",
        ),
        (narrowed, damage("narrowed", "nodes", value=[1]), "a student, and nothing else"),
        (narrowed, damage("narrowed", value={}), r"narrowed\.layers: Field required"),
        (searched, damage("searched", "blocks", value=[]), r"searched\.blocks: "),
        (searched, damage("searched", "stem", value=10**9), r"searched\.stem: "),
        (searched, damage("searched", "head", value=64), "weights of another network"),
        (searched, ELIMINATED, "eliminated and searched are given, expected one"),
    ],
)
def test_damaged_structures(tmp_path, make, change, message):
    save_network(tmp_path, *make())
    load_network(tmp_path)
    require_refused(tmp_path, change, message)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"format": 1}', "\x00"])
def test_architecture_that_is_none(student_folder, tmp_path, text):
    folder = shutil.copytree(student_folder, tmp_path / "run")
    (folder / "architecture.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"architecture\.json: [^\n]+$"):
        read_architecture(folder)


def test_a_file_without_the_structures_that_came_later_is_read(student_folder, tmp_path):
    content = json.loads((student_folder / "architecture.json").read_text(encoding="utf-8"))
    del content["narrowed"]
    (tmp_path / "architecture.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_architecture(tmp_path).narrowed is None
