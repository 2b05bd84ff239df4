"""The settings of a task as a whole: closed, and checked against what the sections declare."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from nettailor.core.sections import (
    AugmentConfig,
    LimitConfig,
    Metric,
    Place,
    PruneConfig,
    ScheduleConfig,
    Section,
    SplitConfig,
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
EXECUTION_KEYS = frozenset({"device", "workers", "out", "data_dir", "download"})

# Sections of other ways than tailoring: their keys have short flags in the command of their name.
ROADS = ("knapsack", "scale", "search")


class RunConfig(Section):
    """All settings of a task; one YAML file fills any part of it."""

    data: Place = Field("digits", description="digits, an image folder, or a torchvision data set")
    data_dir: Place = Field("data", description="folder of torchvision's data sets")
    download: bool = Field(False, description="fetch a torchvision data set that is missing")
    on_bad_image: Literal["error", "skip"] = Field(
        "error",
        description="an image that cannot be read stops the command, or is left out and listed",
    )
    backbone: str = Field("tf_efficientnet_lite0", description="a timm network")
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
        description="of validation, by which epochs and networks are chosen; whatever it is, a "
        "tailored network must not lose a class",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: rare classes weigh more in the loss, each class the same"
    )
    sampling: Literal["natural", "balanced"] = Field(
        "natural", description="balanced: an epoch draws images of rare classes more often"
    )
    workers: Whole | None = Field(
        None, description="processes that load images; null: by the machine"
    )
    out: Place = Field("runs", description="folder that holds all runs")
    split: SplitConfig = SplitConfig()
    limit: LimitConfig = LimitConfig()
    augment: AugmentConfig = AugmentConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    prune: PruneConfig = PruneConfig()
    eliminate: EliminateConfig = EliminateConfig()
    knapsack: KnapsackConfig = KnapsackConfig()
    scale: ScaleConfig = ScaleConfig()
    search: SearchConfig = SearchConfig()


# the sections that say how something trains
STAGES = tuple(
    name
    for name, field in RunConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, ScheduleConfig)
)


def keys(section: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf key as (dotted name, field), such as `student.gamma`."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def as_settings(config: RunConfig) -> dict[str, Any]:
    """Plain data that `validate` turns back into the same config."""
    return config.model_dump(mode="json")


def recorded(config: RunConfig, *stages: str) -> dict[str, Any]:
    """What a run writes down: all settings but those of stages that it does not train."""
    others = set(STAGES) - set(stages)
    return {name: value for name, value in as_settings(config).items() if name not in others}


# Where a teacher is there it counts, not the settings with which one would be trained: a run of
# another road may differ in them.
TEACHER_KEYS = tuple(f"teacher.{key}" for key in TeacherConfig.model_fields)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as {dotted key: value}."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result
