"""Closed settings: every key is declared here, with its default and its range."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from timm.optim import list_optimizers

from nettailor.core.architecture import MOST_CHANNELS, MOST_REPEATS, MOST_STAGES
from nettailor.core.errors import nearest
from nettailor.core.judge import Metric

# Keys that say where and how a run executes, not what it computes: they may differ on a resume.
EXECUTION_KEYS = frozenset({"device", "workers", "out", "data_dir", "download"})

# Sections of other roads than tailoring: their keys have short flags in the command of their name.
ROADS = ("knapsack", "scale", "search")

# Channels of a layer come in multiples of this by default: ONNX Runtime is quick on them.
ROUND_TO = 8

# These of timm's optimizers need a library of their own, or second derivatives, which no stage
# computes.
_UNUSABLE_OPTIMIZERS = ("bnb*", "fused*", "adahessian")


def _at_home(value: str) -> str:
    # unlike pathlib's, this leaves the ~name of nobody here as it is
    return os.path.expanduser(value)


def _from_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


# a path, or a name that stands in its place
Place = Annotated[str, AfterValidator(_at_home)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Reference = Literal["head-only", "scratch"]
Budget = tuple[Literal["flops", "params", "latency_ms"], float]
Coefficient = Annotated[float, Field(ge=1, le=2)]
Range = Annotated[tuple[Positive, Positive], BeforeValidator(_from_list)]


class Section(BaseModel):
    """Frozen, strict and closed: no unknown key, no silent conversion, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _no_nul(cls, value: object) -> object:
        if isinstance(value, str) and "\0" in value:  # no file's name can hold one
            raise ValueError("must not hold a NUL character")
        return value


class SplitConfig(Section):
    """How images without a split of their own are divided."""

    val: Fraction = Field(0.2, description="fraction held out for validation")
    test: Fraction = Field(0.2, description="fraction held out for the test")
    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="seed of the split, apart from the run's seed"
    )
    group_by: str | None = Field(
        None,
        description="regular expression, searched in each image's path below the data folder: "
        "images in which it finds the same (its first group, or all of it) stay together when "
        "parts are cut, such as frames of a film; null: each image for itself",
    )

    @field_validator("group_by")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"is no regular expression ({error}); see Python's `re`") from error
        return value

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test is {self.val + self.test:g}, must stay below 1")
        return self


class LimitConfig(Section):
    """Fewer images than the data set holds, for a quicker run."""

    train: Count | None = Field(
        None,
        description="use N training images only, the first or, of a set that is sorted by class, "
        "as many of each class; a validation split that is cut is cut from them",
    )
    test: Count | None = Field(None, description="the same of the test images")


class AugmentConfig(Section):
    """Training augmentation, as timm names it."""

    scale: Range = Field(
        (0.35, 1.0), description="area of the random crop, least and most, as fractions"
    )
    ratio: Range = Field(
        (0.75, 1.3333), description="aspect ratio of the random crop, least and most"
    )
    hflip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    color_jitter: NonNegative = Field(0.2, description="strength of the colour jitter, 0 for none")
    auto_augment: str | None = Field(
        None, description="timm's policy string, such as rand-m9-mstd0.5, or null"
    )
    random_erasing: float = Field(0.0, ge=0, le=1, description="probability of random erasing")

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
    warmup_epochs: Whole = Field(0, description="epochs of linear warm-up")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing")
    clip_norm: Positive | None = Field(None, description="largest gradient norm, or null")
    ema: Fraction | None = Field(None, description="decay of the weights' moving average, or null")

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, value: str) -> str:
        known = list_optimizers(exclude_filters=list(_UNUSABLE_OPTIMIZERS))
        if value not in known:
            raise ValueError(f"no optimizer of timm's that can train here{nearest(value, known)}")
        return value

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.optimizer == "sgd" and self.momentum == 0:
            raise ValueError("timm's sgd is Nesterov's and needs momentum > 0; or take 'momentum'")
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be below epochs")
        return self


class TeacherConfig(ScheduleConfig):
    """Fine-tuning of the whole pretrained network."""


