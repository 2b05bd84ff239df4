"""Run folders as the commands write them, with figures that a test chooses."""

import csv
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from nettailor.core.architecture import Architecture, write_architecture
from nettailor.core.preprocessing import Preprocessing

CLASSES = ("circle", "square", "star")
STAGES = [0, 1, 1, 2]
FULL_FLOPS, FULL_PARAMS = 1_000_000, 200_000
IMAGES = {"val": 20, "test": 30}
PATHS = [[0, 1, "block", 1.0], [1, 2, "identity", 1.0], [2, 3, "block", 1.0], [3, 5, "exit", 1.0]]


def summary(kind: str, **changes: Any) -> dict[str, Any]:
    """A whole `summary.json`; `changes` replaces keys. Its teacher is that of the same seed."""
    content: dict[str, Any] = {
        "kind": kind,
        "backbone": "tiny",
        "dataset": "shapes",
        "image_size": 32,
        "seed": 0,
        "classes": list(CLASSES),
        "accuracy": {"train": 99.0, "val": 95.0, "test": 90.0},
        "macro_f1": {"train": 99.0, "val": 94.5, "test": 89.5},
        "loss": {"train": 0.05, "val": 0.2, "test": 0.3},
        "params": {"total": FULL_PARAMS, "universal": 0, "task": FULL_PARAMS},
        "flops": FULL_FLOPS,
        "layers": 12,
        "blocks": {"universal": len(STAGES), "proxy": 0},
        "stages": STAGES,
        "latency_ms": {"cpu": timings(2.0, 40.0)},
        "peak_memory": {"1": 1_000_000, "64": 9_000_000},
        "bytes": 4 * FULL_PARAMS + 1000,
        "seconds": {"train": 60.0, "test_inference": 0.5},
        "eliminated": None,
        "tailored": None,
        "knapsack": None,
        "teacher": None,
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
    }
    if kind == "tailored":
        content["tailored"] = tailored()
    if kind == "eliminated":
        content["eliminated"] = cut(1)
    if kind == "knapsack":
        content["knapsack"] = knapsack()
    if kind == "searched":
        content["searched"] = searched(7)
    content |= changes
    if kind != "teacher" and "teacher" not in changes:
        shared = ("backbone", "dataset", "image_size", "seed", "classes", "stages")
        content["teacher"] = summary("teacher", **{key: content[key] for key in shared})
    return content


def timings(single: float, batch: float) -> dict[str, dict[str, float]]:
    """Latency at batch 1 and 64 in milliseconds."""
    return {"1": {"median": single, "iqr": 0.1}, "64": {"median": batch, "iqr": 1.5}}


def cut(top: int, **changes: Any) -> dict[str, Any]:
    """What `eliminated` holds."""
    plain = {"unit": "stages", "top": top, "kept_blocks": len(STAGES) - top}
    return plain | {"replacement": False, "trainable": "all"} | changes


def searched(trial: int, **changes: Any) -> dict[str, Any]:
    """What `searched` holds, as far as it is read."""
    plain = {"study": "tiny-32px-seed0", "trial": trial, "network": "0a1b2c"}
    return plain | {"other_trials_seconds": 120.0} | changes


def tailored(**changes: Any) -> dict[str, Any]:
    """What `tailored` holds of a route without a budget."""
    plain = {"finetune": "task", "gamma": 0.3, "cut": "route", "budget": None}
    return plain | {"depth": "route-0.400", "paths": PATHS} | changes


def scaled(phi: float, **changes: Any) -> dict[str, Any]:
    """What `scaled` holds of a φ between the published members."""
    plain = {"phi": phi, "coefficients": [1.2, 1.1, 1.15], "depth": 1.2**phi, "width": 1.1**phi}
    return plain | {"image_size": 28, "member": None, "pretrained": False} | changes


def knapsack(**changes: Any) -> dict[str, Any]:
    """What `knapsack` holds of a teacher at half of its FLOPs."""
    plain = {
        "of": {"kind": "teacher", "name": "", "train_seconds": 60.0},
        "round_to": 8,
    }
    plain |= {"budget": {"cost": "flops", "most": 0.5, "batch": None}}
    return plain | {"paths": None} | changes


def accuracy(val: float, test: float | None) -> dict[str, float | None]:
    """Accuracies with a training accuracy beside them."""
    return {"train": 99.5, "val": val, "test": test}


def name_of(content: Mapping[str, Any]) -> str:
    """A folder's name that no run of other details has."""
    kinds = ("tailored", "scaled", "knapsack", "searched", "eliminated")
    details = {kind: content[kind] for kind in kinds if content.get(kind)}
    told = f"-{zlib.crc32(json.dumps(details).encode()):08x}" if details else ""
    return f"{content['backbone']}-{content['image_size']}px{told}-seed{content['seed']}"


def write_run(
    task: Path,
    content: Mapping[str, Any],
    *,
    labels: Mapping[str, Sequence[int]] | None = None,
    wrong: Mapping[int, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    epochs: Sequence[tuple[str, float, float]] = (("train", 80.0, 0.6), ("train", 95.0, 0.2)),
) -> Path:
    """Write the run folder `<task>/<kind>/<name>` and return it.

    Args:
        content: of `summary.json`.
        labels: true classes by split; by default the classes take turns.
        wrong: index of a test image to the class that it is taken for; all others are right.
        settings: `config.yaml`, over the usual ones.
        epochs: rows of `metrics.csv` as stage, validation accuracy and loss.
    """
    folder = task / content["kind"] / name_of(content)
    folder.mkdir(parents=True)
    usual = {
        "data": f"images/{content['dataset']}", "backbone": content["backbone"],
        "image_size": content["image_size"], "seed": content["seed"], "crop_pct": None,
        "split": {"val": 0.2, "test": 0.2, "seed": 0}, "limit": {"train": None, "test": None},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(usual | dict(settings or {})), "utf-8")
    (folder / "summary.json").write_text(json.dumps(content), "utf-8")
    whole = Architecture(
        backbone="tiny", classes=CLASSES, weights_origin="none", weights_digest="",
        preprocessing=Preprocessing(32, (0.5,) * 3, (0.25,) * 3, "bilinear", 1.0),
    )  # fmt: skip
    write_architecture(folder, whole)
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")
    count = len(content["classes"])
    labels = labels or {
        split: [i % count for i in range(images)] for split, images in IMAGES.items()
    }
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["split", "index", "label", "predicted", "probability", "file"])
        for split, rows in labels.items():
            for index, label in enumerate(rows):
                taken_for = (wrong or {}).get(index, label) if split == "test" else label
                writer.writerow([split, index, label, taken_for, 0.9, f"{index}.png"])
    with (folder / "metrics.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["stage", "epoch", "lr", "loss", "val_accuracy", "val_loss"])
        for number, (stage, percent, loss) in enumerate(epochs, start=1):
            writer.writerow([stage, number, 0.01, loss, percent, loss])
    return folder
