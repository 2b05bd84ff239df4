"""A library of runs that the commands themselves have written, and `predict` by it."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from pack_runs import images, own_logits
from PIL import Image
from tailor_runs import PUBLISHED, SMALL, quickly

from nettailor.cli import predict, tailor
from nettailor.library import Library
from nettailor.packing import add_to_library


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Tailored runs that share blocks: by route, and as published."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        for way in (["--finetune", "task"], [*PUBLISHED, "--prune.remove", "[1]"]):
            tailor.main([*SMALL, *way, "--prune.tolerance", "100", "--out", str(out)])
    return sorted((out / "digits" / "tailored").iterdir())


def test_real_runs(runs, tmp_path):
    """The default settings' norms are trained and the published ones' follow."""
    names = ["digits", "published"]
    assert len(runs) == 2
    for run, name in zip(runs, names, strict=True):
        add_to_library(run, tmp_path, None if name == "digits" else name)
    whole = runs[1] / "student"
    add_to_library(whole, tmp_path, "whole")
    library = Library(tmp_path)
    for run, name in zip((*runs, whole), (*names, "whole"), strict=True):
        assert torch.equal(library[name](images()), own_logits(run, images()))


def test_predict_by_a_library(runs, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    for number in range(2):
        Image.fromarray(pixels[number]).save(tmp_path / f"{number}.png")
    library = tmp_path / "library"
    add_to_library(runs[0], library)

    def said(*argv):
        words = [str(tmp_path), *map(str, argv), "--format", "json", "--device", "cpu"]
        predict.main(words)
        content: dict[str, Any] = json.loads(capsys.readouterr().out)
        return content

    by_run, by_library = said("--run", runs[0]), said("--library", library, "--task", "digits")
    assert [i["predictions"] for i in by_library["images"]] == [
        i["predictions"] for i in by_run["images"]
    ]
    assert by_library["network"] == {
        "library": str(library), "task": "digits", "backbone": "test_resnet",
        "weights": "random initialisation", "classes": 10, "image_size": 32,
    }  # fmt: skip
