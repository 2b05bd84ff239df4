"""`python -m nettailor.compare`: every run of a task side by side, as tables and as a page."""

import os
from pathlib import Path

from nettailor.commands.sweep import Failure, run_sweep
from nettailor.core.config import RunConfig
from nettailor.core.console import Screen
from nettailor.core.errors import UserError
from nettailor.core.files import write_text
from nettailor.core.flags import EXIT_SOME_FAILED, CommandFlags
from nettailor.core.printable import printable
from nettailor.core.run_folder import KINDS
from nettailor.report.comparison import Comparison, compare_folders, require_comparable
from nettailor.report.page import PAGE_MARK, page_html
from nettailor.report.runs import task_name
from nettailor.report.tables import (
    COLUMNS,
    MAIN_COLUMNS,
    TRAINING_COLUMNS,
    budget_table,
    main_table,
    markdown_table,
    markdown_text,
    method_table,
    terminal_table,
)

_PAGE, _TABLE, _TEXT = "report.html", "comparison.csv", "comparison.md"
_BUDGETS = "The best on validation within each share of the teacher's FLOPs"
_TRAINING = "Seconds of training, with that of what a network begins with"


def task_folder(config: RunConfig) -> Path:
    """Where the runs of the settings' task are."""
    return Path(config.out) / task_name(config.data)


def report_folder(comparison: Comparison) -> Path:
    """`comparison/` in the folder that the tasks' folders of all runs share.

    Raises UserError where they share none.
    """
    folders = [run.folder.resolve() for run in comparison.runs]
    tasks = [run.parent.parent if run.parent.name in KINDS else run.parent for run in folders]
    common = Path(os.path.commonpath(tasks))
    if common == Path(common.anchor):
        raise UserError(
            "the runs have no folder in common: say where the report goes, --report DIR"
        )
    return common / "comparison"


def require_no_other_report(folder: Path) -> None:
    """Raise UserError where the report would replace files that are none of ours."""
    page = folder / _PAGE
    try:
        ours = page.is_file() and PAGE_MARK in page.read_text("utf-8", errors="replace")
        there = [name for name in (_PAGE, _TABLE, _TEXT) if (folder / name).exists()]
    except OSError as error:
        raise UserError(f"--report {folder}: {error.strerror or error}") from error
    if there and not ours:
        raise UserError(
            f"{folder}: holds {there[0]}, which is of no comparison; move it or give another "
            "folder, --report DIR"
        )


def write_report(comparison: Comparison, folder: Path, command: str) -> None:
    """Write the three files; `command` is what makes them again."""
    write_text(folder / _PAGE, page_html(comparison, command))
    write_text(folder / _TABLE, comparison.frame.to_csv(index=False, lineterminator="\n"))
    write_text(folder / _TEXT, _markdown(comparison, command))


def _markdown(comparison: Comparison, command: str) -> str:
    frame = comparison.frame
    left_out = [f"- {item.folder}: {item.reason}" for item in comparison.left_out]
    paragraphs = [
        f"# {markdown_text(comparison.title)}",
        markdown_table(method_table(frame, MAIN_COLUMNS)),
        f"## {_BUDGETS}",
        markdown_table(budget_table(frame)),
        f"## {_TRAINING}",
        markdown_table(method_table(frame, TRAINING_COLUMNS)),
        "## All figures",
        markdown_table(method_table(frame, COLUMNS)),
        *(["## Left out", "\n".join(map(markdown_text, left_out))] if left_out else []),
        f"Made by `{printable(command)}`",
    ]
    return "\n\n".join(paragraphs) + "\n"


def show(comparison: Comparison, screen: Screen) -> None:
    """The tables, and what was left out, on the terminal."""
    frame = comparison.frame
    screen.console.print(main_table(comparison, screen.console))
    screen.console.print(terminal_table(budget_table(frame), _BUDGETS))
    screen.console.print(terminal_table(method_table(frame, TRAINING_COLUMNS), _TRAINING))
    for item in comparison.left_out:
        screen.say(f"left out: {printable(str(item.folder))}: {printable(item.reason)}")


def execute(config: RunConfig, flags: CommandFlags) -> None:
    """Run the command with settings and flags that were found good."""
    own = flags.own
    sweep = [own[name] for name in ("seeds", "gammas", "modes")]
    report: Path | None = own["report"]
    if report:  # before anything is trained
        require_no_other_report(report)
    failures: list[Failure] = []
    if any(sweep):
        require_comparable(task_folder(config), config)
        with Screen() as screen:
            failures = run_sweep(
                config,
                screen,
                seeds=own["seeds"] or [config.seed],
                gammas=own["gammas"] or [config.student.gamma],
                modes=own["modes"] or [config.prune.finetune],
            )
    if own["folders"]:
        comparison = compare_folders(own["folders"])
    else:
        # one task folder holds runs of all image sizes
        comparison = compare_folders([task_folder(config)], config.image_size)
    if report is None:
        report = report_folder(comparison)
        require_no_other_report(report)
    write_report(comparison, report, flags.typed)
    screen = Screen()
    show(comparison, screen)
    screen.say(f"report: {report / _PAGE}")
    if failures:
        raise SystemExit(EXIT_SOME_FAILED)
