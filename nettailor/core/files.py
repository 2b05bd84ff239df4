"""Files that are whole or not there: written beside, flushed, moved into place."""

import json
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nettailor.core.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary neighbour of `path`, then move it into place.

    Raises UserError when the file cannot be written; what it held before stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    # On a full disk torch raises RuntimeError and safetensors its own kind.
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(
            f"cannot write {path}: {reason}; free the disk, or choose another place"
        ) from error
    finally:
        with suppress(OSError):  # there is none where the folder could not be made
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically; NaN and infinity are refused with ValueError."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; raises UserError that names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: no readable JSON ({error}); delete it or restore it") from error


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state (tensors, numbers, text, lists, dicts) atomically."""
    write_atomically(path, lambda temporary: torch.save(dict(state), temporary))


def read_state(path: Path, keys: Collection[str] = ()) -> dict[str, Any]:
    """Read a training state without running anything from it.

    Raises UserError for a damaged file, one that holds more than plain data, or one that lacks one
    of `keys`.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can make the reader fail in any way
        raise UserError(
            f"{path}: damaged or no training state (nothing in it was run); delete it to train "
            "this stage again, or give --overwrite"
        ) from error
    if not isinstance(state, dict) or not state.keys() >= set(keys):
        raise UserError(f"{path}: holds no training state; delete it to train this stage again")
    return state


def write_weights(path: Path, network: nn.Module) -> None:
    """Write every parameter and buffer of a network's state as safetensors, atomically."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises UserError when it is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: no readable safetensors file ({error}); nothing was loaded from it"
        ) from error


def load_exactly(network: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Load a state whose keys and shapes match the network's one to one.

    Raises UserError that lists what is missing, unexpected or of another shape.
    """
    own = network.state_dict()
    faults = [f"missing {name}" for name in own if name not in tensors]
    faults += [f"unexpected {name}" for name in tensors if name not in own]
    faults += [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise UserError(
            f"{source}: weights of another network or class count: {'; '.join(faults[:5])}{more}"
        )
    network.load_state_dict(tensors)
