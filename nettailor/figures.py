"""The figures of a run: what `summary.json` holds, and the table that a person reads."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from rich.table import Table

from nettailor.core.backbone import Chain
from nettailor.core.config import RunConfig
from nettailor.core.cost import layers, module_flops, parameters
from nettailor.core.scores import Scores
from student.network import Student

Network = Chain | Student
Latency = Mapping[str, Mapping[str, float]]


def versions() -> dict[str, str]:
    """What the run was made with."""
    found = {"python": platform.python_version()}
    for name in ("nettailor", "torch", "torchvision", "timm", "accelerate", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def structure(network: Network, image_size: int) -> dict[str, Any]:
    """Parameters, FLOPs (multiply-adds), layers and blocks of a network.

    Universal parameters are those shared with other tasks: frozen blocks, stem and neck. Once a
    network was fine-tuned as a whole, none are.
    """
    total = parameters(network)
    universal = 0
    if isinstance(network, Student):
        blocks = {
            "universal": len(network.wiring.of_kind("block")),
            "proxy": len(network.wiring.of_kind("proxy")),
        }
        if not network.finetunes_all:
            universal = sum(parameters(module) for module in network.universal())
    else:
        blocks = {"universal": len(network.blocks), "proxy": 0}
    return {
        "params": {"total": total, "universal": universal, "task": total - universal},
        "flops": module_flops(network, (3, image_size, image_size)),
        "layers": layers(network),
        "blocks": blocks,
    }


def summary(
    kind: str,
    config: RunConfig,
    *,
    dataset: str,
    classes: Sequence[str],
    scores: Mapping[str, Scores | None],
    network: Network,
    latency: Latency,
    device: torch.device,
    size: int,
    train_seconds: float,
    total_seconds: float,
    teacher: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        kind: teacher, tailored or candidate.
        config: the run's settings.
        dataset: the task's name.
        classes: class names.
        scores: by split (train, val, test); None where a split was not read.
        network: what the figures are of.
        latency: {batch: {"median", "iqr"}} in milliseconds on `device`.
        device: where latency was measured.
        size: bytes of `model.safetensors`.
        train_seconds: spent in training steps; for a tailored run, of every depth tried.
        total_seconds: with validation and measuring.
        teacher: the teacher's own summary, for a tailored run.
    """
    return {
        "kind": kind,
        "backbone": config.backbone,
        "dataset": dataset,
        "image_size": config.image_size,
        "seed": config.seed,
        "classes": list(classes),
        "accuracy": _by_split(scores, "accuracy"),
        "macro_f1": _by_split(scores, "macro_f1"),
        "loss": _by_split(scores, "loss"),
        **structure(network, config.image_size),
        "latency_ms": {device.type: {batch: dict(row) for batch, row in latency.items()}},
        "bytes": size,
        "seconds": {"train": round(train_seconds, 2), "total": round(total_seconds, 2)},
        "teacher": None if teacher is None else dict(teacher),
        "versions": versions(),
    }


def _by_split(scores: Mapping[str, Scores | None], name: str) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for split in ("train", "val", "test"):
        value = scores[split]
        values[split] = None if value is None else round(float(getattr(value, name)), 4)
    return values


def side_by_side(rows: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """One table of summaries, a column each; later columns are given over the first."""
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("")
    for name in rows:
        table.add_column(name, justify="right")
    first = next(iter(rows.values()))

    def add(label: str, pick: Any, form: str, *, ratio: bool = False) -> None:
        cells = []
        for row in rows.values():
            value = pick(row)
            text = "–" if value is None else format(value, form)
            if ratio and row is not first and value is not None and pick(first):
                text += f"  ({value / pick(first):.2f}×)"
            cells.append(text)
        table.add_row(label, *cells)

    add("accuracy, validation %", lambda row: row["accuracy"]["val"], ".2f")
    add("accuracy, test %", lambda row: row["accuracy"]["test"], ".2f")
    add("macro F1, validation %", lambda row: row["macro_f1"]["val"], ".2f")
    add("macro F1, test %", lambda row: row["macro_f1"]["test"], ".2f")
    add("parameters", lambda row: row["params"]["total"], ",", ratio=True)
    add("  universal", lambda row: row["params"]["universal"], ",")
    add("  task-specific", lambda row: row["params"]["task"], ",")
    add("FLOPs (multiply-adds)", lambda row: row["flops"], ",", ratio=True)
    add("pretrained blocks", lambda row: row["blocks"]["universal"], "d")
    add("proxies", lambda row: row["blocks"]["proxy"], "d")
    add("layers", lambda row: row["layers"], "d")
    device = next(iter(first["latency_ms"]))
    for batch in first["latency_ms"][device]:
        add(
            f"latency, batch {batch}, {device}, ms",
            lambda row, batch=batch: row["latency_ms"].get(device, {}).get(batch, {}).get("median"),
            ".2f",
            ratio=True,
        )
    add("file, bytes", lambda row: row["bytes"], ",", ratio=True)
    add("training, s", lambda row: row["seconds"]["train"], ".1f")
    return table


def candidates_table(rows: Sequence[Mapping[str, Any]], teacher: Mapping[str, Any]) -> Table:
    """Every depth that was tried: what was left, and validation accuracy around the cut."""
    table = Table(
        title="depths tried, validation accuracy in %", title_justify="left", header_style="bold"
    )
    for name in (
        "depth", "blocks", "proxies", "FLOPs", "params", "before cut", "after", "fine-tuned", "",
    ):  # fmt: skip
        table.add_column(name, justify="left" if name in ("depth", "") else "right")
    for row in rows:
        table.add_row(
            row["name"],
            str(row["blocks"]["universal"]),
            str(row["blocks"]["proxy"]),
            f"{row['flops'] / teacher['flops']:.3f}",
            f"{row['params'] / teacher['params']['total']:.3f}",
            f"{row['before_cut']:.2f}",
            f"{row['straight_after_cut']:.2f}",
            f"{row['finetuned']:.2f}",
            row["verdict"],
        )
    return table
