"""Settings on their way to a RunConfig: YAML, the shipped files, and the check of every key."""

import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nettailor.core.config import RunConfig, as_settings
from nettailor.core.errors import UserError, nearest
from nettailor.core.faults import fault_line, shown


class _YamlLoader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as text; here it is the number that people mean.

    A key that is there twice is refused: of two blocks of settings one would be lost.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {key.value!r} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str) -> Any:
    """The plain data of a YAML text; raises `yaml.YAMLError`."""
    try:
        return yaml.load(text, Loader=_YamlLoader)
    # PyYAML lets through what its constructors raise, on `2001-99-99` or `!!int x` say.
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise yaml.YAMLError(f"no value: {error}") from error


def shipped() -> list[str]:
    """Names of the shipped settings, without `.yaml`."""
    folder = resources.files("nettailor.configs")
    return sorted(
        item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")
    )


def read_settings(source: str) -> dict[str, Any]:
    """The keys of a YAML file: a path, or the name of a shipped one.

    Raises UserError when there is no such file or it is no YAML mapping.
    """
    path = Path(os.path.expanduser(source))
    try:
        if path.is_file():
            text = path.read_text(encoding="utf-8")
        elif source in shipped():
            text = (
                resources.files("nettailor.configs")
                .joinpath(f"{source}.yaml")
                .read_text(encoding="utf-8")
            )
        else:
            raise UserError(
                f"--config: no file {source!r}{nearest(source, shipped())}; "
                f"give a YAML file or one of {', '.join(shipped())}"
            )
        content = parse_yaml(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config: cannot read {source}: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"--config: {source} must be a YAML mapping of keys to values")
    return content


def set_key(settings: dict[str, Any], dotted: str, value: Any) -> None:
    """Put a value at a dotted key, making the sections on the way.

    Raises UserError where a plain value is in the place of a section.
    """
    *sections, leaf = dotted.split(".")
    for name in sections:
        inner = settings.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UserError(f"settings: {name} = {shown(inner)}: must be a section of keys")
        settings = inner
    settings[leaf] = value


def validate(settings: Mapping[str, Any]) -> RunConfig:
    """Check settings against the declared keys.

    Raises UserError with one line per fault, all faults at once.
    """
    try:
        return RunConfig.model_validate(dict(settings))
    except ValidationError as error:
        # a key that may be of several kinds fails once for each of them
        faults = dict.fromkeys(fault_line(item) for item in error.errors(include_url=False))
        raise UserError("settings: " + "\n".join(faults)) from error


def changed(config: RunConfig, **changes: object) -> RunConfig:
    """The same settings but for these keys, `__` for their dots; UserError as `validate`."""
    settings = as_settings(config)
    for key, value in changes.items():
        set_key(settings, key.replace("__", "."), value)
    return validate(settings)
