"""The state of a training stage on disk: checksummed, flushed, the good one before it kept."""

import hashlib
import io
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from nettailor.core.errors import UserError
from nettailor.core.files import write_atomically

_MAGIC = b"nettailor state 2\n"
_DIGEST = hashlib.sha256
_HEADER = len(_MAGIC) + _DIGEST().digest_size


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state: tensors, numbers, text, lists, tuples and dicts of them.

    Written beside, flushed, then moved into place; the state that was there is kept under the name
    that `before` gives.
    """
    content = io.BytesIO()
    torch.save(dict(state), content)
    payload = content.getbuffer()
    digest = _DIGEST(payload).digest()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(_MAGIC + digest)
            file.write(payload)

    write_atomically(path, write, before=before(path))


def before(path: Path) -> Path:
    """Where the state before the latest is kept."""
    return path.with_name(f"{path.stem}.before{path.suffix}")


def read_state(path: Path, keys: Collection[str] = ()) -> dict[str, Any]:
    """Read a training state without running anything from it.

    Raises UserError for a file that is damaged, that holds anything else, or that lacks one of
    `keys`.
    """
    try:
        content = path.read_bytes()
        payload = content[_HEADER:]
        if content[:_HEADER] != _MAGIC + _DIGEST(payload).digest():
            raise ValueError("its checksum is wrong")
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not state.keys() >= set(keys):
            raise ValueError("something is missing in it")
    except Exception as error:  # a damaged pickle can make the reader fail in any way
        raise UserError(
            f"{path}: damaged, or no training state of this version (nothing in it was run); "
            "delete it to train this stage again, or give --overwrite"
        ) from error
    return state


def latest_state(
    path: Path, keys: Collection[str], warn: Callable[[str], None]
) -> dict[str, Any] | None:
    """The latest good state of a stage, or None where there is none yet.

    Args:
        path: of the latest; the one before it is read where that is damaged or not there.
        keys: that a state has.
        warn: told of a damaged latest.

    Raises:
        UserError: no good one is left.
    """
    fault: UserError | None = None
    for file in (path, before(path)):
        if not file.exists():
            continue
        try:
            state = read_state(file, keys)
        except UserError as error:
            fault = fault or error
            continue
        if fault is not None:
            warn(f"warning: {path} is damaged; training goes on from the state before it")
        return state
    if fault is not None:
        raise fault
    return None
