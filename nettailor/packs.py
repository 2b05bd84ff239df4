"""Task packs and their backbone on disk.

A library is a folder:

    backbone/backbone.json, backbone.safetensors    what tasks share: stem, blocks, neck
    packs/<task>/pack.json, pack.safetensors        what is one task's alone

What is whose goes by ownership and not by equality. A task owns all that is outside stem, blocks
and neck: proxies, adapters, exits, classifier, path weights. Of the norms inside, it owns
everything where they train with it, the running statistics where these follow it, and nothing
where they are frozen.
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core.architecture import Architecture, Closed, StudentStructure, read_checked
from nettailor.core.backbone import Backbone, create_backbone
from nettailor.core.errors import UserError
from nettailor.core.files import (
    read_weights,
    require_exactly,
    sha256_of,
    write_json,
    write_tensors,
)
from nettailor.core.printable import printable
from nettailor.core.weights import universal_digest
from nettailor.student.network import Student

BACKBONE_FILE = "backbone.json"
BACKBONE_WEIGHTS = "backbone.safetensors"
PACK_FILE = "pack.json"
PACK_WEIGHTS = "pack.safetensors"
SHARED_RUN = "python -m nettailor.tailor --finetune task"  # makes runs that have packs

_MAKE = "python -m nettailor.export --run RUN --library"
_NAME = re.compile(r"\w([\w .-]*[\w-])?")
_LONGEST_NAME = 100


class PackedBackbone(Closed):
    """The content of `backbone.json`.

    digest: `universal_digest` of the tensors. origin: whence they came, in words.
    """

    format: Literal[1] = 1
    backbone: str
    digest: str
    origin: str


class Pack(Closed):
    """The content of `pack.json`; sha256 is of `pack.safetensors`, in hex."""

    format: Literal[2] = 2  # 1 held costs as well
    architecture: Architecture
    sha256: str


def shared_names(student: Student) -> dict[str, str]:
    """What a student shares with other tasks: its tensors' names, and theirs in the chain.

    The student is one that shares its blocks.
    """
    prefixes = {"stem.": "stem."}
    for path in student.wiring.of_kind("block"):
        prefixes[f"blocks.{path.key}."] = f"blocks.{path.target - 1}."
    for path in student.wiring.of_kind("head"):
        prefixes[f"heads.{path.key}.neck."] = "neck."
    own = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    if student.batch_norm != "frozen":
        own |= {
            f"{name}.{buffer}"
            for name, module in student.named_modules()
            if isinstance(module, _BatchNorm)
            for buffer, _ in module.named_buffers(recurse=False)
        }
    names = [name for name, _ in (*student.named_parameters(), *student.named_buffers())]
    return {
        name: prefixes[prefix] + name.removeprefix(prefix)
        for name in names
        for prefix in prefixes
        if name.startswith(prefix) and name not in own
    }


def own_tensors(student: Student) -> dict[str, Tensor]:
    """The tensors of a student's pack by name."""
    shared = shared_names(student)
    return {name: value for name, value in student.state_dict().items() if name not in shared}


def sharing_structure(architecture: Architecture, source: Path) -> StudentStructure:
    """The structure of a student that shares its blocks; UserError for any other network."""
    structure = architecture.student
    if structure is None or structure.finetune != "task":
        found = "no tailored network" if structure is None else "a network that stands alone"
        raise UserError(
            f"{source}: holds {found}, which shares nothing and has no pack; make one that shares "
            f"its blocks with `{SHARED_RUN}`"
        )
    return structure


def check_backbone(
    architecture: Architecture, source: Path, entry: PackedBackbone, library: Path
) -> None:
    """Raise UserError unless a network, which lies at the source, is made from the backbone."""
    if (architecture.backbone, architecture.weights_digest) != (entry.backbone, entry.digest):
        raise UserError(
            f"{source}: made from another backbone: "
            f"{_brief(architecture.backbone, architecture.weights_digest)}; {library} holds "
            f"{_brief(entry.backbone, entry.digest)}: give another library"
        )


def _brief(backbone: str, digest: str) -> str:
    return f"{printable(backbone[:_LONGEST_NAME])}, weights {digest[:12]!r}"


def has_backbone(library: Path) -> bool:
    """Whether the folder is a library."""
    return (library / "backbone" / BACKBONE_FILE).is_file()


def read_backbone(library: Path) -> PackedBackbone:
    """What a library's tasks share; UserError where the folder holds none, or a damaged one."""
    if not has_backbone(library):
        raise UserError(
            f"{library}: holds no library ({BACKBONE_FILE} is not there); make one with "
            f"`{_MAKE} {library}`"
        )
    path = library / "backbone" / BACKBONE_FILE
    return read_checked(
        path, PackedBackbone, f"restore it, or make the library again with `{_MAKE} DIR`"
    )


