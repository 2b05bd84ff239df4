"""Files that are whole or not there: written beside, flushed, moved into place."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nettailor.core import ranks
from nettailor.core.errors import UserError
from nettailor.core.printable import printable

_FAULTS_SHOWN = 5
_LONGEST_FAULT = 200  # characters; a name in a file can be of any length


def write_atomically(
    path: Path, write: Callable[[Path], object], *, before: Path | None = None
) -> None:
    """Call `write` with a temporary neighbour of `path`, then move it into place.

    Of several ranks one writes, once all have come here; all go on when the file is there.

    Args:
        before: where the file that is replaced is kept, if anywhere.

    Raises UserError when the file cannot be written; what it held before stays.
    """
    ranks.from_main(lambda: _write(path, write, before))


def _write(path: Path, write: Callable[[Path], object], before: Path | None) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        if before is not None and path.exists():
            os.replace(path, before)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(
            f"cannot write {path}: {reason}; free the disk, or choose another place"
        ) from error
    finally:
        with suppress(OSError):  # there is none where the folder could not be made
            temporary.unlink()


def is_leftover(path: Path) -> bool:
    """Whether a file is what a process that was killed while it wrote has left."""
    return path.name[:1] == "." and path.suffix == ".tmp"


def _flush_folder(folder: Path) -> None:
    """Bring a move to the disk, where the system lets a folder be flushed."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; names of files that are none come out as they are."""
    content = text.encode("utf-8", "surrogateescape")
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file's content atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically; NaN and infinity are refused with ValueError."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Read JSON; raises UserError that names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: no readable JSON ({error}); delete it or restore it") from error


def write_weights(path: Path, network: nn.Module) -> None:
    """Write every parameter and buffer of a network's state as safetensors, atomically."""
    write_tensors(path, network.state_dict())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name as safetensors, atomically; one of several names under each of them."""
    plain: dict[str, Tensor] = {}
    written: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().contiguous()
        place = own.untyped_storage().data_ptr()
        plain[name] = own.clone() if place in written else own
        written.add(place)
    # not safetensors' own writer, whose files nobody else may read
    write_bytes(path, save(plain))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises UserError when it is missing or damaged."""
    with _readable(path):
        return load_file(path)


def require_whole_weights(path: Path) -> None:
    """The same UserError, but only the file's header is read, and held against its length."""
    with _readable(path), safe_open(path, framework="pt"):
        pass


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found") from error
    except (SafetensorError, OSError, ValueError) as error:
        reason = printable(str(error)[:_LONGEST_FAULT])
        raise UserError(
            f"{path}: no readable safetensors file ({reason}); nothing was loaded from it"
        ) from error


def require_exactly(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: Path | str
) -> None:
    """Raise UserError unless names, shapes and data types of two states match one to one.

    It lists what is missing, unexpected or of another shape or type. Values are not looked at:
    `own` may be on the meta device.
    """
    if faults := mismatches(own, given, types=True):
        shown = printable("; ".join(faults[:_FAULTS_SHOWN]))
        more = f" and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
        raise UserError(f"{source}: weights of another network or class count: {shown}{more}")


def mismatches(own: Mapping[str, Tensor], given: Mapping[str, Tensor], *, types: bool) -> list[str]:
    """What a state lacks, has beside, or has of another shape, or data type; a line each."""
    faults = [f"missing {name}" for name in own if name not in given]
    faults += [f"unexpected {name}" for name in given if name not in own]
    for name in filter(given.__contains__, own):
        mine, theirs = own[name], given[name]
        if theirs.shape != mine.shape:
            faults.append(f"{name} is {tuple(theirs.shape)}, expected {tuple(mine.shape)}")
        elif types and theirs.dtype != mine.dtype:
            faults.append(f"{name} is {theirs.dtype}, expected {mine.dtype}")
    return [fault[:_LONGEST_FAULT] for fault in faults]


def load_exactly(network: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Load a state that matches the network's one to one; UserError as in `require_exactly`."""
    require_exactly(network.state_dict(), tensors, source)
    network.load_state_dict(tensors)