class StudentConfig(ScheduleConfig):
    """The student's paths and its loss: CE + distill * KD + gamma * E[C] + mimic * Ω."""

    lr: Positive = Field(0.05, description="highest learning rate, but of the path weights")
    path_lr: Positive = Field(
        0.1,
        description="highest learning rate of the path weights; "
        "after the cut, as prune.lr is to lr",
    )
    start: Literal["auto", "teacher", "pretrained"] = Field(
        "auto",
        description="whose weights the blocks begin with; auto: the teacher's where they train "
        "along (prune.finetune all), else the pretrained ones",
    )
    skips: Whole | Literal["dense"] = Field(
        0, description="proxies into each node: from so many nodes back, or dense"
    )
    identities: bool = Field(
        True, description="the identity, which costs nothing, in the place of each block"
    )
    exits: bool = Field(True, description="a lean head at the end of each stage")
    adapters: Literal["auto"] | bool = Field(
        "auto",
        description="a proxy added to each block's output; auto: where the blocks are shared",
    )
    gamma: NonNegative = Field(0.3, description="weight γ1 of the expected complexity")
    complexity: Literal["route", "reachability", "published"] = Field(
        "route", description="form of the expected complexity"
    )
    cost: Literal["auto", "flops", "params", "latency"] = Field(
        "auto", description="what a path costs; auto: flops; with a budget always what that is in"
    )
    distill: NonNegative = Field(
        0.5, description="weight of the distillation from the teacher's logits"
    )
    mimic: NonNegative | None = Field(
        None,
        description="weight γ2 of the mimicry; null: 5 for normalized, 10 for the others",
    )
    mimicry: Literal["auto", "squared-norm", "mean-square", "normalized"] = Field(
        "auto",
        description="distance to the teacher's activations: the paper's text, its authors' "
        "program, or over the teacher's variance; auto: mean-square for ResNets, else normalized",
    )
    batch_norm: Literal["train", "follow", "frozen"] = Field(
        "train",
        description="norms of the frozen blocks: they train (and are the task's own), their "
        "statistics follow the task, or nothing of them moves",
    )


class BudgetConfig(ScheduleConfig):
    """What a network may cost that is cut to a budget, and the fine-tuning after it."""

    max_flops: Positive | None = Field(
        None, description="budget: multiply-adds as a share of those of the network that is cut"
    )
    max_params: Positive | None = Field(
        None, description="budget: parameters as a share of those of the network that is cut"
    )
    max_latency_ms: Positive | None = Field(
        None, description="budget: milliseconds of a forward pass on the device"
    )
    batch: Count = Field(1, description="images at a time for max_latency_ms")

    @property
    def budget(self) -> Budget | None:
        """What is limited, and to how much: a share of the whole network's, or milliseconds."""
        if self.max_flops is not None:
            return "flops", self.max_flops
        if self.max_params is not None:
            return "params", self.max_params
        return None if self.max_latency_ms is None else ("latency_ms", self.max_latency_ms)

    @property
    def limit(self) -> str:
        """The budget as a part of a name, such as `flops0.3` or `4ms-batch1`."""
        if self.budget is None:
            return ""
        cost, most = self.budget
        return f"{most:g}ms-batch{self.batch}" if cost == "latency_ms" else f"{cost}{most:g}"

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        budgets = [self.max_flops, self.max_params, self.max_latency_ms]
        if sum(budget is not None for budget in budgets) > 1:
            raise ValueError("give one of max_flops, max_params and max_latency_ms")
        return self


class PruneConfig(BudgetConfig):
    """What is cut from the trained student, and the fine-tuning after it."""

    by: Literal["route", "rank"] = Field(
        "route",
        description="what is kept: one route from stem to logits, the leanest within tolerance or "
        "the best within a budget; or, as published, blocks by rank and proxies above a threshold",
    )
    importance: Literal["measured", "path-weights"] = Field(
        "measured",
        description="what a path is worth on a route: the loss when its node takes it alone, or "
        "the log of its weight",
    )
    threshold: float = Field(0.05, ge=0, lt=1, description="proxies below this weight go (by rank)")
    remove: Annotated[tuple[Whole, ...] | None, BeforeValidator(_from_list)] = Field(
        None,
        description="numbers of pretrained blocks to remove (by rank); null: about six depths",
    )
    tolerance: float = Field(
        0.5,
        ge=0,
        le=100,
        description="points of validation accuracy the teacher may be ahead, without a budget; "
        "a standard error of the difference is added to what it is ahead",
    )
    finetune: Literal["all", "task"] = Field(
        "all",
        description="all weights train and the network stands alone; or task-specific weights "
        "only, and the blocks stay shared",
    )
    mimic: NonNegative | None = Field(0.0, description="weight γ2 after the cut; null: as before")
    distill: NonNegative | None = Field(
        None, description="weight of the distillation after the cut; null: as before"
    )

    @model_validator(mode="after")
    def _budgets_are_of_routes(self) -> Self:
        if self.budget is not None and self.by == "rank":
            raise ValueError("a budget needs by: route")
        return self


class EliminateConfig(ScheduleConfig):
    """Fixed removal of the top, the yardstick, and the plain references beside it."""

    unit: Literal["stages", "blocks"] = Field("stages", description="what is counted off the top")
    top: Annotated[tuple[Count, ...] | None, BeforeValidator(_from_list)] = Field(
        None, description="numbers of units to cut off the top, each a run; null: all, []: none"
    )
    trainable: Literal["all", "head"] = Field(
        "all", description="train everything that is kept, or only the new head"
    )
    replacement: bool = Field(
        False, description="put one fresh convolution in the place of the removed blocks"
    )
    references: Annotated[tuple[Reference, ...], BeforeValidator(_from_list)] = Field(
        ("head-only", "scratch"),
        description="plain references to train as well: the untouched backbone with a new "
        "classifier only, the backbone without pretrained weights",
    )


