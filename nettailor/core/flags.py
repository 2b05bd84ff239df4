"""Command lines: every settings key is a flag, and the flags override the YAML file."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import yaml
from pydantic_core import PydanticUndefined

from nettailor.core.config import (
    RunConfig,
    keys,
    nearest_key,
    parse_yaml,
    read_settings,
    set_key,
    validate,
)
from nettailor.core.errors import UserError, nearest

_STAGES = ("teacher", "student", "prune")


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are UserErrors like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def short_names() -> dict[str, str]:
    """Bare flag names that stand for exactly one dotted key: `gamma` for `student.gamma`."""
    leaves: dict[str, list[str]] = {}
    for dotted, _ in keys():
        leaves.setdefault(dotted.rsplit(".", 1)[-1], []).append(dotted)
    return {leaf: names[0] for leaf, names in leaves.items() if len(names) == 1}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def build_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser with `--config`, `--overwrite`, `--epochs` and a flag for every key."""
    parser = _Parser(
        prog=prog,
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Lists are written as in YAML: --prune.remove '[4, 8]'. Exit codes: 0 done, "
        "2 bad input, 3 training stopped by a number that is not finite.",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML settings: a file or the name of a shipped one (default: digits, or folder "
        "when --data names something else)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="discard what the run folder holds and start anew",
    )
    parser.add_argument(
        "--epochs",
        metavar="N",
        help="epochs of every stage at once: teacher, student and fine-tuning after the cut",
    )
    short = {dotted: leaf for leaf, dotted in short_names().items()}
    groups: dict[str, Any] = {}
    for dotted, field in keys():
        section = dotted.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(f"{section} settings" if section else "run")
        names = [_flag(dotted)]
        if dotted in short and short[dotted] != dotted:
            names.insert(0, _flag(short[dotted]))
        default = field.default
        if default is PydanticUndefined:
            shown = "required"
        else:
            shown = "null" if default is None else str(default)
        help_text = f"{field.description} (unless set: {shown})".replace("%", "%%")
        switch: dict[str, Any] = {"metavar": "VALUE"}
        if field.annotation is bool:
            switch = {"metavar": "BOOL", "nargs": "?", "const": "true"}
        groups[section].add_argument(
            *names,
            dest=dotted,
            help=help_text,
            default=argparse.SUPPRESS,
            **switch,
        )
    return parser


def _value(dotted: str, text: str) -> Any:
    """A flag's text as YAML reads it, except where the key takes text."""
    annotation = {name: field.annotation for name, field in keys()}[dotted]
    if annotation is str:
        return text
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{_flag(dotted)}: cannot read {text!r} as a value") from error


def parse(prog: str, description: str, argv: Sequence[str]) -> tuple[RunConfig, bool]:
    """The checked settings of a command line, and whether `--overwrite` was given.

    Raises UserError for unknown flags, and for all faults of the settings at once.
    """
    parser = build_parser(prog, description)
    arguments, unknown = parser.parse_known_args(list(argv))
    given = vars(arguments)
    source, overwrite, epochs = given.pop("config"), given.pop("overwrite"), given.pop("epochs")
    if unknown:
        raise UserError("\n".join(_unknown_flag(word) for word in unknown))
    if source is None:
        source = "digits" if given.get("data", "digits") == "digits" else "folder"
    settings = read_settings(source)
    if epochs is not None:
        for stage in _STAGES:
            set_key(settings, f"{stage}.epochs", parse_yaml(epochs))
    for dotted, text in given.items():
        set_key(settings, dotted, _value(dotted, text))
    return validate(settings), overwrite


def _unknown_flag(word: str) -> str:
    if not word.startswith("--"):
        return f"{word!r}: not a flag; flags look like --gamma 0.3"
    name = word.removeprefix("--").split("=")[0].replace("-", "_")
    sharing = [dotted for dotted, _ in keys() if dotted.endswith(f".{name}")]
    if sharing:
        return f"{word}: say which one: {', '.join(_flag(dotted) for dotted in sharing)}"
    own = nearest(name, ["config", "overwrite", "epochs"], count=1) or nearest_key(name)
    return f"{word}: unknown flag{own or '; --help lists all flags'}"


def run_command(main: Callable[[list[str]], None]) -> NoReturn:
    """Run a command's main; a UserError becomes one clear message and exit code 2."""
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
