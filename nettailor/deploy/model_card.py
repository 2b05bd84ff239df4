"""`README.md` and `config.json` beside an exported network, as model hubs expect them."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

import yaml
from timm.models import get_pretrained_cfg

from nettailor.core.architecture import Architecture
from nettailor.deploy.written import Written
from nettailor.report.formatting import accuracy

_UNSTATED = "not stated"


def licence_of(architecture: Architecture) -> str:
    """The licence of the pretrained weights, as their source states it."""
    words = architecture.weights_origin.split()
    if words[:1] == ["package"]:
        try:
            stated = metadata(words[1]).json.get("license")
        except PackageNotFoundError:
            return _UNSTATED
        return stated if isinstance(stated, str) and stated != "UNKNOWN" else _UNSTATED
    if words[:2] == ["timm", "hub"]:
        return get_pretrained_cfg(_hub_name(architecture)).license or _UNSTATED
    return _UNSTATED


def _hub_name(architecture: Architecture) -> str:
    """The timm name, with its tag, whose weights came from the hub."""
    return architecture.weights_origin.removeprefix("timm hub ")


def hub_config(architecture: Architecture) -> dict[str, Any]:
    """`config.json` under timm's keys.

    A whole backbone is timm's model of that name. Any other network bears a name that timm does
    not know, and so refuses.
    """
    preprocessing = architecture.preprocessing
    size = preprocessing.image_size
    published = get_pretrained_cfg(architecture.backbone)
    name = architecture.backbone.split(".")[0]
    return {
        "architecture": f"nettailor-{architecture.kind}" if architecture.kind else name,
        "num_classes": len(architecture.classes),
        "label_names": list(architecture.classes),
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "interpolation": preprocessing.interpolation,
            "crop_pct": preprocessing.crop_pct,
            "num_classes": len(architecture.classes),
            "first_conv": published.first_conv,
            "classifier": published.classifier,
        },
        "library": "nettailor",
        "backbone": None if architecture.searched else name,
        "tailored": architecture.student is not None,
    }


def model_card(
    architecture: Architecture,
    about: Mapping[str, str],
    summary: Mapping[str, Any] | None,
    written: Sequence[Written],
    checked_on: str,
) -> str:
    """The card in Markdown, with a hub's front matter.

    Args:
        about: the texts in the files' metadata.
        summary: of the finished run, None for a network without figures.
        written: the exported files.
        checked_on: the images that outputs were compared on, in words.
    """
    licence = licence_of(architecture)
    front: dict[str, Any] = {
        "library_name": "nettailor",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "nettailor", "timm"],
    }
    if architecture.weights_origin.startswith("timm hub "):
        front["base_model"] = f"timm/{_hub_name(architecture)}"
    if licence != _UNSTATED:
        front["license"] = licence.lower()
    task = "its task" if summary is None else str(summary["dataset"])
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {_title(architecture)} {task}",
        "",
        f"Classes ({len(architecture.classes)}): {_listed(architecture.classes)}.",
        "",
    ]
    if summary is not None:
        lines += [*_figures(summary), ""]
    lines += [
        "## Files",
        "",
        "| file | bytes | latency, batch 1, ms | outputs |",
        "|---|---|---|---|",
        *map(_row, written),
        "",
        f"Compared on {checked_on}; the difference is the largest one over the largest logit.",
        "",
        "## Input and output",
        "",
        f"- input: {about['input']}; resize {about['resize']} ({about['interpolation']}), "
        f"mean {about['mean']}, std {about['std']}",
        f"- a picture's file becomes RGB thus: {about['reading']}",
        f"- output: {about['output']}",
        "",
        "The same texts are in the metadata of the ONNX file and in `metadata.json` inside the "
        ".pt2 file.",
        "",
        "## Whence",
        "",
        f"{_weights(architecture)} with NetTailor.",
        "",
    ]
    return "\n".join(lines)


def _title(architecture: Architecture) -> str:
    if architecture.searched is not None:
        return "Network searched from scratch for"
    return f"{architecture.backbone}, {_kind(architecture)} to"


def _kind(architecture: Architecture) -> str:
    words = {None: "fine-tuned", "scaled": "scaled and trained", "eliminated": "cut"}
    return words.get(architecture.kind, str(architecture.kind))


def _weights(architecture: Architecture) -> str:
    if architecture.searched is not None:
        return "No pretrained weights: found and trained"
    return (
        f"Pretrained weights: {architecture.weights_origin}; their licence: "
        f"{licence_of(architecture)}. Trained and cut"
    )


def _listed(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:20])
    return f"{shown}, … (all are in config.json)" if len(classes) > 20 else shown


def _figures(summary: Mapping[str, Any]) -> list[str]:
    teacher = summary.get("teacher")
    rows = [
        ("accuracy, validation %", _accuracy(summary, "val"), _accuracy(teacher, "val")),
        ("accuracy, test %", _accuracy(summary, "test"), _accuracy(teacher, "test")),
        ("parameters", summary["params"]["total"], teacher and teacher["params"]["total"]),
        ("FLOPs (multiply-adds)", summary["flops"], teacher and teacher["flops"]),
    ]
    columns = "| | this network |" + (" its teacher |" if teacher else "")
    lines = ["## Figures", "", columns, "|---" * (3 if teacher else 2) + "|"]
    for name, own, whole in rows:
        cells = [_number(own), *([_number(whole)] if teacher else [])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _accuracy(row: Mapping[str, Any] | None, split: str) -> str | None:
    return None if row is None else accuracy(row, split)


def _number(value: float | str | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def _row(file: Written) -> str:
    latency = "–" if file.latency is None else f"{file.latency:.3f}"
    return f"| {file.name} | {file.size:,} | {latency} | {file.outputs} |"
