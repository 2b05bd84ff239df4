"""`nettailor` and `python -m nettailor`: all commands under one name."""

from nettailor import compare, eliminate, export, knapsack, predict, scale, search, tailor, teach
from nettailor.core.errors import UserError, nearest
from nettailor.core.flags import run_command
from nettailor.figures import versions

_COMMANDS = {
    "teach": (teach.main, "fine-tune a pretrained network on a task: the teacher"),
    "tailor": (tailor.main, "cut a pretrained network to a task, beside its teacher"),
    "eliminate": (eliminate.main, "cut the top off instead: the yardstick"),
    "scale": (scale.main, "train other sizes of an EfficientNet: compound scaling"),
    "knapsack": (knapsack.main, "remove channels under a hard budget, and fine-tune what is left"),
    "search": (search.main, "search for a small network without pretrained weights"),
    "compare": (compare.main, "set every run of a task side by side"),
    "export": (export.main, "write a network as files that need nothing of this project"),
    "predict": (predict.main, "say what is on images"),
}
_HELP = ("-h", "--help", "help")


def dispatch(argv: list[str]) -> None:
    """Run the command that the first word names with the words after it; list all without one."""
    if not argv or argv[0] in _HELP:
        print(_listing())
        return
    if argv == ["--version"]:
        print(f"nettailor {versions()['nettailor']}")
        return
    name, *rest = argv
    if name not in _COMMANDS:
        raise UserError(
            f"{name!r}: no such command{nearest(name, _COMMANDS, count=1)}; the commands are "
            f"{', '.join(_COMMANDS)}"
        )
    command, _ = _COMMANDS[name]
    command(rest)


def _listing() -> str:
    lines = [f"  {name:<11}{purpose}" for name, (_, purpose) in _COMMANDS.items()]
    return "\n".join(
        [
            "NetTailor cuts a pretrained vision network to the size of a task.",
            "",
            "usage: nettailor COMMAND [flags]",
            "",
            *lines,
            "",
            "`nettailor COMMAND --help` lists a command's flags; --version says which it is.",
        ]
    )


def main() -> None:
    """The console script: leaves with the command's exit code."""
    run_command(dispatch)


if __name__ == "__main__":
    main()
