"""The tensors of a checkpoint by name, however it was saved; code in a file never runs."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nettailor.core.errors import UserError
from nettailor.core.printable import printable

_PICKLE_SUFFIXES = (".pth", ".pth.tar", ".pt", ".bin", ".ckpt")
# As timm looks for them: averaged weights come before raw ones.
_AVERAGED = ("state_dict_ema", "model_ema")
_CONTAINERS = (*_AVERAGED, "state_dict", "model")
# What data parallelism, torch.compile, Lightning and transformers put before every name.
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|model|timm_model)\.)+")
_DEEPEST = 3  # containers in each other; a pickle can hold itself
_COUNTER = "n_averaged"  # of torch's AveragedModel


class Checkpoint(NamedTuple):
    """Tensors by name, without wrappers' prefixes; averaged: they are the EMA of the training."""

    tensors: dict[str, Tensor]
    averaged: bool


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a .safetensors, .pth, .pth.tar, .pt, .bin or .ckpt file.

    Raises UserError for anything but a readable file of tensors.
    """
    averaged = False
    if path.name.endswith(".safetensors"):
        content: Any = _read_safetensors(path)
    elif path.name.endswith(_PICKLE_SUFFIXES):
        content = _read_pickle(path)
        for _ in range(_DEEPEST):
            if found := _container(content):
                averaged = averaged or found in _AVERAGED
                content = content[found]
    else:
        raise UserError(
            f"weights file {path}: its name ends in {path.suffix!r}; "
            f"expected .safetensors, {', '.join(_PICKLE_SUFFIXES)}"
        )
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise UserError(
            f"weights file {path} does not hold a state dict: expected names with tensors, bare "
            f"or under {', '.join(map(repr, _CONTAINERS))}"
        )
    return Checkpoint(_unwrapped(content, path), averaged)


def require_finite(tensors: Mapping[str, Tensor], origin: str) -> None:
    """Raise UserError, which names the first one, where a tensor holds NaN or infinity."""
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all()
    ]
    if bad:
        more = f" (and {len(bad) - 1} tensors more)" if len(bad) > 1 else ""
        raise UserError(
            f"{origin}: {printable(bad[0])}{more} holds values that are not finite (NaN or "
            "infinity), expected numbers: its training diverged or the file is damaged; give "
            "another checkpoint"
        )


def _container(content: object) -> str | None:
    """The key under which a checkpoint holds the state; None where it is the state itself."""
    if not isinstance(content, dict):
        return None
    return next((key for key in _CONTAINERS if isinstance(content.get(key), dict)), None)


def _unwrapped(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    plain = {_WRAPPERS.sub("", name): t for name, t in state.items() if name != _COUNTER}
    if len(plain) < len(state.keys() - {_COUNTER}):
        raise UserError(
            f"weights file {path} holds several networks whose names differ by a prefix alone: "
            "save the state_dict() of one of them"
        )
    return plain


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"weights file {path} is not a readable safetensors file ({error}); nothing was run "
            "from it: fetch it again"
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        # timm's training script saves its arguments, which are plain values
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged pickle can make the reader fail in any way.
    except Exception as error:
        blocked = re.search(r"GLOBAL (\S+)", str(error))
        if blocked:
            raise UserError(
                f"weights file {path} asks for {blocked[1]}, which was blocked: nothing was run "
                "from it; expected tensors alone: save model.state_dict() only, or use a "
                ".safetensors file"
            ) from error
        raise UserError(
            f"weights file {path} is damaged or not a PyTorch checkpoint; nothing was run from "
            "it: fetch it again, or use a .safetensors file"
        ) from error
