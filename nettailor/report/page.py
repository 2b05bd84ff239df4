"""The comparison as one HTML page that needs nothing beside itself."""

from collections.abc import Sequence
from importlib import resources
from itertools import groupby
from typing import Any

from jinja2 import Environment, StrictUndefined

from nettailor.core.printable import printable
from nettailor.report import pictures
from nettailor.report.comparison import Comparison
from nettailor.report.methods import Method
from nettailor.report.mistakes import DRAWN, confusion, most_confused, worse_classes
from nettailor.report.roads import road_columns
from nettailor.report.studies import study_plots
from nettailor.report.tables import (
    BUDGET_HEADINGS,
    COLUMNS,
    MAIN_COLUMNS,
    Column,
    budget_rows,
)

PAGE_MARK = "<title>NetTailor: "  # what every page of ours holds


def page_html(comparison: Comparison, command: str) -> str:
    """The whole page; `command` makes it again.

    It holds no script and asks for nothing from anywhere: styles and pictures are part of it.
    """
    methods, verdict = comparison.methods, comparison.verdict
    subject = verdict.winner or methods[0]
    context: dict[str, Any] = {
        "title": comparison.title,
        "facts": comparison.facts,
        "sentences": verdict.sentences,
        "notes": comparison.notes,
        "winner": verdict.winner.label if verdict.winner else None,
        "main_table": _table(methods, MAIN_COLUMNS),
        "full_table": _table(methods, COLUMNS),
        "budget_headings": BUDGET_HEADINGS,
        "budgets": budget_rows(methods),
        "road_table": _table(methods, road_columns(methods)),
        "tradeoffs": pictures.tradeoffs(methods),
        "drawings": pictures.drawings(methods, verdict),
        "training": pictures.training(methods, verdict),
        "studies": study_plots(methods),
        "left_out": [
            (printable(str(item.folder)), printable(item.reason)) for item in comparison.left_out
        ],
        "command": printable(command),
        **_mistakes(methods, subject),
    }
    template = resources.files("nettailor.report").joinpath("page.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(context)


def _table(methods: Sequence[Method], columns: Sequence[Column]) -> dict[str, Any]:
    """Headings in two rows, and a row of texts per method."""
    groups = [
        (name, len(list(members)))
        for name, members in groupby(columns, lambda column: column.group)
    ]
    rows = [
        (method, [column.text(method.spread(column.figure)) for column in columns])
        for method in methods
    ]
    return {"groups": groups, "columns": columns, "rows": rows}


def _mistakes(methods: Sequence[Method], subject: Method) -> dict[str, Any]:
    """What is said of the subject's mistakes: a matrix or the worst pairs, and the classes that
    suffered."""
    classes = subject.example.classes
    small = len(classes) <= DRAWN
    teacher = next(
        (
            method
            for method in methods
            if method.kind == "teacher" and method.example.backbone == subject.example.backbone
        ),
        None,
    )
    compared = (
        teacher is not None and teacher is not subject and set(teacher.seeds) & set(subject.seeds)
    )
    worse = worse_classes(teacher, subject) if teacher and compared else []
    return {
        "subject": subject.label,
        "confusion": pictures.confusions(subject) if small else None,
        "confused": [] if small else most_confused(confusion(subject), classes),
        "compared": bool(compared),
        "worse": worse,
        "worse_picture": pictures.worse(worse, subject) if worse else None,
    }
