"""The predict command's answers and refusals, a run for it, and images of noise."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import architecture_of, lively_chain
from PIL import Image

from nettailor.cli import predict
from nettailor.core.errors import UserError
from nettailor.core.preprocessing import Preprocessing
from nettailor.network import save_network

CLASSES = ("red [bold]fox[/]", "grey, wolf", 'an "elk"', "über\nbär", "=lynx")


def random_run(folder: Path) -> Path:
    """A finished run's folder as far as predicting is concerned: random weights, five classes."""
    preprocessing = Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", 0.8)
    architecture = architecture_of(classes=CLASSES, preprocessing=preprocessing)
    save_network(folder, lively_chain("test_resnet", len(CLASSES)), architecture)
    return folder


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 50)) -> Path:
    """An image of noise; its format is that of its name, else PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, None if path.suffix.lower() == ".jpg" else "PNG")
    return path


def five_photos(folder: Path) -> Path:
    """Five images of which two lie deeper, beside what does not count."""
    names = ["b.png", "a.jpg", "C.PNG", "sub/d.png", "sub/deeper/e.png"]
    for seed, name in enumerate(names):
        picture(folder / name, seed)
    for name in (".hidden.png", ".thumbnails/f.png", "sub/.g.png"):
        picture(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def as_json(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    """What the command prints as JSON; it may end with the code for broken images."""
    run_it("--format", "json", *argv)
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def run_it(*argv: object) -> int:
    """The command's exit code."""
    try:
        predict.main([*map(str, argv), "--device", "cpu"])
    except SystemExit as end:
        return int(end.code)
    return 0


def refusal(*argv: object) -> str:
    with pytest.raises(UserError) as caught:
        predict.main([*map(str, argv), "--device", "cpu"])
    assert "\n" not in str(caught.value)
    return str(caught.value)
