"""Structure as data: everything but the weights that rebuilding a network takes."""

from math import isfinite
from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from timm.data.transforms import str_to_pil_interp

from nettailor.core.errors import UserError
from nettailor.core.files import read_json, write_json
from nettailor.core.preprocessing import Preprocessing

ARCHITECTURE_FILE = "architecture.json"
WEIGHTS_FILE = "model.safetensors"


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StudentStructure(_Closed):
    """What makes a student of a backbone.

    `paths` holds rows of [source node, target node, kind].
    """

    paths: tuple[tuple[int, int, Literal["block", "identity", "proxy", "head", "exit"]], ...]
    batch_norm: Literal["train", "follow", "frozen"]
    adapters: bool
    finetune: Literal["task", "all"]


class EliminatedStructure(_Closed):
    """What is left of a backbone whose top was cut off: its first `blocks` blocks.

    replacement: one fresh convolution stands in the place of the others.
    """

    blocks: int = Field(ge=1)
    replacement: bool


class Architecture(_Closed):
    """The content of `architecture.json`.

    `student` and `eliminated` are null for a whole backbone; at most one of them is set.
    """

    format: Literal[1] = 1
    backbone: str
    classes: tuple[str, ...] = Field(min_length=2)
    preprocessing: Preprocessing
    weights_origin: str
    weights_digest: str
    student: StudentStructure | None = None
    eliminated: EliminatedStructure | None = None

    @field_validator("eliminated")
    @classmethod
    def _one_structure(
        cls, eliminated: EliminatedStructure | None, info: ValidationInfo
    ) -> EliminatedStructure | None:
        if eliminated is not None and info.data.get("student") is not None:
            raise ValueError("a network is a student or has its top eliminated, not both")
        return eliminated

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) < len(classes):
            raise ValueError("a class is listed twice")
        return classes

    @field_validator("preprocessing")
    @classmethod
    def _usable(cls, preprocessing: Preprocessing) -> Preprocessing:
        if preprocessing.image_size < 1:
            raise ValueError(f"image_size is {preprocessing.image_size}, expected at least 1")
        for name in ("mean", "std"):
            numbers = getattr(preprocessing, name)
            if len(numbers) != 3 or not all(map(isfinite, numbers)):
                raise ValueError(f"{name} is {numbers}, expected three numbers")
        if min(preprocessing.std) <= 0:
            raise ValueError(f"std is {preprocessing.std}, expected numbers above 0")
        if not 0 < preprocessing.crop_pct <= 1:
            raise ValueError(f"crop_pct is {preprocessing.crop_pct}, expected a share in (0, 1]")
        try:
            str_to_pil_interp(preprocessing.interpolation)
        except KeyError as error:
            raise ValueError(f"no interpolation {preprocessing.interpolation!r}") from error
        return preprocessing


def write_architecture(folder: Path, architecture: Architecture) -> None:
    """Write `architecture.json` into a run folder."""
    write_json(folder / ARCHITECTURE_FILE, architecture.model_dump(mode="json"))


def read_architecture(folder: Path) -> Architecture:
    """Read `architecture.json`; raises UserError when missing, damaged or of another format."""
    path = folder / ARCHITECTURE_FILE
    try:
        return Architecture.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "content"
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(
            f"{path}: {place}: {reason}; it is damaged or of another version: restore it, or train "
            "again with --overwrite"
        ) from error
