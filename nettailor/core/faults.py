"""The words in which a fault of the settings is told: key, value and what is allowed."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from reprlib import Repr
from typing import Any

from pydantic_core import ErrorDetails

from nettailor.core.config import RunConfig, keys
from nettailor.core.errors import nearest

# How a message shows a value: whole in all ordinary cases, never page-long.
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80

# in words, and in short
_KINDS = {
    "integer": ("a whole number", "N"),
    "number": ("a number", "X"),
    "string": ("text", "TEXT"),
    "boolean": ("true or false", "true|false"),
    "null": ("null", "null"),
    "array": ("a list", "LIST"),
    "object": ("a section of keys", ""),
}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def shown(value: object) -> str:
    """A value as a message shows it: in one line and cut where it is long."""
    return _SHORT.repr(list(value) if isinstance(value, tuple) else value)


def fault_line(fault: ErrorDetails) -> str:
    """One line for one of pydantic's faults: key, value, what is allowed, nearest spelling."""
    kind, location = fault["type"], [str(part) for part in fault["loc"]]
    if kind == "invalid_key":
        return f"{'.'.join(map(_printable, location))}: a key must be text"
    if kind == "extra_forbidden":
        unknown = ".".join(location)
        return f"{_printable(unknown)}: unknown key{_nearest_key(unknown)}"
    known = {name for name, _ in keys()}
    sections = {name.rpartition(".")[0] for name in known}
    # pydantic appends list positions and the tried alternatives to the key's own place
    while ".".join(location) not in known | sections:
        location.pop()
    dotted = ".".join(location)
    place = f"{dotted} = {shown(fault['input'])}"
    if kind == "value_error":
        # a section's fault is told by its message; its value is all of its keys
        return (
            f"{place if dotted in known else dotted}: {fault['msg'].removeprefix('Value error, ')}"
        )
    finite = "finite: " if kind == "finite_number" else ""
    return f"{place}: must be {finite}{_in_words(_declared(dotted))}"


def _printable(part: str) -> str:
    """A key as it was given, or in quotes and on one line where it is no plain word."""
    plain = re.fullmatch(r"[\w.-]+", part) and len(part) <= _SHORT.maxstring
    return part if plain else _SHORT.repr(part)


def _nearest_key(name: str) -> str:
    """A hint with the closest dotted keys; a bare `gama` finds `student.gamma`."""
    known = [dotted for dotted, _ in keys()]
    hint = nearest(name, known)
    if not hint:
        by_leaf = {dotted.rpartition(".")[2]: dotted for dotted in known}
        for leaf in get_close_matches(name.rpartition(".")[2], by_leaf, n=1):
            hint = nearest(by_leaf[leaf], known, count=1)
    return hint or "; --help-all lists all keys"


_schema = cache(RunConfig.model_json_schema)


def _declared(dotted: str) -> Any:
    """A key or a section as a node of a JSON schema."""
    node: Any = _schema()
    for name in dotted.split("."):
        node = node["properties"][name]
        if "$ref" in node:
            node = _schema()["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def choices(dotted: str) -> str:
    """What a key takes, in short: `N|null`, or `route|rank`."""
    return _in_short(_declared(dotted))


def _in_short(node: Mapping[str, Any]) -> str:
    if "anyOf" in node:
        return "|".join(_in_short(option) for option in node["anyOf"])
    if "prefixItems" in node:
        return f"[{', '.join(_in_short(item) for item in node['prefixItems'])}]"
    if "items" in node:
        return f"[{_in_short(node['items'])}, ...]"
    plain = node.get("examples") or [_KINDS[node["type"]][1]]
    return "|".join(node.get("enum", [node["const"]] if "const" in node else plain))


def _in_words(node: Mapping[str, Any]) -> str:
    """What a node of a JSON schema allows."""
    if "anyOf" in node:
        return ", or ".join(_in_words(option) for option in node["anyOf"])
    if "enum" in node:
        return "one of " + ", ".join(str(value) for value in node["enum"])
    if "const" in node:
        return repr(node["const"])
    kind, _ = _KINDS[node["type"]]
    if "examples" in node:
        return f"{kind} such as {node['examples'][0]}"
    if "prefixItems" in node:
        return f"{kind} of {len(node['prefixItems'])}, each {_in_words(node['prefixItems'][0])}"
    if "items" in node:
        return f"{kind}, each {_in_words(node['items'])}"
    bounds = [f"{sign} {node[key]:.10g}" for key, sign in _BOUNDS.items() if key in node]
    return f"{kind} {' and '.join(bounds)}".rstrip()
