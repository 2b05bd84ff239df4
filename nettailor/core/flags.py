"""Command lines: every settings key is a flag, and the flags override the YAML file."""

import argparse
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from nettailor.core import launch
from nettailor.core.config import ROADS, STAGES, RunConfig, as_settings, flat, keys
from nettailor.core.errors import NotFiniteError, PeerLostError, UserError, nearest
from nettailor.core.faults import shown
from nettailor.core.interruption import Interrupted, catch_signals
from nettailor.core.memory import is_out_of_memory
from nettailor.core.parser import as_called, as_flag, build_parser, command_of, short_names
from nettailor.core.settings import parse_yaml, read_settings, set_key, validate

EXIT_SOME_FAILED = 4  # of the images, or of the runs of a sweep; the others are done


@dataclass(frozen=True)
class CommandFlags:
    """What a command line holds beside settings.

    overwrite: whether a run that is there is discarded. own: what the command alone takes, by name.
    typed: the command line, to be given again.
    """

    overwrite: bool
    own: Mapping[str, Any]
    typed: str


def _value(dotted: str, text: str) -> Any:
    """A flag's text as YAML reads it, except where the key takes text, or text and null."""
    annotation = dict(keys())[dotted].annotation
    if annotation == str | None:
        return None if text in ("", "~", "null") else text
    return text if annotation is str else _plain_value(as_flag(dotted), text)


def _plain_value(flag: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{flag}: cannot read {text!r} as a value") from error


def parse(
    prog: str,
    description: str,
    argv: Sequence[str],
    own: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    common: Collection[str] = (),
    sections: Collection[str] = (),
    discards: bool = True,
) -> tuple[RunConfig, CommandFlags]:
    """The checked settings of a command line, and the flags beside them.

    Args:
        prog: such as `python -m nettailor.teach`.
        description: what the command does.
        argv: the words after the command.
        own: what the command takes beside settings: names of arguments with the options of
            `argparse.ArgumentParser.add_argument`.
        common: the keys that the help shows first.
        sections: those whose keys it shows as well; --help-all shows all.
        discards: whether the command discards runs; if not, it refuses `--overwrite` itself.

    Raises UserError for unknown flags, and for all faults of the settings at once.
    """
    own = own or {}
    parser = build_parser(
        prog,
        description,
        own,
        common=common,
        sections=sections,
        everything="--help-all" in argv,
        discards=discards,
        unset=_unset(list(argv)),
    )
    arguments, unknown = parser.parse_known_intermixed_args(list(argv))
    given = vars(arguments)
    source, overwrite, epochs = given.pop("config"), given.pop("overwrite"), given.pop("epochs")
    names = [name.lstrip("-").replace("-", "_") for name in own]
    typed = shlex.join([*as_called(prog).split(), *argv])
    flags = CommandFlags(overwrite, {name: given.pop(name) for name in names}, typed)
    if unknown:
        raise UserError("\n".join(_unknown_flags(unknown, command_of(prog))))
    if overwrite and launch.restarts():
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
    """What the keys are that a command line does not set, where it asks for help.

    Raises UserError for a settings file that is no good.
    """
    if not {"-h", "--help", "--help-all"} & set(argv):
        return {}
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    for flag in ("--config", "--data"):
        parser.add_argument(flag, nargs="?")
    given, _ = parser.parse_known_args(argv)
    return flat(as_settings(validate(read_settings(_source(given.config, given.data)))))


def _set_all_epochs(settings: dict[str, Any], epochs: Any) -> None:
    if type(epochs) is not int or epochs < 1:
        raise UserError(f"--epochs {shown(epochs)}: must be a whole number ≥ 1")
    for stage in STAGES:
        set_key(settings, f"{stage}.epochs", epochs)
    warmup = settings["teacher"].get("warmup_epochs")
    if type(warmup) is int and warmup >= epochs:
        set_key(settings, "teacher.warmup_epochs", epochs - 1)


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
        if as_flag(dotted).endswith(f".{flag[2:]}") and dotted.partition(".")[0] not in ROADS
    ]
    if sharing:
        return f"{word}: say which one: {', '.join(as_flag(dotted) for dotted in sharing)}"
    names = ["config", "overwrite", "epochs", *short_names(command), *dict(keys())]
    # a key of that name in another section says more than one that is spelled alike
    leaf = "." + flag[2:].rpartition(".")[2]
    elsewhere = [as_flag(name) for name in dict(keys()) if as_flag(name).endswith(leaf)]
    like = elsewhere if len(elsewhere) == 1 else map(as_flag, names)
    hint = nearest(flag, like, count=1)
    return f"{word}: unknown flag{hint or '; --help-all lists all flags'}"


def run_command(main: Callable[[list[str]], None]) -> NoReturn:
    """Run a command's main on the command line and leave with its exit code.

    What a user can mend becomes plain text on stderr, without a traceback.
    """
    who = f"process {launch.rank()}: " if launch.rank() else ""
    catch_signals()
    try:
        main(sys.argv[1:])
        code, message = 0, ""
    except (UserError, NotFiniteError, PeerLostError) as error:
        code, message = error.code, f"error: {error}"
    except OSError as error:
        if error.filename is None:
            raise
        # no permission, a name that is too long: what the system refuses is the user's to mend
        message = f"error: {error.filename}: {error.strerror}; mend that or give another place"
        code = UserError.code
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # noticed where nobody knows how many images are at work, such as in loading them
        message = (
            "error: not enough memory; what was saved is kept: give a lower --batch-size or "
            f"--workers ({' '.join(str(error).split())})"
        )
        code = UserError.code
    except Interrupted as interruption:
        message = "interrupted: the same command, given again without --overwrite, goes on from "
        code, message = interruption.code, f"{message}what is saved"
    if message:
        print(f"{who}{message}", file=sys.stderr)
    sys.exit(code)
