"""The settings of a task as a whole: closed, and checked against what the sections declare."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from nettailor.core.sections import (
    AugmentConfig,
    BudgetConfig,
    LimitConfig,
    Metric,
    Place,
    Positive,
    PruneConfig,
    Section,
    SplitConfig,
    StepSchedule,
    StudentConfig,
    TeacherConfig,
    Whole,
)
from nettailor.core.side_sections import (
    EliminateConfig,
    KnapsackConfig,
    ScaleConfig,
    SearchConfig,
)

# Keys that say where and how a run executes, not what it computes: they may differ on a resume.
EXECUTION_KEYS = frozenset({"device", "workers", "cache", "out", "data_dir", "download"})

# Sections of other ways than tailoring: their keys have short flags in the command of their name.
ROADS = ("knapsack", "scale", "search")


class RunConfig(Section):
    """All settings of a task; one YAML file fills any part of it."""

    data: Place = Field(
        "digits",
        description="digits, an image folder, one that datasets saved, or a torchvision data set",
    )
    data_dir: Place = Field("data", description="folder of torchvision's data sets")
    download: bool = Field(False, description="fetch a torchvision data set that is missing")
    on_bad_image: Literal["error", "skip"] = Field(
        "error",
        description="an image that cannot be read stops the command, or is left out and listed",
    )
    backbone: str = Field(
        "tf_efficientnet_lite0", description="a network of timm, or torchvision:NAME"
    )
    weights: Place = Field(
        "auto",
        description="auto, package, hub, none, a .safetensors, .pth or .ckpt file, a hub "
        "repository's clone, or a teacher's folder",
    )
    image_size: int = Field(224, ge=16, le=4096, description="side of the square input in pixels")
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="side of the evaluation crop over the image's; null: the backbone's own"
    )
    batch_size: int = Field(64, ge=2, description="images per step")
    seed: int = Field(0, ge=0, description="seed of weights, order and augmentation")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    precision: Literal["auto", "float32", "bf16", "fp16"] = Field(
        "auto",
        description="what training steps compute in; auto: bf16 on a GPU that is made for it, else "
        "float32",
    )
    metric: Metric = Field(
        "accuracy",
        description="of validation, by which networks are judged and chosen; whatever it is, a "
        "tailored network must not lose a class",
    )
    balance: Literal["none", "loss", "sampling"] = Field(
        "none",
        description="all classes count the same: rare ones weigh more in the loss, or an epoch "
        "draws their images more often",
    )
    weight_decay: float = Field(
        5e-4, ge=0, description="of every stage but a search's; none on biases and norms"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing, of every stage")
    schedule: Literal["cosine", "constant"] | StepSchedule = Field(
        "cosine",
        description="shape of every stage's learning rate: cosine, constant, or such as step-20, "
        "a tenth after each 20 epochs",
    )
    workers: Whole | None = Field(
        None, description="processes that load images; null: by the machine"
    )
    cache: Literal["auto", "none"] | Positive = Field(
        "auto",
        description="GB of memory for decoded images, which are read once then; auto: a quarter of "
        "what is free",
    )
    out: Place = Field("runs", description="folder that holds all runs")
    split: SplitConfig = SplitConfig()
    limit: LimitConfig = LimitConfig()
    augment: AugmentConfig = AugmentConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    budget: BudgetConfig = BudgetConfig()
    prune: PruneConfig = PruneConfig()
    eliminate: EliminateConfig = EliminateConfig()
    knapsack: KnapsackConfig = KnapsackConfig()
    scale: ScaleConfig = ScaleConfig()
    search: SearchConfig = SearchConfig()


def _section(field: FieldInfo) -> type[BaseModel] | None:
    inner = field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def keys(section: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf key as (dotted name, field), such as `student.gamma`."""
    for name, field in section.model_fields.items():
        inner = _section(field)
        if inner is None:
            yield prefix + name, field
        else:
            yield from keys(inner, f"{prefix}{name}.")


# The sections that some commands go by and others do not, and those that say how something trains.
METHODS = tuple(
    name
    for name, field in RunConfig.model_fields.items()
    if _section(field) and name not in ("split", "limit", "augment")
)
STAGES = tuple(name.removesuffix(".epochs") for name, _ in keys() if name.endswith(".epochs"))


def as_settings(config: RunConfig) -> dict[str, Any]:
    """Plain data that `validate` turns back into the same config."""
    return config.model_dump(mode="json")


def recorded(config: RunConfig, *counting: str) -> dict[str, Any]:
    """What a run writes down: of the sections of methods only what counts for it.

    counting: names of these sections, or dotted keys of theirs.
    """
    settings = as_settings(config)
    kept = {name: value for name, value in settings.items() if name not in METHODS}
    for name in counting:
        section, _, key = name.partition(".")
        whole = settings[section]
        kept[section] = kept.get(section, {}) | ({key: whole[key]} if key else whole)
    return kept


# Where a teacher is there it counts, not the settings with which one would be trained: a run of
# another road may differ in them.
TEACHER_KEYS = tuple(f"teacher.{key}" for key in TeacherConfig.model_fields)
# What trains as the teacher has its optimizer and warm-up.
TEACHERS_OWN_KEYS = ("teacher.epochs", "teacher.lr")


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as {dotted key: value}."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result
