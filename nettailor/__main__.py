"""`nettailor` and `python -m nettailor`: all commands under one name."""

from nettailor.cli.door import later
from nettailor.core.errors import UserError, nearest
from nettailor.core.flags import run_command
from nettailor.core.parser import versioned

_COMMANDS = {
    "teach": "fine-tune a pretrained network on a task: the teacher",
    "tailor": "cut a pretrained network to a task, beside its teacher",
    "eliminate": "cut the top off instead: the yardstick",
    "scale": "train other sizes of an EfficientNet: compound scaling",
    "knapsack": "remove channels under a hard budget, and fine-tune what is left",
    "search": "search for a small network without pretrained weights",
    "compare": "set every run of a task side by side",
    "export": "write a network as files that need nothing of this project",
    "predict": "say what is on images",
}
_HELP = ("-h", "--help", "help")


def dispatch(argv: list[str]) -> None:
    """Run the command that the first word names with the words after it; list all without one."""
    if not argv or argv[0] in _HELP:
        print(_listing())
        return
    if argv == ["--version"]:
        print(versioned())
        return
    name, *rest = argv
    if name not in _COMMANDS:
        raise UserError(
            f"{name!r}: no such command{nearest(name, _COMMANDS, count=1)}; the commands are "
            f"{', '.join(_COMMANDS)}"
        )
    later(f"nettailor.cli.{name}").main(rest)


def _listing() -> str:
    return "\n".join(
        [
            "NetTailor cuts a pretrained vision network to the size of a task.",
            "",
            "usage: nettailor COMMAND [flags]",
            "",
            *(f"  {name:<11}{purpose}" for name, purpose in _COMMANDS.items()),
            "",
            "`nettailor COMMAND --help` lists a command's flags; --version says which it is.",
        ]
    )


def main() -> None:
    """The console script: leaves with the command's exit code."""
    run_command(dispatch)


if __name__ == "__main__":
    main()
