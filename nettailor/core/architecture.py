"""Structure as data: everything but the weights that rebuilding a network takes."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from timm.data.transforms import str_to_pil_interp

from nettailor.core.errors import UserError
from nettailor.core.files import read_json, write_json
from nettailor.core.preprocessing import Preprocessing
from nettailor.core.printable import printable

ARCHITECTURE_FILE = "architecture.json"
WEIGHTS_FILE = "model.safetensors"

# Far beyond what anybody trains, and below what takes gigabytes to say no to.
MOST_PIXELS_A_SIDE = 4096
# Of a searched network: far beyond what anybody trains.
_MOST_CHANNELS, _MOST_STAGES, _MOST_REPEATS = 2048, 16, 16
_MOST_CLASSES = 65_536
# Of depth and width over a family's base: beyond these lies no network that anybody trains.
LEAST_MULTIPLIER, MOST_MULTIPLIER = 0.1, 10.0
_LARGEST = 1e6  # of a mean or a standard deviation; its inverse is the least one
_LONGEST_FAULT = 200  # characters of what a message quotes from a file

BlockKind = Literal["Conv", "DWConv", "InvertedResidualV2", "InvertedResidualV3", "MBConv"]

Kind = Literal["tailored", "searched", "scaled", "narrowed", "eliminated"]


class Closed(BaseModel):
    """The content of a JSON file: no key may be missing, and none may be there besides."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Multiplier = Annotated[float, Field(ge=LEAST_MULTIPLIER, le=MOST_MULTIPLIER)]
Content = TypeVar("Content", bound=BaseModel)


class StudentStructure(Closed):
    """What makes a student of a backbone.

    `paths` holds rows of [source node, target node, kind].
    """

    paths: tuple[tuple[int, int, Literal["block", "identity", "proxy", "head", "exit"]], ...]
    batch_norm: Literal["train", "follow", "frozen"]
    adapters: bool
    finetune: Literal["task", "all"]


class EliminatedStructure(Closed):
    """What is left of a backbone whose top was cut off: its first `blocks` blocks.

    replacement: one fresh convolution stands in the place of the others.
    """

    blocks: int = Field(ge=1)
    replacement: bool


class ScaledStructure(Closed):
    """The multipliers of a member of the backbone's family over the base of that family."""

    depth: Multiplier
    width: Multiplier


class NarrowedStructure(Closed):
    """What makes a network narrower than its backbone is.

    layers: widths of those that lost channels, by name: [out, in], or [channels] of a batch norm.
    nodes: channels of each node of a student; null for a chain.
    """

    layers: dict[str, tuple[int, ...]]
    nodes: tuple[int, ...] | None


class SearchedBlock(Closed):
    """`repeats` blocks of one kind, one after the other; the first has the stride.

    expansion: of the channels inside an inverted residual; other kinds have none.
    """

    kind: BlockKind
    channels: int = Field(ge=1, le=_MOST_CHANNELS)
    stride: Literal[1, 2]
    kernel: Literal[3, 5, 7]
    activation: Literal["relu", "relu6", "hard_swish", "silu"]
    expansion: int = Field(ge=1, le=8)
    repeats: int = Field(ge=1, le=_MOST_REPEATS)


class SearchedStructure(Closed):
    """A network that was found by search.

    stem, head: channels of the 3×3 convolution with stride 2 before the blocks, and of the 1×1
    convolution after them.
    """

    stem: int = Field(ge=1, le=_MOST_CHANNELS)
    blocks: tuple[SearchedBlock, ...] = Field(min_length=1, max_length=_MOST_STAGES)
    head: int = Field(ge=1, le=_MOST_CHANNELS)

    @property
    def key(self) -> str:
        """Six characters that tell it from other networks."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:6]


class Architecture(Closed):
    """The content of `architecture.json`.

    `student`, `eliminated`, `scaled` and `searched` are null for a whole backbone; at most one of
    them is set. A searched network has nothing of the backbone but how that expects its images.
    `narrowed` is set, beside any other or alone, where channels were removed.
    """

    format: Literal[1] = 1
    backbone: str
    classes: tuple[str, ...] = Field(min_length=2, max_length=_MOST_CLASSES)
    preprocessing: Preprocessing
    weights_origin: str
    weights_digest: str
    student: StudentStructure | None = None
    eliminated: EliminatedStructure | None = None
    scaled: ScaledStructure | None = None
    narrowed: NarrowedStructure | None = None
    searched: SearchedStructure | None = None

    @model_validator(mode="after")
    def _one_structure(self) -> Self:
        names = ("student", "eliminated", "scaled", "searched")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given, expected one of them at most")
        return self

    @property
    def kind(self) -> Kind | None:
        """What was done to the backbone's structure; None for a whole one."""
        if self.student is not None:
            return "tailored"
        kinds: tuple[Kind, ...] = ("searched", "scaled", "narrowed", "eliminated")
        return next((kind for kind in kinds if getattr(self, kind) is not None), None)

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) < len(classes):
            raise ValueError("a class is listed twice")
        return classes

    @field_validator("preprocessing")
    @classmethod
    def _usable(cls, preprocessing: Preprocessing) -> Preprocessing:
        size = preprocessing.image_size
        if not 1 <= size <= MOST_PIXELS_A_SIDE:
            raise ValueError(f"image_size is {size}, expected 1 to {MOST_PIXELS_A_SIDE}")
        for name, sign, least in (("mean", "", -_LARGEST), ("std", " above 0,", 1 / _LARGEST)):
            numbers = getattr(preprocessing, name)
            if len(numbers) != 3 or not all(least <= number <= _LARGEST for number in numbers):
                raise ValueError(
                    f"{name} is {numbers}, expected three numbers{sign} from {least:g} to "
                    f"{_LARGEST:g}"
                )
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
    remedy = "restore it, or train again with --overwrite"
    return read_checked(folder / ARCHITECTURE_FILE, Architecture, remedy)


def read_checked(path: Path, kind: type[Content], remedy: str) -> Content:
    """Read a JSON file of one kind.

    Raises UserError, which ends in the remedy, when it is missing, damaged or of another format.
    """
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "content"
        fault = printable(f"{place}: {first['msg'].removeprefix('Value error, ')}")
        if len(fault) > _LONGEST_FAULT:
            fault = f"{fault[:_LONGEST_FAULT]}…"
        raise UserError(
            f"{path}: {fault}; it is damaged or of another version: {remedy}"
        ) from error
