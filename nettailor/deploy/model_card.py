"""`README.md` and `config.json` beside an exported network, as model hubs expect them."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from timm.models import get_pretrained_cfg

from nettailor.core.architecture import Architecture
from nettailor.core.families import is_torchvisions
from nettailor.deploy.written import Written
from nettailor.report.formatting import accuracy

_UNSTATED = "not stated"
_CARD = """\
---
{{ front }}
---

# {% if network.searched %}Network searched from scratch for\
{% else %}{{ network.backbone }}, {{ kind }} to\
{% endif %} {{ summary.dataset if summary else "its task" }}

Classes ({{ network.classes|length }}): {{ network.classes[:20]|join(", ") }}\
{{ ", … (all are in config.json)" if network.classes|length > 20 }}.

{% if summary %}
## Figures

| | this network |{{ " its teacher |" if summary.teacher }}
|---|---|{{ "---|" if summary.teacher }}
| accuracy, validation % |{% for row in columns %} {{ row|accuracy("val") }} |{% endfor %}

| accuracy, test % |{% for row in columns %} {{ row|accuracy("test") }} |{% endfor %}

| parameters |{% for row in columns %} {{ "{:,}".format(row.params.total) }} |{% endfor %}

| FLOPs (multiply-adds) |{% for row in columns %} {{ "{:,}".format(row.flops) }} |{% endfor %}


{% endif %}
## Files

| file | bytes | latency, batch 1, ms | outputs |
|---|---|---|---|
{% for file in written %}
| {{ file.name }} | {{ "{:,}".format(file.size) }} | {{ "%.3f"|format(file.latency) }} \
| {{ file.outputs }} |
{% endfor %}

Compared on {{ checked_on }}; the difference is the largest one over the largest logit.

## Input and output

- input: {{ about.input }}; resize {{ about.resize }} ({{ about.interpolation }}), \
mean {{ about.mean }}, std {{ about.std }}
- a picture's file becomes RGB thus: {{ about.reading }}
- output: {{ about.output }}

The same texts are in the metadata of the ONNX file and in `metadata.json` inside the .pt2 file.

## Whence

{% if network.searched %}
No pretrained weights: found and trained with NetTailor.
{% else %}
Pretrained weights: {{ network.weights_origin }}; their licence: {{ licence }}. \
Trained and cut with NetTailor.
{% endif %}
"""


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

    A whole backbone of timm's is its model of that name. Any other network bears a name that timm
    does not know, and so refuses.
    """
    preprocessing = architecture.preprocessing
    size = preprocessing.image_size
    backbone = architecture.backbone
    published = None if is_torchvisions(backbone) else get_pretrained_cfg(backbone)
    name = backbone.split(".")[0]
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
            "first_conv": published and published.first_conv,
            "classifier": published and published.classifier,
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
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["accuracy"] = accuracy
    kinds = {None: "fine-tuned", "scaled": "scaled and trained", "eliminated": "cut"}
    return environment.from_string(_CARD).render(
        front=yaml.safe_dump(front, sort_keys=False).rstrip(),
        network=architecture,
        kind=kinds.get(architecture.kind, architecture.kind),
        licence=licence,
        about=about,
        summary=summary,
        columns=[] if summary is None else [one for one in (summary, summary["teacher"]) if one],
        written=written,
        checked_on=checked_on,
    )
