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
from nettailor.report.roads import road_columns
from nettailor.report.runs import task_name
from nettailor.report.tables import (
    BUDGET_HEADINGS,
    COLUMNS,
    MAIN_COLUMNS,
    budget_rows,
    budget_table,
    csv_text,
    markdown_rows,
    markdown_table,
    method_table,
    terminal_table,
)

_PAGE, _TABLE, _TEXT = "report.html", "comparison.csv", "comparison.md"


def task_folder(config: RunConfig) -> Path:
    """Where the runs of the settings' task are."""
    return Path(config.out) / task_name(config.data)


def report_folder(comparison: Comparison) -> Path:
    """`comparison/` in the folder that the tasks' folders of all runs share.

    Raises UserError where they share none.
    """
    folders = [run.folder.resolve() for method in comparison.methods for run in method.runs]
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
    write_text(folder / _TABLE, csv_text(comparison.methods, road_columns(comparison.methods)))
    write_text(folder / _TEXT, _markdown(comparison, command))


def _markdown(comparison: Comparison, command: str) -> str:
    prose = [*comparison.notes, *(f"{name}: {text}" for name, text in comparison.facts)]
    left_out = [f"- {item.folder}: {item.reason}" for item in comparison.left_out]
    paragraphs = [
        printable(f"# {comparison.title}"),
        *map(printable, comparison.verdict.sentences),
        markdown_table(comparison.methods, MAIN_COLUMNS).rstrip(),
        "## The best at each budget",
        markdown_rows(BUDGET_HEADINGS, budget_rows(comparison.methods)).rstrip(),
        "## What each road cost",
        markdown_table(comparison.methods, road_columns(comparison.methods)).rstrip(),
        *map(printable, prose),
        "## All figures",
        markdown_table(comparison.methods, COLUMNS).rstrip(),
        *(["## Left out", "\n".join(map(printable, left_out))] if left_out else []),
        printable(f"Made by `{command}`"),
    ]
    return "\n\n".join(paragraphs) + "\n"


def show(comparison: Comparison, screen: Screen) -> None:
    """The tables, the verdict, and what was left out, on the terminal."""
    methods = comparison.methods
    screen.console.print(terminal_table(methods, comparison.title, screen.console))
    screen.console.print(budget_table(methods))
    screen.console.print(method_table(methods, "what each road cost", road_columns(methods)))
    for sentence in (*comparison.verdict.sentences, *comparison.notes):
        screen.say(printable(sentence))
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
