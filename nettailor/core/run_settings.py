"""The settings of a run as its `config.yaml` holds them: where it lies, and whether it is ours."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from nettailor.core.config import RunConfig, flat, keys
from nettailor.core.errors import UserError
from nettailor.core.printable import some
from nettailor.core.settings import parse_yaml

CONFIG_FILE = "config.yaml"
_EARLIER_NAMES = ("class_weights", "sampling")  # that settings of earlier versions had


def settings_of(folder: Path) -> Path | None:
    """The `config.yaml` of the run that a folder is, or lies in as `candidates/<cut>` does."""
    places = (folder, *folder.resolve().parents[:2])
    return next((path for place in places if (path := place / CONFIG_FILE).is_file()), None)


def holds_runs(folder: Path, depth: int = 3) -> bool:
    """Whether a folder is a run, or holds some as `<out>`, `<out>/<task>` and `<kind>` do."""
    if is_run(folder / CONFIG_FILE):
        return True
    with suppress(OSError), os.scandir(folder) as entries:
        inside = (Path(entry) for entry in entries if depth and entry.is_dir())
        return any(holds_runs(sub, depth - 1) for sub in inside)
    return False


def read_config(path: Path) -> dict[str, Any]:
    """The content of a `config.yaml`; raises UserError where it is no readable mapping."""
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: it is no YAML; restore it") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings of a run; restore it")
    return content


def is_run(path: Path) -> bool:
    """Whether a `config.yaml` is NetTailor's: of its keys, of this version or an earlier one."""
    try:
        content = read_config(path)
    except UserError:
        return False
    ours = {*RunConfig.model_fields, *_EARLIER_NAMES}
    return {"data", "backbone"} <= content.keys() <= ours


def require_current(settings: Mapping[str, Any], place: Path, remedy: str) -> None:
    """Raise UserError where the settings of a run have keys that settings no longer have."""
    known = {name for name, _ in keys()}
    gone = sorted(key for key in flat(settings) if key not in known)
    if gone:
        raise UserError(
            f"{place} holds a run of an earlier version, whose settings this one does not have "
            f"({some(gone, 3)}); {remedy}"
        )


def unlike(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In words, the keys in which two flat settings differ; nothing where they are the same.

    A key that an earlier version did not have is the same as one that is None, which sets nothing.
    """
    return "; ".join(
        f"{key} is {there.get(key, 'absent')!r} there and {here.get(key, 'absent')!r} here"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    )