def backbone_shapes(library: Path, entry: PackedBackbone) -> Backbone:
    """The chain on the meta device: a damaged file may name a network of any size.

    Raises UserError for an unknown backbone.
    """
    try:
        with torch.device("meta"):
            return create_backbone(entry.backbone, 1)
    except UserError as error:
        raise UserError(f"{library / 'backbone' / BACKBONE_FILE}: {error}") from error


def load_backbone(library: Path, entry: PackedBackbone) -> Backbone:
    """The chain of a library on the CPU; its classifier answers nothing.

    Raises UserError where the weights are damaged, or others.
    """
    weights = library / "backbone" / BACKBONE_WEIGHTS
    shapes = _universal(backbone_shapes(library, entry))
    tensors = read_weights(weights)
    require_exactly(shapes, tensors, weights)
    chain = create_backbone(entry.backbone, 1)
    chain.load_state_dict(tensors, strict=False)
    found = universal_digest(chain)
    if found != entry.digest:
        raise UserError(
            f"{weights}: damaged, or other weights than {BACKBONE_FILE} beside it is about "
            f"({found[:12]!r}, expected {entry.digest[:12]!r}); make the library again"
        )
    return chain


def write_backbone(library: Path, chain: Backbone, entry: PackedBackbone) -> None:
    """Make a library without tasks; UserError where it cannot be written."""

    def write(folder: Path) -> None:
        write_tensors(folder / BACKBONE_WEIGHTS, _universal(chain))
        write_json(folder / BACKBONE_FILE, entry.model_dump(mode="json"))

    _put(library / "backbone", write)


def _universal(chain: Backbone) -> dict[str, Tensor]:
    """The tensors of a chain that tasks can share."""
    state = chain.state_dict()
    return {name: state[name] for name in state if not name.startswith("classifier.")}


def pack_folder(library: Path, task: str) -> Path:
    """Where a library keeps a task; UserError unless the name is a plain folder name."""
    return library / "packs" / check_name(task)


def check_name(task: str) -> str:
    """The name itself; UserError unless it is a plain folder name."""
    if not _NAME.fullmatch(task) or len(task.encode()) > _LONGEST_NAME:
        raise UserError(
            f"{task[:_LONGEST_NAME]!r} is no name for a task: expected a plain folder name of "
            f"letters, digits, '-', '_', '.' and blanks, {_LONGEST_NAME} bytes at most"
        )
    return task


def packs_in(library: Path) -> dict[str, Path]:
    """The folders of a library's packs by task."""
    folders = [file.parent for file in library.glob(f"packs/*/{PACK_FILE}")]
    return {folder.name: folder for folder in folders if _NAME.fullmatch(folder.name)}


def read_pack(folder: Path) -> Pack:
    """What a pack says of itself; UserError where it is missing or damaged."""
    return read_checked(
        folder / PACK_FILE, Pack, f"make the pack again with `{_MAKE} DIR --overwrite`"
    )


def read_own_tensors(folder: Path, pack: Pack, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a pack by name, on the CPU.

    like: of the same names, shapes and types, on any device.

    Raises UserError where the file is missing, damaged or of another network.
    """
    path = folder / PACK_WEIGHTS
    tensors = read_weights(path)
    require_exactly(like, tensors, path)
    if sha256_of(path) != pack.sha256:
        raise UserError(
            f"{path}: damaged, or not the weights that {PACK_FILE} beside it is about; make the "
            "pack again"
        )
    # copies: what is read lies in the file, which may be overwritten
    return {name: tensor.clone() for name, tensor in tensors.items()}


def write_pack(folder: Path, student: Student, architecture: Architecture) -> None:
    """Write a student's pack over one that is there; UserError where it cannot be written."""

    def write(place: Path) -> None:
        weights = place / PACK_WEIGHTS
        write_tensors(weights, own_tensors(student))
        pack = Pack(architecture=architecture, sha256=sha256_of(weights))
        write_json(place / PACK_FILE, pack.model_dump(mode="json"))

    _put(folder, write)


def _put(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside its place and move it there, over one that is there."""
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    try:
        write(new)
        with suppress(FileNotFoundError):
            os.rename(folder, old)
        os.rename(new, folder)
    except OSError as error:
        with suppress(OSError):  # there is none where nothing was in the place
            os.rename(old, folder)
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; choose another place"
        ) from error
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
