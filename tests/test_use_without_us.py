"""The two programs of docs/guide.md, as they stand there, where nothing of ours can be imported."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from arrows import arrow, save
from conftest import enliven, quick_latency
from networks import architecture_of, student_along
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

from nettailor.cli import export, predict
from nettailor.core.preprocessing import Preprocessing, eval_transform
from nettailor.core.reading import read_rgb
from nettailor.network import load_network, save_network
from nettailor.student.network import Student
from nettailor.student.wiring import Path as Way

GUIDE = Path(__file__).parents[1] / "docs" / "guide.md"
FORMATS = ("onnx", "pt2")
CLASSES = ("red fox", "grey, wolf", 'an "elk"', "bär 🐻", "=lynx", "日本", "kit\nfox")
# square pixels of an odd size, a crop, other numbers per channel: nothing that a default would hide
PREPROCESSING = Preprocessing(33, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.875)

# Runs a program on each image, and writes the class that it prints and the logits that it computed.
BOOTSTRAP = """
import builtins, contextlib, io, json, runpy, sys
OURS = {"nettailor", "teacher", "student", "prune", "configs", "timm", "accelerate", "torchvision"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OURS:
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Refuse())
program, model, *images = sys.argv[1:]
answers = []
for image in images:
    sys.argv = [program, model, image]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        names = runpy.run_path(program, run_name="__main__")
    answers.append([said.getvalue(), names["logits"].tolist()])
assert not OURS & {name.split(".")[0] for name in sys.modules}
print(json.dumps(answers))
"""


def programs() -> dict[str, str]:
    """The programs of "Hand it over", by the format that each reads."""
    text = GUIDE.read_text(encoding="utf-8")
    section = re.search(r"^## Hand it over\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    blocks = re.findall(r"^```python\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(FORMATS)
    for kind, block in zip(FORMATS, blocks, strict=True):
        assert ("onnxruntime" if kind == "onnx" else "torch.export.load") in block
    return dict(zip(FORMATS, blocks, strict=True))


class Given(NamedTuple):
    """A run, the folder that it was exported to, and images in files."""

    run: Path
    exported: Path
    images: list[Path]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A tailored network that tells images apart; photographs and digits."""
    folder = tmp_path_factory.mktemp("without-us")
    depth = 5
    paths = (Way(0, 1, "block"), Way(1, 2, "block"), Way(0, 2, "proxy"), Way(2, depth, "exit"))
    network = student_along("test_resnet", depth, *paths, classes=len(CLASSES))
    enliven(network)
    architecture = architecture_of(classes=CLASSES, preprocessing=PREPROCESSING)
    images = pictures(folder / "images")
    tell_apart(network.eval(), images)
    save_network(folder / "run", network, architecture)

    with pytest.MonkeyPatch.context() as patch:
        quick_latency(patch)
        export.main([
            "--run", str(folder / "run"), "--to", str(folder / "to"), "--format", *FORMATS,
        ])  # fmt: skip
    return Given(folder / "run", folder / "to", images)


@torch.no_grad()
def tell_apart(network: Student, images: list[Path]) -> None:
    """Moves a random classifier's bias to where images are of several classes."""
    (exit_,) = network.heads.values()
    logits = network(torch.stack([prepared(path) for path in images])).logits
    exit_.classifier.bias -= logits.mean(0)


def prepared(path: Path) -> Tensor:
    """As the project's networks read an image, (3, S, S)."""
    return eval_transform(PREPROCESSING)(read_rgb(path))


def pictures(folder: Path) -> list[Path]:
    """Photographs that are not square, upright and lying; digits; and odd kinds of pixels."""
    folder.mkdir()
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    made = {
        "china.png": photographs[0],
        "flower.png": photographs[1],
        "upright.png": photographs[0].transpose(Image.Transpose.ROTATE_90),
        "narrow.png": photographs[1].crop((0, 0, 97, 301)),
        "smaller.png": photographs[1].resize((31, 20)),
        "grey.png": photographs[0].convert("L"),
        "transparent.png": photographs[1].convert("RGBA"),
        "palette.png": photographs[1].convert("P"),
        "photo.jpg": photographs[0],
    }
    for number, pixels in enumerate(load_digits().images[:3]):
        made[f"digit{number}.png"] = Image.fromarray((pixels * 15).astype(np.uint8))
    # any size may round another way than torchvision does
    generator = random.Random(0)
    for number in range(8):
        sides = generator.randint(20, 400), generator.randint(20, 400)
        left, top = generator.randint(0, 200), generator.randint(0, 20)
        made[f"part{number}.png"] = photographs[0].crop(
            (left, top, left + sides[0], top + sides[1])
        )
    for name, image in made.items():
        image.save(folder / name)
    paths = [folder / name for name in made]
    noise = np.random.default_rng(0)
    for kind in ("orientation", "alpha", "16 bits"):
        for number in range(8):
            shape = arrow(("up", "left", "right")[number % 3], noise)
            paths.append(save(kind, shape, folder / f"{kind}{number}", number))
    return paths


def answers(program: str, model: Path, images: list[Path], place: Path) -> list[tuple[str, Tensor]]:
    """What a program prints of each image, and its logits, in an interpreter of its own."""
    (place / "classify.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-c", BOOTSTRAP, "classify.py", str(model), *map(str, images)],
        cwd=place,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [
        (said.removesuffix("\n"), torch.tensor(logits).flatten())
        for said, logits in json.loads(done.stdout)
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_programs_say_what_predict_says(given, kind, tmp_path, capsys):
    predict.main([
        *map(str, given.images), "--run", str(given.run), "--device", "cpu", "--format", "json",
        "--top-k", "2",
    ])  # fmt: skip
    predicted = json.loads(capsys.readouterr().out)["images"]
    network, _ = load_network(given.run)
    model = given.exported / f"model.{kind}"
    found = answers(programs()[kind], model, given.images, tmp_path)
    said = set()
    for path, answer, (label, logits) in zip(given.images, predicted, found, strict=True):
        assert answer["path"] == str(path)
        with torch.no_grad():
            expected = network(prepared(path)[None]).logits[0]
        largest = float(expected.abs().max())
        assert float((logits - expected).abs().max()) < 1e-3 * largest, path.name
        first, second = answer["predictions"]
        assert label == first["label"], path.name
        assert first["probability"] > second["probability"]
        said.add(label)
    # a network that says the same of everything would hide any preprocessing
    assert len(said) > 1


def test_another_preprocessing_is_seen(given, tmp_path):
    """The comparison above notices a crop that is a pixel off and a mean left out."""
    program = programs()["onnx"]
    model = given.exported / "model.onnx"
    images = given.images[:2]
    right = answers(program, model, images, tmp_path)
    for before, after in (
        ("round((n - side) / 2)", "round((n - side) / 2) - 1"),
        ('- json.loads(about["mean"])', "- 0.5"),
        ('about["interpolation"].upper()', '"NEAREST"'),
    ):
        assert before in program
        wrong = answers(program.replace(before, after), model, images, tmp_path)
        for (_, one), (_, other) in zip(right, wrong, strict=True):
            assert float((one - other).abs().max()) > 1e-3 * float(one.abs().max()), after


def test_this_project_is_out_of_reach(given, tmp_path):
    """Or the tests above would prove nothing."""
    for name in ("nettailor", "timm"):
        with pytest.raises(AssertionError, match=f"ImportError: {name}"):
            answers(f"import {name}", given.exported / "model.onnx", given.images[:1], tmp_path)


def test_the_programs_are_short():
    for program in programs().values():
        assert len(program.splitlines()) <= 25
        assert all(len(line) <= 100 for line in program.splitlines())
