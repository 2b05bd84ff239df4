"""Sections of the ways beside tailoring: fixed removal, channels, compound scaling, search."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nettailor.core.sections import (
    AsTuple,
    Budget,
    BudgetConfig,
    Count,
    Epochs,
    LearningRate,
    NonNegative,
    Optimizer,
    Place,
    Positive,
    ScheduleConfig,
    WeightDecay,
)

# Channels of a layer come in multiples of this by default: ONNX Runtime is quick on them.
ROUND_TO = 8
# Of a searched network: far beyond what anybody trains.
MOST_CHANNELS, MOST_STAGES, MOST_REPEATS = 2048, 16, 16

Coefficient = Annotated[float, Field(ge=1, le=2)]
Reference = Literal["head-only", "scratch"]


class EliminateConfig(ScheduleConfig):
    """Fixed removal of the top, the yardstick, and the plain references beside it."""

    unit: Literal["stages", "blocks"] = Field("stages", description="what is counted off the top")
    top: Annotated[tuple[Count, ...] | None, AsTuple] = Field(
        None, description="numbers of units to cut off the top, each a run; null: all, []: none"
    )
    trainable: Literal["all", "head"] = Field(
        "all", description="train everything that is kept, or only the new head"
    )
    replacement: bool = Field(False, description="put one new convolution in the removed's place")
    references: Annotated[tuple[Reference, ...], AsTuple] = Field(
        ("head-only", "scratch"),
        description="also train: the untouched backbone with a new classifier only, the backbone "
        "without pretrained weights",
    )


class ScaleConfig(ScheduleConfig):
    """Compound scaling of an EfficientNet: depth α^φ, width β^φ, resolution γ^φ."""

    phi: Annotated[tuple[float, ...], AsTuple] = Field(
        (-2.0, -1.0, 0.0), description="the exponents φ, each a run; 0 is the family's base"
    )
    depth: Coefficient = Field(1.2, description="α: times the blocks of each stage, for φ = 1")
    width: Coefficient = Field(1.1, description="β: times the channels, for φ = 1")
    resolution: Coefficient = Field(1.15, description="γ: times the image's side, for φ = 1")
    pretrained: bool = Field(True, description="published members start from their weights")

    @model_validator(mode="after")
    def _scales_something(self) -> Self:
        if not self.phi:
            raise ValueError("phi is empty: give at least one exponent")
        if self.depth == self.width == self.resolution == 1:
            raise ValueError("depth, width and resolution are all 1: nothing would be scaled")
        return self


class KnapsackConfig(BudgetConfig):
    """Channels that are removed, and the fine-tuning after it: CE + distill * KD + mimic * Ω."""

    optimizer: Optimizer = "adamw"
    lr: LearningRate = 0.003
    of: Place = Field(
        "teacher",
        description="what is made narrower: the fine-tuned teacher, or the folder of a tailored "
        "run in `all` mode",
    )
    max_flops: Positive | None = Field(
        None,
        description="budget: multiply-adds as a share of the uncut network's; 0.5 where no budget "
        "is given",
    )
    solver: Literal["exact", "greedy"] = Field(
        "exact", description="of the knapsack: dynamic programming, or most value per cost first"
    )
    round_to: Annotated[int, Field(ge=1, le=64)] = Field(
        ROUND_TO, description="channels of a layer are a multiple of this, or all of them"
    )
    distill: NonNegative = Field(0.5, description="weight of distillation from the whole's logits")
    mimic: NonNegative = Field(
        0.0, description="weight of inner distillation, from activations at block ends, such as 5"
    )

    @property
    def budget(self) -> Budget:
        """Half of the multiply-adds where none is given."""
        return super().budget or ("flops", 0.5)


class SearchConfig(ScheduleConfig):
    """A search for small networks without pretrained weights, and how they train."""

    epochs: Epochs = 40
    optimizer: Optimizer = "adamw"
    lr: LearningRate = 0.004
    weight_decay: WeightDecay = 0.02
    trials: int = Field(30, ge=1, le=10_000, description="networks to try")
    trial_epochs: Count | None = Field(
        None,
        description="of `epochs`, those for every network; the better half goes on at each "
        "doubling; null: a quarter",
    )
    max_stages: int = Field(
        5, ge=1, le=MOST_STAGES, description="most stages, each of one kind of block"
    )
    max_repeats: int = Field(3, ge=1, le=MOST_REPEATS, description="most blocks in a stage")
    max_width: int = Field(96, ge=8, le=MOST_CHANNELS, description="most channels of a block")
    max_cost: Positive = Field(0.5, description="most multiply-adds, as a share of the backbone's")

    @property
    def first_epochs(self) -> int:
        """How many epochs every network trains for."""
        return -(-self.epochs // 4) if self.trial_epochs is None else self.trial_epochs

    @model_validator(mode="after")
    def _trials_are_shorter(self) -> Self:
        if self.first_epochs > self.epochs:
            raise ValueError(f"trial_epochs {self.trial_epochs} must not be above epochs")
        return self
