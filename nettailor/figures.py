"""The figures of a run: what `summary.json` holds, and the table that a person reads."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.table import Table

from nettailor.core.backbone import Backbone, meta_copy
from nettailor.core.branches import fuse_branches
from nettailor.core.cost import layers, module_flops, parameters
from nettailor.core.data import images_of
from nettailor.core.device import processor_name
from nettailor.core.latency import serving_dtype
from nettailor.core.scores import Scores
from nettailor.core.sections import BudgetConfig
from nettailor.evidence import Evidence
from nettailor.prune.eliminate import Replacement
from nettailor.report.formatting import accuracy
from nettailor.session import Session
from nettailor.student.network import Student

Network = Backbone | Student
_METHODS = ("eliminated", "tailored", "scaled", "knapsack", "searched")


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
    """Parameters, FLOPs (multiply-adds), layers and blocks of a network, its branches fused.

    Universal parameters are those that do not train, and so are shared with other tasks: frozen
    blocks, stem and neck. Once a network was fine-tuned as a whole, none are. Running statistics
    are no parameters and are not counted, though those that follow the task are its own.
    """
    deployed = fuse_branches(meta_copy(network))
    total = parameters(deployed)
    if isinstance(network, Student):
        blocks = {
            "universal": len(network.wiring.of_kind("block")),
            "proxy": len(network.wiring.of_kind("proxy")),
        }
    else:
        fresh = sum(isinstance(block, Replacement) for block in network.blocks)
        blocks = {"universal": len(network.blocks) - fresh, "proxy": 0}
    universal = sum(
        parameter.numel() for parameter in deployed.parameters() if not parameter.requires_grad
    )
    return {
        "params": {"total": total, "universal": universal, "task": total - universal},
        "flops": module_flops(deployed, (3, image_size, image_size)),
        "layers": layers(deployed),
        "blocks": blocks,
    }


def summary(
    kind: str,
    session: Session,
    *,
    network: Network,
    evidence: Evidence,
    size: int,
    train_seconds: float,
    total_seconds: float,
    teacher: Mapping[str, Any] | None,
    **how: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        kind: teacher, tailored, candidate, picked, eliminated, head-only, scratch, knapsack,
            scaled or searched.
        network: what the figures are of.
        size: bytes of `model.safetensors`.
        train_seconds: spent in training steps; for a tailored run, of all that was tried.
        total_seconds: with validation and measuring.
        teacher: the teacher's own summary, its latency measured in turn with this network's;
            None for the teacher itself.
        how: `eliminated`, `tailored`, `scaled`, `knapsack` or `searched`: what was done.
    """
    config, scores, mixed = session.config, evidence.scores, session.accelerator.mixed_precision
    # those of the backbone, whatever was cut off it
    whole = network if how.get("searched") and isinstance(network, Backbone) else session
    return {
        "kind": kind,
        "backbone": config.backbone,
        "dataset": session.task.name,
        "image_size": config.image_size,
        "seed": config.seed,
        "classes": list(session.task.classes),
        "images": images_of(session.task),
        "left_out": list(session.task.left_out),
        "accuracy": _by_split(scores, "accuracy"),
        "accuracy_error": _by_split(scores, "accuracy_error"),
        "macro_f1": _by_split(scores, "macro_f1"),
        "loss": _by_split(scores, "loss"),
        **structure(network, session.preprocessing.image_size),
        "stages": list(whole.stages),
        "latency_ms": {evidence.device.type: evidence.latency},
        "profile": {
            "device": evidence.device.type,
            "processor": processor_name(evidence.device),
            "timed_in": str(serving_dtype(evidence.device)).removeprefix("torch."),
            "trained_in": "float32" if mixed == "no" else mixed,
        },
        "peak_memory": evidence.peak_memory,
        "bytes": size,
        "seconds": {
            "train": round(train_seconds, 2),
            "total": round(total_seconds, 2),
            "test_inference": _rounded(evidence.test_inference),
        },
        **{name: how.get(name) for name in _METHODS},
        "teacher": teacher,
        "versions": versions(),
    }


