"""Closed settings: every key is declared here, and every fault is reported at once."""

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from timm.optim import list_optimizers

from nettailor.core.errors import UserError, nearest

# Keys that say where and how a run executes, not what it computes: they may differ on a resume.
EXECUTION_KEYS = frozenset({"device", "workers", "out", "data_dir", "download"})

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Frozen, strict and closed: no unknown key, no silent conversion, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SplitConfig(Section):
    """How images without a split of their own are divided."""

    val: Fraction = Field(0.2, description="fraction held out for validation")
    test: Fraction = Field(0.2, description="fraction held out for the test")
    seed: int = Field(0, ge=0, description="seed of the split, apart from the run's seed")

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test is {self.val + self.test:g}, must stay below 1")
        return self


class LimitConfig(Section):
    """Fewer images than the data set holds, for a quicker run."""

    train: Count | None = Field(
        None, description="use the first N training images (validation is cut from them)"
    )
    test: Count | None = Field(None, description="use the first N test images")


class AugmentConfig(Section):
    """Training augmentation, as timm names it."""

    scale: tuple[Positive, Positive] = Field(
        (0.35, 1.0), description="area of the random crop, least and most, as fractions"
    )
    ratio: tuple[Positive, Positive] = Field(
        (0.75, 1.3333), description="aspect ratio of the random crop, least and most"
    )
    hflip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    color_jitter: NonNegative = Field(0.2, description="strength of the colour jitter, 0 for none")
    auto_augment: str | None = Field(
        None, description="timm's policy string, such as rand-m9-mstd0.5, or null"
    )
    random_erasing: float = Field(0.0, ge=0, le=1, description="probability of random erasing")

    @field_validator("scale", "ratio", mode="before")
    @classmethod
    def _from_list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("scale", "ratio")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the least must not exceed the most")
        return value

    @field_validator("scale")
    @classmethod
    def _within_the_image(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] > 1:
            raise ValueError("a crop's area is at most 1.0")
        return value


class ScheduleConfig(Section):
    """How one stage trains."""

    epochs: Count = Field(10, description="passes over the training images")
    optimizer: str = Field("sgd", description="an optimizer of timm's, such as sgd or adamw")
    lr: Positive = Field(0.02, description="highest learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum (first beta of Adam's kind)")
    weight_decay: NonNegative = Field(5e-4, description="weight decay, none on biases and norms")
    schedule: Literal["cosine", "step", "constant"] = Field(
        "cosine", description="shape of the learning rate over the steps"
    )
    step_epochs: Count = Field(8, description="epochs between the drops of schedule 'step'")
    step_factor: Fraction = Field(0.1, description="factor of each drop of schedule 'step'")
    warmup_epochs: int = Field(0, ge=0, description="epochs of linear warm-up")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing")
    clip_norm: Positive | None = Field(None, description="largest gradient norm, or null")
    ema: Fraction | None = Field(None, description="decay of the weights' moving average, or null")

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, value: str) -> str:
        known = list_optimizers()
        if value not in known:
            raise ValueError(f"no optimizer of timm's{nearest(value, known)}")
        return value

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be below epochs")
        return self


class TeacherConfig(ScheduleConfig):
    """Fine-tuning of the whole pretrained network."""


class StudentConfig(ScheduleConfig):
    """The student's paths and its loss: CE + gamma * E[C] + mimic * Ω."""

    lr: Positive = Field(0.05, description="highest learning rate of proxies and classifier")
    path_lr: Positive = Field(0.1, description="highest learning rate of the path weights")
    skips: Annotated[int, Field(ge=1)] | Literal["dense"] = Field(
        3, description="proxies into each node: from so many nodes back, or dense"
    )
    gamma: NonNegative = Field(0.3, description="weight γ1 of the expected complexity")
    complexity: Literal["reachability", "published"] = Field(
        "reachability", description="form of the expected complexity"
    )
    cost: Literal["flops", "params"] = Field("flops", description="what a path costs")
    mimic: NonNegative | None = Field(
        None,
        description="weight γ2 of the mimicry; null: 10 for mean-square, 1 for the others",
    )
    mimicry: Literal["auto", "squared-norm", "mean-square", "normalized"] = Field(
        "auto",
        description="distance to the teacher's activations: the paper's text, its authors' "
        "program, or over the teacher's variance; auto: mean-square for ResNets, else normalized",
    )
    batch_norm: Literal["follow", "frozen"] = Field(
        "follow", description="statistics of the frozen blocks: follow the task, or stay"
    )


class PruneConfig(ScheduleConfig):
    """What is cut from the trained student, and the fine-tuning after it."""

    threshold: float = Field(0.05, ge=0, lt=1, description="proxies below this weight go")
    remove: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, description="numbers of pretrained blocks to try removing; null: about six depths"
    )
    tolerance: float = Field(
        0.5, ge=0, le=100, description="points of validation accuracy the teacher may be ahead"
    )
    finetune: Literal["task", "all"] = Field(
        "task", description="train task-specific weights only (blocks stay shared), or all"
    )
    mimic: NonNegative | None = Field(None, description="weight γ2 after the cut; null: as before")

    @field_validator("remove", mode="before")
    @classmethod
    def _from_list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class RunConfig(Section):
    """All settings of a task; one YAML file fills any part of it."""

    data: str = Field(
        "digits", description="digits, a folder of images, or a torchvision data set's name"
    )
    data_dir: str = Field("data", description="folder of torchvision's data sets")
    download: bool = Field(False, description="fetch a torchvision data set that is missing")
    backbone: str = Field("tf_efficientnet_lite0", description="a timm network")
    weights: str = Field(
        "auto", description="auto, package, hub, none, or a .safetensors or .pth file"
    )
    image_size: int = Field(224, ge=16, le=4096, description="side of the square input in pixels")
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="side of the evaluation crop over the image's; null: the backbone's own"
    )
    batch_size: int = Field(64, ge=2, description="images per step")
    seed: int = Field(0, ge=0, description="seed of weights, order and augmentation")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    precision: Literal["auto", "float32", "bf16", "fp16"] = Field(
        "auto", description="mixed precision; auto: bf16 on a GPU, float32 on a CPU"
    )
    workers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="processes that load images; null: by the machine"
    )
    out: str = Field("runs", description="folder that holds all runs")
    split: SplitConfig = SplitConfig()
    limit: LimitConfig = LimitConfig()
    augment: AugmentConfig = AugmentConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    prune: PruneConfig = PruneConfig()


