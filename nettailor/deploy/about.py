"""What a file says of itself: classes, preprocessing, layout and where it came from."""

import json
from collections.abc import Mapping
from math import floor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from nettailor.core.architecture import Architecture, read_checked
from nettailor.core.reading import READING
from nettailor.core.run_folder import SUMMARY_FILE
from nettailor.report.summary import AtLeastOne, Parameters, Percents


class _Figures(BaseModel):
    model_config = ConfigDict(strict=True)
    accuracy: Percents
    accuracy_error: Percents | None = None
    params: Parameters
    flops: AtLeastOne


class _Summary(_Figures):
    """What is told of a run; its kind and all else do not matter here."""

    dataset: str
    teacher: _Figures | None


def read_figures(run: Path) -> dict[str, Any] | None:
    """What is told of a run, None where it has no summary; UserError where that is damaged."""
    file = run / SUMMARY_FILE
    if not file.is_file():
        return None
    remedy = "restore it, or train again with --overwrite"
    return read_checked(file, _Summary, remedy).model_dump()


def without_places(architecture: Architecture) -> Architecture:
    """The architecture without the folders of this machine that its weights came from."""
    kind, _, place = architecture.weights_origin.partition(" ")
    if kind not in ("file", "folder", "teacher"):
        return architecture
    return architecture.model_copy(update={"weights_origin": f"{kind} {Path(place).name}"})


def describe(architecture: Architecture, summary: Mapping[str, Any] | None) -> dict[str, str]:
    """Texts by name, for the metadata of a file; lists and numbers are JSON.

    Args:
        summary: of the finished run, or None for a network without figures.
    """
    preprocessing = architecture.preprocessing
    size = preprocessing.image_size
    texts = {
        "producer": "nettailor",
        "backbone": "none" if architecture.searched else architecture.backbone,
        "weights_origin": architecture.weights_origin,
        "class_names": json.dumps(architecture.classes, ensure_ascii=False),
        "image_size": json.dumps(size),
        "resize": json.dumps(floor(size / preprocessing.crop_pct)),
        "interpolation": preprocessing.interpolation,
        "mean": json.dumps(preprocessing.mean),
        "std": json.dumps(preprocessing.std),
        "reading": READING,
        "input": f"images, float32 (batch, 3, {size}, {size}), RGB: shorter side to `resize`, "
        "centre crop to `image_size`, values in 0..1, minus mean, over std",
        "output": f"logits, float32 (batch, {len(architecture.classes)}), in the order of "
        "class_names; softmax gives probabilities",
    }
    if summary is not None:
        texts["task"] = str(summary["dataset"])
        texts["accuracy"] = json.dumps(summary["accuracy"])
    return texts