class ScaleConfig(ScheduleConfig):
    """Compound scaling of an EfficientNet: depth α^φ, width β^φ, resolution γ^φ."""

    phi: Annotated[tuple[float, ...], BeforeValidator(_from_list)] = Field(
        (-2.0, -1.0, 0.0),
        description="the exponents φ, each a run; 0 is the family's base",
    )
    depth: Coefficient = Field(1.2, description="α: times the blocks of each stage, for φ = 1")
    width: Coefficient = Field(1.1, description="β: times the channels, for φ = 1")
    resolution: Coefficient = Field(1.15, description="γ: times the image's side, for φ = 1")
    pretrained: bool = Field(
        True, description="members of the family that have weights start from them"
    )

    @model_validator(mode="after")
    def _scales_something(self) -> Self:
        if not self.phi:
            raise ValueError("phi is empty: give at least one exponent")
        if self.depth == self.width == self.resolution == 1:
            raise ValueError("depth, width and resolution are all 1: nothing would be scaled")
        return self


class KnapsackConfig(BudgetConfig):
    """Channels that are removed, and the fine-tuning after it: CE + distill * KD + mimic * Ω."""

    optimizer: str = Field("adamw", description="an optimizer of timm's, such as sgd or adamw")
    lr: Positive = Field(0.003, description="highest learning rate")
    of: Place = Field(
        "teacher",
        description="the network that is made narrower: the fine-tuned teacher, or the folder of a "
        "tailored run in `all` mode",
    )
    max_flops: Positive | None = Field(
        None,
        description="budget: multiply-adds as a share of those of the network that is cut; 0.5 "
        "where no budget is given",
    )
    solver: Literal["exact", "greedy"] = Field(
        "exact", description="of the knapsack: dynamic programming, or most value per cost first"
    )
    round_to: Annotated[int, Field(ge=1, le=64)] = Field(
        ROUND_TO,
        description="channels of each layer are a multiple of this, or all of them; 1: any width",
    )
    distill: NonNegative = Field(
        0.5, description="weight of the distillation from the whole network's logits"
    )
    mimic: NonNegative = Field(
        0.0,
        description="weight of the inner distillation, its activations at block ends, such as 5",
    )

    @property
    def budget(self) -> Budget:
        """Half of the multiply-adds where none is given."""
        return super().budget or ("flops", 0.5)


class SearchConfig(ScheduleConfig):
    """A search for small networks without pretrained weights, and how they train."""

    epochs: Count = Field(40, description="passes over the images for networks that go all the way")
    optimizer: str = Field("adamw", description="an optimizer of timm's, such as sgd or adamw")
    lr: Positive = Field(0.004, description="highest learning rate")
    weight_decay: NonNegative = Field(0.02, description="weight decay, none on biases and norms")
    trials: int = Field(30, ge=1, le=10_000, description="networks to try")
    trial_epochs: Count | None = Field(
        None,
        description="of `epochs`, those that every network trains for; then, and at each doubling, "
        "the better half goes on; null: a quarter",
    )
    max_stages: int = Field(
        5, ge=1, le=MOST_STAGES, description="most stages, each of one kind of block"
    )
    max_repeats: int = Field(3, ge=1, le=MOST_REPEATS, description="most blocks in a stage")
    max_width: int = Field(96, ge=8, le=MOST_CHANNELS, description="most channels of a block")
    max_cost: Positive = Field(
        0.5, description="most multiply-adds of a network, as a share of the backbone's"
    )

    @property
    def first_epochs(self) -> int:
        """How many epochs every network trains for."""
        return -(-self.epochs // 4) if self.trial_epochs is None else self.trial_epochs

    @model_validator(mode="after")
    def _trials_are_shorter(self) -> Self:
        if self.first_epochs > self.epochs:
            raise ValueError(f"trial_epochs {self.trial_epochs} must not be above epochs")
        return self


class RunConfig(Section):
    """All settings of a task; one YAML file fills any part of it."""

    data: Place = Field(
        "digits", description="digits, a folder of images, or a torchvision data set's name"
    )
    data_dir: Place = Field("data", description="folder of torchvision's data sets")
    download: bool = Field(False, description="fetch a torchvision data set that is missing")
    on_bad_image: Literal["error", "skip"] = Field(
        "error",
        description="an image that cannot be read stops the command, or is left out and listed",
    )
    backbone: str = Field("tf_efficientnet_lite0", description="a timm network")
    weights: Place = Field(
        "auto",
        description="auto, package, hub, none, a .safetensors, .pth or .ckpt file, the clone of a "
        "hub's repository, or a teacher's folder",
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
