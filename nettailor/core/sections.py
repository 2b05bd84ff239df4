"""The sections of the settings: every key is declared here, with its default and its range."""

import os
import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)


def _from_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _from_words(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else _from_list(value)


Metric = Literal["accuracy", "macro-f1", "worst-recall"]
# a path, or a name in its place; unlike pathlib's, this leaves the ~name of nobody here as it is
Place = Annotated[str, AfterValidator(os.path.expanduser)]
Lever = Literal["blocks", "channels", "resolution"]
AsTuple = BeforeValidator(_from_list)
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Budget = tuple[Literal["flops", "params", "latency_ms"], float]
Range = Annotated[tuple[Positive, Positive], AsTuple]
StepSchedule = Annotated[str, Field(pattern=r"^step-[1-9][0-9]{0,5}$", examples=["step-20"])]

Unit = Literal["flops", "params"]
CostUnit = Literal[Unit, "latency"]  # of a path
# keys of several stages, whose defaults differ
Epochs = Annotated[int, Field(ge=1, description="passes over the training images")]
AUTO_EPOCHS = 20
LikeTeacher = Annotated[
    Count | Literal["auto"] | None,
    Field(description="passes over the training images; null: as `teacher.epochs` says"),
]
Optimizer = Annotated[str, Field(description="an optimizer of timm's, such as sgd or adamw")]
# beyond 1e30 optimizers' own arithmetic overflows
LearningRate = Annotated[float, Field(gt=0, le=1e30, description="highest learning rate")]


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

    val: Fraction = Field(
        0.2, description="fraction of what the test leaves, held out for validation"
    )
    test: Fraction = Field(0.2, description="fraction held out for the test")
    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="seed of the split, apart from the run's seed"
    )
    group_by: str | None = Field(
        None,
        description="regular expression: images whose paths below the data folder give the same "
        "match (its first group, or all of it) stay in one part, such as frames of a film",
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
        description="use N training images only: the first, or of a set sorted by class as many of "
        "each class; a validation split that has to be cut is cut from them",
    )
    test: Count | None = Field(None, description="the same of the test images")


