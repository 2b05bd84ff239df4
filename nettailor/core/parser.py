"""The parser of a command: a flag for every settings key, a short help and a whole one."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Collection, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

from nettailor.core.config import ROADS, keys
from nettailor.core.errors import UserError
from nettailor.core.faults import choices

_WIDEST = 100  # columns
_NOTES = """\
A key whose default is not shown is null. A section's name may be left out where one section alone
has the key, split and limit aside: --gamma for --student.gamma. Lists are written as in YAML:
'[4, 8]'; a value that begins with a minus sign needs an equals sign: --gamma=-1e-3. Exit codes:
0 done, 2 bad input, 3 training met a number that is not finite, 4 some runs of a sweep failed,
5 another process of the run ended, 130 or 143 stopped: the same command goes on."""


class _OneName(argparse.HelpFormatter):
    """Shows the last of a flag's names only: the long or dotted one."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        values = "" if action.nargs == 0 else f" {self._format_args(action, action.dest.upper())}"
        return action.option_strings[-1] + values


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are UserErrors like all others, and whose paths know `~`."""

    def __init__(self, prog: str, description: str, **options: Any) -> None:
        width = min(_WIDEST, shutil.get_terminal_size().columns)
        formatter = partial(_OneName, width=width, max_help_position=32)
        super().__init__(
            prog=as_called(prog),
            description=description,
            allow_abbrev=False,
            add_help=False,
            formatter_class=formatter,
            **options,
        )
        self.register("type", Path, lambda text: Path(os.path.expanduser(text)))

    def add_help_flags(self, more: str) -> None:
        """Add --help, --help-all and --version; `more` is what --help-all shows."""
        group = self.add_argument_group("help")
        group.add_argument("-h", "--help", action="help", help="show this")
        group.add_argument("--help-all", action="help", help=more)
        group.add_argument("--version", action="version", version=versioned(), help="show it")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def versioned() -> str:
    """The program's name and version."""
    try:
        return f"nettailor {version('nettailor')}"
    except PackageNotFoundError:  # run from its sources
        return "nettailor, not installed"


def command_of(prog: str) -> str:
    """`teach` of `python -m nettailor.teach`."""
    return prog.split()[-1].rsplit(".", 1)[-1]


def as_called(prog: str) -> str:
    """The name of the program in its help, as its user started it.

    `prog` is `python -m nettailor.teach`, say; the same command is also `nettailor teach`.
    """
    script = Path(sys.argv[0])
    if script.stem == "nettailor":
        return f"nettailor {command_of(prog)}"
    if script.parts[-2:] == ("nettailor", "__main__.py"):
        return f"python -m nettailor {command_of(prog)}"
    return prog


def as_flag(name: str) -> str:
    """`--data-dir` of `data_dir`."""
    return "--" + name.replace("_", "-")


def short_names(command: str = "") -> dict[str, str]:
    """Bare flag names that stand for exactly one dotted key: `gamma` for `student.gamma`.

    The keys of `split` and `limit` have none: a bare `--train` would read like a folder. Those of
    a road have them in the command of its name only, and take precedence there.
    """
    leaves: dict[str, list[str]] = {}
    for dotted, _ in keys():
        section, _, leaf = dotted.rpartition(".")
        if section not in ("split", "limit", *ROADS):
            leaves.setdefault(leaf, []).append(dotted)
    short = {leaf: names[0] for leaf, names in leaves.items() if len(names) == 1}
    if command in ROADS:
        own = [dotted for dotted, _ in keys() if dotted.startswith(f"{command}.")]
        short |= {dotted.rpartition(".")[2]: dotted for dotted in own}
        short.pop("epochs", None)  # `--epochs` is a flag of its own: all stages at once
    return short


def build_parser(
    prog: str,
    description: str,
    own: Mapping[str, Mapping[str, Any]],
    *,
    common: Collection[str],
    sections: Collection[str],
    everything: bool,
    discards: bool,
    unset: Mapping[str, Any],
) -> Parser:
    """A parser with a command's own arguments, `--config`, `--overwrite`, `--epochs`, and a flag
    for every key.

    Args:
        own: as for `nettailor.core.flags.parse`, like common, sections and discards.
        everything: whether the help has every key.
        unset: what the help says that a key is unless it is set, by dotted key.
    """
    places = [options["metavar"] for name, options in own.items() if not name.startswith("-")]
    usage = " ".join(["%(prog)s", *(f"[{place} ...]" for place in places), "[flags]"])
    parser = Parser(prog, description, usage=usage, epilog=_NOTES)
    declared = dict(keys())
    short = {dotted: as_flag(leaf) for leaf, dotted in short_names(command_of(prog)).items()}
    first = parser.add_argument_group("mostly used")

    def add(dotted: str, group: Any, *, shown: bool) -> None:
        text, default = declared[dotted].description or "", unset.get(dotted)
        if default is not None:
            shown_as = default if isinstance(default, str) else json.dumps(default)
            text += f" (default: {shown_as})"
        names = dict.fromkeys([short.get(dotted, as_flag(dotted)), as_flag(dotted)])
        group.add_argument(
            *(name for name in names if name not in own),
            dest=dotted,
            metavar=choices(dotted),
            help=text.replace("%", "%%") if shown else argparse.SUPPRESS,
            default=argparse.SUPPRESS,
            **({"nargs": "?", "const": "true"} if declared[dotted].annotation is bool else {}),
        )

    for dotted in common:
        add(dotted, first, shown=True)
    first.add_argument(
        "--epochs",
        metavar="N",
        help="epochs of every stage at once; shortens a file's warm-up to fit",
    )
    for name, options in own.items():
        first.add_argument(name, **options)
    first.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file of settings, or a shipped one's name (default: digits; folder for other "
        "--data)",
    )
    first.add_argument(
        "--overwrite",
        action="store_true",
        help="discard what the run folder holds and start anew" if discards else argparse.SUPPRESS,
    )
    groups: dict[str, Any] = {}
    for dotted in declared:
        section = dotted.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(section or "run")
        if dotted not in common:
            add(dotted, groups[section], shown=everything or section in sections)
    parser.add_help_flags("show every key, by section of the settings file")
    return parser
