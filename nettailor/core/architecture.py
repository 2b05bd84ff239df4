"""Structure as data: everything but the weights that rebuilding a network takes."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nettailor.core.errors import UserError
from nettailor.core.files import read_json, write_json
from nettailor.core.preprocessing import Preprocessing

ARCHITECTURE_FILE = "architecture.json"
WEIGHTS_FILE = "model.safetensors"


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StudentStructure(_Closed):
    """What makes a student of a backbone.

    `paths` holds rows of [source node, target node, "block" or "proxy"].
    """

    paths: tuple[tuple[int, int, Literal["block", "proxy"]], ...]
    batch_norm: Literal["follow", "frozen"]
    finetune: Literal["task", "all"]


class Architecture(_Closed):
    """The content of `architecture.json`; `student` is null for a whole backbone."""

    format: Literal[1] = 1
    backbone: str
    classes: tuple[str, ...] = Field(min_length=2)
    preprocessing: Preprocessing
    weights_origin: str
    weights_digest: str
    student: StudentStructure | None = None


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
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {place}: {first['msg']}; was it written by NetTailor?") from error