class AugmentConfig(Section):
    """Training augmentation, as timm names it."""

    scale: Range = Field((0.35, 1.0), description="least and most area of the random crop")
    ratio: Range = Field((0.75, 1.3333), description="least and most aspect ratio of the crop")
    hflip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    color_jitter: NonNegative = Field(0.2, description="strength of the colour jitter, 0 for none")
    auto_augment: str | None = Field(
        None, description="timm's policy string, such as rand-m9-mstd0.5"
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


class TeacherConfig(Section):
    """How the whole pretrained network is fine-tuned, and what stands beside it."""

    epochs: Count | Literal["auto"] = Field(
        "auto",
        description=f"passes over the training images; auto: {AUTO_EPOCHS}, or half of them where "
        "the half is 2,000 steps; twice as many more where that is not enough",
    )
    optimizer: Optimizer = "adamw"
    lr: LearningRate = 0.002
    warmup_epochs: Whole | None = Field(
        None, description="epochs of linear warm-up; null: 1, or none of a single epoch"
    )

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        epochs = AUTO_EPOCHS // 2 if self.epochs == "auto" else self.epochs
        if self.warmup_epochs is not None and self.warmup_epochs >= epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be below epochs")
        return self


class StudentConfig(Section):
    """How the student trains, its paths, and its loss.

    By route CE while it is whole, CE + distill KD as it shrinks; by rank CE + distill KD + gamma
    E[C] + mimic Ω.
    """

    epochs: Epochs | None = Field(
        None, description="null: 4 to a budget, 8 without one, which passes sizes more closely"
    )
    optimizer: Optimizer = "adamw"
    lr: LearningRate = 0.001
    path_lr: Positive = Field(
        0.1,
        description="by rank: highest learning rate of the path weights; after the cut scaled by "
        "prune.lr / student.lr",
    )
    levers: Annotated[tuple[Lever, ...], BeforeValidator(_from_words)] = Field(
        ("blocks", "channels", "resolution"),
        description="by route: what may go; resolution: 1/2 and 3/4 of the size are tried too",
    )
    skips: Whole | Literal["dense"] = Field(
        0, description="by rank: proxies into each node, from so many back"
    )
    identities: bool = Field(True, description="an identity beside each block, at no cost")
    exits: bool = Field(True, description="a lean head at the end of each stage")
    adapters: Literal["auto"] | bool = Field(
        "auto", description="a proxy added to each block's output; auto: to shared blocks"
    )
    gamma: NonNegative = Field(
        0.3,
        description="price of cost, in nats for all of the backbone's: the weight γ1 of the "
        "expected complexity; by route, without a budget, what a size's loss is weighed against",
    )
    cost: CostUnit = Field("flops", description="cost of a path; a budget's unit takes its place")
    distill: NonNegative = Field(0.5, description="weight of distillation from teacher's logits")
    mimic: NonNegative | None = Field(
        None,
        description="by rank: weight γ2 of the mimicry; null: 5 for normalized, 10 for mean-square",
    )
    mimicry: Literal["auto", "mean-square", "normalized"] = Field(
        "auto",
        description="by rank: distance to the teacher's activations: as the paper's authors have "
        "it (auto for ResNets), or over the teacher's variance (auto for others)",
    )

    @field_validator("levers")
    @classmethod
    def _some(cls, value: tuple[Lever, ...]) -> tuple[Lever, ...]:
        if not value:
            raise ValueError("expected one at least")
        return value

    batch_norm: Literal["train", "follow", "frozen"] = Field(
        "train",
        description="batch norms of the frozen blocks; train: the task has its own; follow: their "
        "statistics follow the task",
    )


class BudgetConfig(Section):
    """What a network may cost that is cut by route, or by channels."""

    max_flops: Positive | None = Field(
        None,
        description="multiply-adds as a share of the uncut network's; knapsack: 0.5 where no "
        "budget is given",
    )
    max_params: Positive | None = Field(
        None, description="parameters as a share of the uncut network's"
    )
    max_latency_ms: Positive | None = Field(
        None, description="milliseconds of a forward pass on the device, as exported"
    )
    batch: Count = Field(1, description="images at a time for max_latency_ms")

    @property
    def given(self) -> Budget | None:
        """What is limited, and to how much: a share of the whole network's, or milliseconds."""
        if self.max_flops is not None:
            return "flops", self.max_flops
        if self.max_params is not None:
            return "params", self.max_params
        return None if self.max_latency_ms is None else ("latency_ms", self.max_latency_ms)

    @property
    def label(self) -> str:
        """The budget as a part of a name, such as `flops0.3` or `4ms-batch1`."""
        if self.given is None:
            return ""
        cost, most = self.given
        return f"{most:g}ms-batch{self.batch}" if cost == "latency_ms" else f"{cost}{most:g}"

    def or_half(self) -> Self:
        """Half of the multiply-adds where none is given."""
        return self if self.given else self.model_copy(update={"max_flops": 0.5})

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        budgets = [self.max_flops, self.max_params, self.max_latency_ms]
        if sum(budget is not None for budget in budgets) > 1:
            raise ValueError("give one of max_flops, max_params and max_latency_ms")
        return self


class PruneConfig(Section):
    """What is cut from the student, and the fine-tuning after a cut, of channels as well.

    Optimizer and schedule are the student's.
    """

    epochs: Epochs | None = Field(None, description="null: 20 to a budget, 6 without one")
    lr: LearningRate = Field(0.003, description="half of it by route in mode all without a budget")
    by: Literal["route", "rank"] = Field(
        "route",
        description="route: what the loss misses least goes as the student trains; rank, as "
        "published: blocks by rank and proxies below a threshold go once it has",
    )
    threshold: float = Field(0.05, ge=0, lt=1, description="by rank: proxies below this weight go")
    remove: Annotated[tuple[Whole, ...] | None, AsTuple] = Field(
        None, description="by rank: numbers of blocks to remove; null: about six, and none"
    )
    tolerance: float = Field(
        0.5,
        ge=0,
        le=100,
        description="without a budget: points of validation accuracy the teacher may be ahead, "
        "what may be chance included",
    )
    finetune: Literal["all", "task"] = Field(
        "all",
        description="train all weights, for a network that stands alone; or the task's own only, "
        "beside shared blocks",
    )
