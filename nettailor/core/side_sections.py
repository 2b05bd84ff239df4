"""Sections of the ways beside tailoring: fixed removal, channels, compound scaling, search."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nettailor.core.sections import (
    AsTuple,
    Count,
    Epochs,
    LearningRate,
    LikeTeacher,
    Place,
    Positive,
    Section,
)

# Channels of a layer come in multiples of this by default: ONNX Runtime is quick on them.
ROUND_TO = 8

Coefficient = Annotated[float, Field(ge=1, le=2)]
Reference = Literal["head-only", "scratch"]


class EliminateConfig(Section):
    """Fixed removal of the top, the yardstick, and the plain references; trained as the teacher."""

    epochs: LikeTeacher = None
    lr: LearningRate = 0.002
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


class ScaleConfig(Section):
    """Compound scaling of an EfficientNet, each size trained as the teacher."""

    epochs: LikeTeacher = None
    lr: LearningRate = 0.002
    phi: Annotated[tuple[float, ...], AsTuple] = Field(
        (-2.0, -1.0, 0.0), description="the exponents φ, each a run; 0 is the family's base"
    )
    coefficients: Annotated[tuple[Coefficient, Coefficient, Coefficient], AsTuple] = Field(
        (1.2, 1.1, 1.15),
        description="α, β and γ: depth is scaled by α^φ, width by β^φ, the image's side by γ^φ",
    )
    pretrained: bool = Field(True, description="published members start from their weights")

    @model_validator(mode="after")
    def _scales_something(self) -> Self:
        if not self.phi:
            raise ValueError("phi is empty: give at least one exponent")
        if set(self.coefficients) == {1}:
            raise ValueError("the coefficients are all 1: nothing would be scaled")
        return self


class KnapsackConfig(Section):
    """Which network loses channels, under the budget; prune says how the rest is fine-tuned."""

    of: Place = Field(
        "teacher",
        description="what is made narrower: the fine-tuned teacher, or the folder of a tailored "
        "run in `all` mode",
    )
    round_to: Annotated[int, Field(ge=1, le=64)] = Field(
        ROUND_TO, description="channels of a layer are a multiple of this, or all of them"
    )


class SearchConfig(Section):
    """A search for small networks without pretrained weights."""

    epochs: Epochs = 40
    trials: int = Field(30, ge=1, le=10_000, description="networks to try")
    trial_epochs: Count | None = Field(
        None,
        description="of `epochs`, those for every network; the better half goes on at each "
        "doubling; null: a quarter",
    )
    max_cost: Positive = Field(0.5, description="most multiply-adds, as a share of the backbone's")

    @model_validator(mode="after")
    def _trials_are_shorter(self) -> Self:
        if self.trial_epochs is not None and self.trial_epochs > self.epochs:
            raise ValueError(f"trial_epochs {self.trial_epochs} must not be above epochs")
        return self
