"""Command lines: every settings key is a flag, and the flags override the YAML file."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from nettailor.core import ranks
from nettailor.core.config import ROADS, STAGES, RunConfig, as_settings, flat, keys
from nettailor.core.errors import UserError, nearest
from nettailor.core.interruption import Interrupted, catch_signals
from nettailor.core.memory import is_out_of_memory
from nettailor.core.settings import parse_yaml, read_settings, set_key, validate
from nettailor.core.trainer import NotFiniteError

EXIT_BAD_INPUT = 2
EXIT_NOT_FINITE = 3
EXIT_SOME_FAILED = 4  # of the images, or of the runs of a sweep; the others are done
EXIT_PEER_LOST = 5


@dataclass(frozen=True)
class CommandFlags:
    """What a command line holds beside settings.

    overwrite: whether a run that is there is discarded. own: what the command alone takes, by name.
    """

    overwrite: bool
    own: Mapping[str, Any]


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are UserErrors like all others, and whose paths know `~`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.register("type", Path, lambda text: Path(os.path.expanduser(text)))

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


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
        del short["epochs"]  # `--epochs` is a flag of its own: all stages at once
    return short


def _command(prog: str) -> str:
    return prog.split()[-1].rsplit(".", 1)[-1]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def build_parser(
    prog: str,
    description: str,
    own: Mapping[str, Mapping[str, Any]],
    *,
    discards: bool,
    unset: Mapping[str, Any],
) -> Parser:
    """A parser with a command's own arguments, `--config`, `--overwrite`, `--epochs`, and a flag
    for every key; the help of a command that discards no run keeps quiet about `--overwrite`.

    unset: what the help says that a key is unless it is set, by dotted key.
    """
    parser = Parser(
        prog=prog,
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Lists are written as in YAML: --prune.remove '[4, 8]'. A value that begins with a "
        "minus\nsign needs an equals sign: --gamma=-1e-3. Exit codes: 0 done, 2 bad input,\n"
        "3 training stopped by a number that is not finite, 4 some runs of a sweep failed,\n5 "
        "another process of the run ended, 130 or 143 interrupted or terminated: the same command\n"
        "goes on from what is saved.",
    )
    for name, options in own.items():
        parser.add_argument(name, **options)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML settings: a file or the name of a shipped one (default: digits, or folder "
        "when --data names something else)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="discard what the run folder holds and start anew" if discards else argparse.SUPPRESS,
    )
    parser.add_argument(
        "--epochs",
        metavar="N",
        help="epochs of every stage at once: teacher, student, fine-tuning after the cut, and all "
        "other networks; a warm-up of the settings file is shortened to fit",
    )
    short = {dotted: leaf for leaf, dotted in short_names(_command(prog)).items()}
    groups: dict[str, Any] = {}
    for dotted, field in keys():
        section = dotted.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(f"{section} settings" if section else "run")
        names = [_flag(dotted)]
        if dotted in short and short[dotted] != dotted:
            names.insert(0, _flag(short[dotted]))
        names = [name for name in names if name not in own]
        default = unset.get(dotted)
        shown = json.dumps(default) if default is None or type(default) is bool else str(default)
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
    """A flag's text as YAML reads it, except where the key takes text, or text and null."""
    annotation = {name: field.annotation for name, field in keys()}[dotted]
    if annotation == str | None:
        return None if text in ("", "~", "null") else text
    return text if annotation is str else _plain_value(_flag(dotted), text)