class _YamlLoader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as text; here it is the number that people mean."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str) -> Any:
    """The plain data of a YAML text; raises `yaml.YAMLError`."""
    return yaml.load(text, Loader=_YamlLoader)


def keys(section: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf key as (dotted name, field), such as `student.gamma`."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def shipped() -> list[str]:
    """Names of the shipped settings, without `.yaml`."""
    folder = resources.files("configs")
    return sorted(
        item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")
    )


def read_settings(source: str) -> dict[str, Any]:
    """The keys of a YAML file: a path, or the name of a shipped one.

    Raises UserError when there is no such file or it is no YAML mapping.
    """
    path = Path(source)
    try:
        if path.is_file():
            text = path.read_text(encoding="utf-8")
        elif source in shipped():
            text = resources.files("configs").joinpath(f"{source}.yaml").read_text(encoding="utf-8")
        else:
            raise UserError(
                f"--config: no file {source!r}{nearest(source, shipped())}; "
                f"give a YAML file or one of {', '.join(shipped())}"
            )
        content = parse_yaml(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config: cannot read {source}: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"--config: {source} must be a YAML mapping of keys to values")
    return content


def set_key(settings: dict[str, Any], dotted: str, value: Any) -> None:
    """Put a value at a dotted key, making the sections on the way."""
    *sections, leaf = dotted.split(".")
    for name in sections:
        inner = settings.get(name)
        if not isinstance(inner, dict):
            inner = settings[name] = {}
        settings = inner
    settings[leaf] = value


def _allowed(dotted: str) -> str:
    """What a key takes, in words, from its declaration."""
    schema = RunConfig.model_json_schema()
    node: Any = schema
    for name in dotted.split("."):
        while "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        node = node.get("properties", {}).get(name, {})
    return _in_words(node)


def _in_words(node: Mapping[str, Any]) -> str:
    if "anyOf" in node:
        return " or ".join(_in_words(option) for option in node["anyOf"])
    if "enum" in node:
        return "one of " + ", ".join(str(value) for value in node["enum"])
    if "const" in node:
        return repr(node["const"])
    kinds = {
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "boolean": "true or false",
        "null": "null",
        "array": "a list",
        "object": "a section of keys",
    }
    bounds = [
        f"{sign} {node[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in node
    ]
    if node.get("type") == "array" and isinstance(node.get("items"), dict):
        bounds.append(f"of {_in_words(node['items'])}")
    elif node.get("prefixItems"):
        bounds.append(f"of {len(node['prefixItems'])}: {_in_words(node['prefixItems'][0])} each")
    return " ".join([kinds.get(node.get("type", ""), "a value"), *bounds])


def _fault(location: tuple[int | str, ...], message: str, kind: str, value: object) -> str:
    """One line for one fault: key, value, what is allowed, nearest spelling."""
    known = [name for name, _ in keys()]
    sections = {name.rsplit(".", 1)[0] for name in known if "." in name}
    # pydantic appends list positions and the tried alternatives to the key's own place
    names: list[str] = []
    for part in location:
        dotted = ".".join([*names, str(part)])
        if names and ".".join(names) in known:
            break
        if kind != "extra_forbidden" and dotted not in known and dotted not in sections:
            break
        names.append(str(part))
    dotted = ".".join(names)
    if kind == "extra_forbidden":
        return f"{dotted}: unknown key{nearest_key(dotted) or '; --help lists all keys'}"
    if kind == "value_error":
        place = dotted or "settings"
        shown = f" = {value!r}" if dotted in known else ""
        return f"{place}{shown}: {message.removeprefix('Value error, ')}"
    return f"{dotted} = {value!r}: must be {_allowed(dotted)}"


def nearest_key(name: str) -> str:
    """A hint with the closest dotted keys; a bare `gama` finds `student.gamma`."""
    known = [dotted for dotted, _ in keys()]
    hint = nearest(name, known)
    if hint:
        return hint
    leaf = name.rsplit(".", 1)[-1]
    by_leaf = {dotted.rsplit(".", 1)[-1]: dotted for dotted in known}
    close = nearest(leaf, by_leaf, count=1)
    for candidate, dotted in by_leaf.items():
        close = close.replace(repr(candidate), repr(dotted))
    return close


def validate(settings: Mapping[str, Any]) -> RunConfig:
    """Check settings against the declared keys.

    Raises UserError with one line per fault, all faults at once.
    """
    try:
        return RunConfig.model_validate(dict(settings))
    except ValidationError as error:
        faults: dict[str, None] = {}
        for item in error.errors(include_url=False):
            value = item["input"]
            if isinstance(value, float) and not isfinite(value):
                value = str(value)
            faults[_fault(item["loc"], item["msg"], item["type"], value)] = None
        raise UserError("settings: " + "\n".join(faults)) from error


def as_settings(config: RunConfig) -> dict[str, Any]:
    """Plain data that `validate` turns back into the same config."""
    return config.model_dump(mode="json")


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as {dotted key: value}."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result