def budget_row(budget: BudgetConfig) -> dict[str, Any] | None:
    """What a summary holds of a budget, None where there is none."""
    if budget.given is None:
        return None
    cost, most = budget.given
    return {"cost": cost, "most": most, "batch": budget.batch if cost == "latency_ms" else None}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def _by_split(scores: Mapping[str, Scores | None], name: str) -> dict[str, float | None]:
    return {
        split: None if value is None else _rounded(getattr(value, name))
        for split, value in scores.items()
    }


def _table(title: str, *columns: str, left: Sequence[int] = (0,)) -> Table:
    """A table without rows, figures to the right and the words in some columns to the left."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number in left else "right")
    return table


def side_by_side(rows: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """One table of summaries, a column each; later columns are given over the first."""
    table = _table(title, "", *rows)
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

    splits = {"val": "validation", "test": "test"}
    for split, name in splits.items():
        table.add_row(f"accuracy, {name} %", *(accuracy(row, split) for row in rows.values()))
    for split, name in splits.items():
        add(f"macro F1, {name} %", lambda row, split=split: row["macro_f1"][split], ".2f")
    add("parameters", lambda row: row["params"]["total"], ",", ratio=True)
    add("  universal", lambda row: row["params"]["universal"], ",")
    add("  task-specific", lambda row: row["params"]["task"], ",")
    add("FLOPs (multiply-adds)", lambda row: row["flops"], ",", ratio=True)
    sides = [_side(row) for row in rows.values()]
    if len(set(sides)) > 1:
        table.add_row("image size, px", *map(str, sides))
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


def _side(row: Mapping[str, Any]) -> int:
    """Of a network's own images; a summary has that of the task at its top."""
    how = (row.get(method) for method in _METHODS)
    own = (one["image_size"] for one in how if one and "image_size" in one)
    return int(next(own, row["image_size"]))


def networks_table(rows: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """One table of summaries and their teacher, a row each.

    Costs are given over the teacher that the first was measured beside, latency (batch 1) over the
    teacher measured in turn.
    """
    teacher = next(iter(rows.values()))["teacher"]
    table = _table(
        title, "", "val %", "test %", "loss, val", "FLOPs", "", "params", "", "blocks", "latency",
        "train, s",
    )  # fmt: skip
    for name, row in {"teacher": teacher, **rows}.items():
        ((device, latency),) = row["latency_ms"].items()
        in_turn = (row["teacher"] or row)["latency_ms"][device]
        table.add_row(
            name,
            f"{row['accuracy']['val']:.2f}",
            f"{row['accuracy']['test']:.2f}",
            f"{row['loss']['val']:.4f}",
            f"{row['flops'] / 1e6:.1f} M",
            f"{row['flops'] / teacher['flops']:.3f}",
            f"{row['params']['total'] / 1e6:.3f} M",
            f"{row['params']['total'] / teacher['params']['total']:.3f}",
            str(row["blocks"]["universal"]),
            f"{latency['1']['median'] / in_turn['1']['median']:.2f}×",
            f"{row['seconds']['train']:.1f}",
        )
    return table


def candidates_table(rows: Sequence[Mapping[str, Any]], teacher: Mapping[str, Any]) -> Table:
    """Every cut that was tried: what was left, and how accurate it was."""
    table = _table(
        "cuts tried, validation accuracy in %", "cut", "blocks", "proxies", "FLOPs", "params",
        "before", "fine-tuned", "", left=(0, 7),
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row["name"],
            str(row["blocks"]["universal"]),
            str(row["blocks"]["proxy"]),
            f"{row['flops'] / teacher['flops']:.3f}",
            f"{row['params'] / teacher['params']['total']:.3f}",
            f"{row['before_finetuning']:.2f}",
            f"{row['finetuned']:.2f}",
            row["verdict"],
        )
    return table