def _plain_value(flag: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{flag}: cannot read {text!r} as a value") from error


def as_called(prog: str) -> str:
    """The name of the program in its help, as its user started it.

    `prog` is `python -m nettailor.teach`, say; the same command is also `nettailor teach`.
    """
    command = _command(prog)
    script = Path(sys.argv[0])
    if script.stem == "nettailor":
        return f"nettailor {command}"
    if script.parts[-2:] == ("nettailor", "__main__.py"):
        return f"python -m nettailor {command}"
    return prog


def parse(
    prog: str,
    description: str,
    argv: Sequence[str],
    own: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    discards: bool = True,
) -> tuple[RunConfig, CommandFlags]:
    """The checked settings of a command line, and the flags beside them.

    Args:
        prog: such as `python -m nettailor.teach`.
        description: what the command does.
        argv: the words after the command.
        own: what the command takes beside settings: names of arguments with the options of
            `argparse.ArgumentParser.add_argument`.
        discards: whether the command discards runs; if not, it refuses `--overwrite` itself.

    Raises UserError for unknown flags, and for all faults of the settings at once.
    """
    own = own or {}
    parser = build_parser(
        as_called(prog), description, own, discards=discards, unset=_unset(list(argv))
    )
    arguments, unknown = parser.parse_known_intermixed_args(list(argv))
    given = vars(arguments)
    source, overwrite, epochs = given.pop("config"), given.pop("overwrite"), given.pop("epochs")
    names = [name.lstrip("-").replace("-", "_") for name in own]
    flags = CommandFlags(overwrite, {name: given.pop(name) for name in names})
    if unknown:
        raise UserError("\n".join(_unknown_flags(unknown, _command(prog))))
    if overwrite and ranks.restarts():
        raise UserError(
            "--overwrite with torchrun --max-restarts: a restart would discard what was trained "
            "before it; leave one of the two out"
        )
    settings = read_settings(_source(source, given.get("data")))
    if epochs is not None:
        _set_all_epochs(settings, _plain_value("--epochs", epochs))
    for dotted, text in given.items():
        set_key(settings, dotted, _value(dotted, text))
    return validate(settings), flags


def _source(given: str | None, data: str | None) -> str:
    """The settings file of a command line that says so, or names these data."""
    if given is not None:
        return given
    return "digits" if data is None or data.lower() == "digits" else "folder"


def _unset(argv: list[str]) -> dict[str, Any]:
    """What the keys are that a command line does not set, for its help; nothing without `--help`.

    Raises UserError for a settings file that is no good.
    """
    if not {"-h", "--help"} & set(argv):
        return {}
    parser = Parser(allow_abbrev=False, add_help=False)
    for flag in ("--config", "--data"):
        parser.add_argument(flag, nargs="?")
    given, _ = parser.parse_known_args(argv)
    return flat(as_settings(validate(read_settings(_source(given.config, given.data)))))


def _set_all_epochs(settings: dict[str, Any], epochs: Any) -> None:
    for stage in STAGES:
        set_key(settings, f"{stage}.epochs", epochs)
        warmup = settings[stage].get("warmup_epochs")
        if type(epochs) is type(warmup) is int and warmup >= epochs >= 1:
            set_key(settings, f"{stage}.warmup_epochs", epochs - 1)


def _unknown_flags(words: Sequence[str], command: str) -> list[str]:
    """A line for each flag that does not exist, and for each stray word."""
    lines = []
    after_flag = False
    for word in words:
        if word.startswith("--"):
            lines.append(_unknown_flag(word, command))
        elif not after_flag:  # else it is the value of the flag before
            lines.append(f"{word!r}: not a flag; flags look like --gamma 0.3")
        after_flag = word.startswith("--") and "=" not in word
    return lines


def _unknown_flag(word: str, command: str) -> str:
    flag = word.split("=")[0].replace("_", "-")
    sharing = [
        dotted
        for dotted, _ in keys()
        if _flag(dotted).endswith(f".{flag[2:]}") and dotted.partition(".")[0] not in ROADS
    ]
    if sharing:
        return f"{word}: say which one: {', '.join(_flag(dotted) for dotted in sharing)}"
    names = [
        "config",
        "overwrite",
        "epochs",
        *short_names(command),
        *(dotted for dotted, _ in keys()),
    ]
    known = [_flag(name) for name in names]
    return f"{word}: unknown flag{nearest(flag, known, count=1) or '; --help lists all flags'}"


def run_command(main: Callable[[list[str]], None]) -> NoReturn:
    """Run a command's main on the command line and leave with its exit code.

    What a user can mend becomes plain text on stderr, without a traceback.
    """
    who = f"process {ranks.rank()}: " if ranks.rank() else ""
    catch_signals()
    try:
        main(sys.argv[1:])
        ranks.leave()
        code, message = 0, ""
    except UserError as error:
        code, message = EXIT_BAD_INPUT, f"error: {error}"
    except NotFiniteError as error:
        code, message = EXIT_NOT_FINITE, f"error: {error}"
    except ranks.PeerLostError as error:
        code, message = EXIT_PEER_LOST, f"error: {error}"
    except OSError as error:
        if error.filename is None:
            raise
        # no permission, a name that is too long: what the system refuses is the user's to mend
        message = f"error: {error.filename}: {error.strerror}; mend that or give another place"
        code = EXIT_BAD_INPUT
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # noticed where nobody knows how many images are at work, such as in loading them
        message = (
            "error: not enough memory; what was saved is kept: give a lower --batch-size or "
            f"--workers ({' '.join(str(error).split())})"
        )
        code = EXIT_BAD_INPUT
    except Interrupted as interruption:
        message = "interrupted: the same command, given again without --overwrite, goes on from "
        code, message = interruption.code, f"{message}what is saved"
    if message:
        print(f"{who}{message}", file=sys.stderr)
    sys.exit(code)
