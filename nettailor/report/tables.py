"""Every figure of a comparison as a column, and the tables made of them."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nettailor.core.printable import printable
from nettailor.report.brief import decimals
from nettailor.report.budgets import best_at_budgets
from nettailor.report.measures import (
    batch_latency_ratio,
    bytes_ratio,
    flops_ratio,
    latency_ratio,
    params_ratio,
)
from nettailor.report.methods import Figure, Method, Spread
from nettailor.report.runs import Run

MISSING = "–"
_NARROW = 11  # characters of a heading in the terminal


@dataclass(frozen=True)
class Column:
    """One figure.

    name: in the CSV, which has it unrounded. group, title: in tables, with the unit.
    decimals: digits after the point, or None for three significant ones. unit: what one step of
    the shown number is worth. fixed: the figure belongs to the structure, so that a spread of zero
    says nothing.
    """

    name: str
    group: str
    title: str
    figure: Figure
    decimals: int | None = 2
    unit: float = 1
    fixed: bool = False

    def text(self, spread: Spread | None, *, plus_minus: str = " ± ") -> str:
        """Such as `98.61 ± 0.16`; the spread only where there are several seeds."""
        if spread is None:
            return MISSING
        mean = spread.mean / self.unit
        digits = decimals(mean) if self.decimals is None else self.decimals
        text = f"{mean:,.{digits}f}"
        if spread.deviation is None or (self.fixed and spread.deviation == 0):
            return text
        return f"{text}{plus_minus}{spread.deviation / self.unit:,.{digits}f}"


def _split_columns(
    name: Literal["accuracy", "macro_f1", "loss"], group: str, decimals: int
) -> list[Column]:
    titles = {"train": "train", "val": "validation", "test": "test"}

    def figure(split: str) -> Figure:
        return lambda run: getattr(getattr(run.summary, name), split)

    return [
        Column(f"{name}_{split}", group, title, figure(split), decimals)
        for split, title in titles.items()
    ]


def _error_on(split: Literal["val", "test"]) -> Figure:
    """The standard error of the accuracy, by the number of images; None where it is not known."""
    return lambda run: getattr(run.summary.accuracy_error, split, None)


COLUMNS: tuple[Column, ...] = (
    *_split_columns("accuracy", "accuracy, %", 2),
    Column("accuracy_error_val", "standard error, %", "validation", _error_on("val"), 2),
    Column("accuracy_error_test", "standard error, %", "test", _error_on("test"), 2),
    *_split_columns("macro_f1", "macro F1, %", 2),
    *_split_columns("loss", "loss, nats", 3),
    Column("flops", "FLOPs", "M", lambda run: run.summary.flops, None, 1e6, True),
    Column("flops_ratio", "FLOPs", "× teacher", flops_ratio, 3, fixed=True),
    Column("params", "parameters", "M", lambda run: run.summary.params.total, None, 1e6, True),
    Column("params_ratio", "parameters", "× teacher", params_ratio, 3, fixed=True),
    Column("params_task", "parameters", "own, M", lambda run: run.summary.params.task,
           None, 1e6, True),
    Column("input_px", "structure", "input, px", lambda run: run.summary.input_size, 0, fixed=True),
    Column("layers", "structure", "layers", lambda run: run.summary.layers, 0, fixed=True),
    Column("blocks_universal", "structure", "blocks",
           lambda run: run.summary.blocks.universal, 0, fixed=True),
    Column("blocks_proxy", "structure", "proxies",
           lambda run: run.summary.blocks.proxy, 0, fixed=True),
    Column("latency_ms_1", "latency, ms", "batch 1",
           lambda run: run.summary.latency.single.median),
    Column("latency_iqr_ms_1", "latency, ms", "its middle half",
           lambda run: run.summary.latency.single.iqr),
    Column("latency_ms_64", "latency, ms", "batch 64",
           lambda run: run.summary.latency.batch.median, 1),
    Column("latency_iqr_ms_64", "latency, ms", "its middle half",
           lambda run: run.summary.latency.batch.iqr, 1),
    Column("latency_ratio_1", "latency, × teacher", "batch 1", latency_ratio, 2),
    Column("latency_ratio_64", "latency, × teacher", "batch 64", batch_latency_ratio, 2),
    Column("cpu_ms", "processor, ms", "CPU", lambda run: run.summary.profile.cpu_ms),
    Column("test_inference_s", "test split", "inference, s",
           lambda run: run.summary.seconds.test_inference),
    Column("peak_memory_1", "peak memory, MB", "batch 1",
           lambda run: run.summary.peak_memory.single, None, 1e6, True),
    Column("peak_memory_64", "peak memory, MB", "batch 64",
           lambda run: run.summary.peak_memory.batch, None, 1e6, True),
    Column("bytes", "file", "MB", lambda run: run.summary.bytes, None, 1e6, True),
    Column("bytes_ratio", "file", "× teacher", bytes_ratio, 3, fixed=True),
    Column("train_s", "training", "s", lambda run: run.summary.seconds.train, 0),
)  # fmt: skip

# What most readers ask first, in the order of the tables; the terminal drops from the end of
# _DISPENSABLE what does not fit.
_MAIN = (
    "accuracy_val", "accuracy_test", "macro_f1_test", "flops", "flops_ratio", "params",
    "params_ratio", "params_task", "latency_ratio_1", "latency_ratio_64", "train_s",
)  # fmt: skip
_DISPENSABLE = (
    "latency_ratio_1", "latency_ratio_64", "params_task", "params", "flops", "macro_f1_test",
    "train_s",
)  # fmt: skip
_WHOLE_NAMES = {
    "accuracy_val": "validation accuracy, %",
    "accuracy_test": "test accuracy, %",
    "macro_f1_test": "test macro F1, %",
    "params_task": "task's own parameters, M",
    "latency_ratio_1": "latency at batch 1, × teacher",
    "latency_ratio_64": "latency at batch 64, × teacher",
    "train_s": "training, s",
}
MAIN_COLUMNS = tuple(column for name in _MAIN for column in COLUMNS if column.name == name)


def terminal_table(methods: Sequence[Method], title: str, console: Console) -> Table:
    """The main columns, as many as fit the console's width."""
    columns = list(MAIN_COLUMNS)
    dispensable = list(_DISPENSABLE)
    table = method_table(methods, title, columns)
    room = console.options.update(width=10_000)
    while dispensable and console.measure(table, options=room).maximum > console.width:
        name = dispensable.pop()
        columns = [column for column in columns if column.name != name]
        table = method_table(methods, title, columns)
    return table


def method_table(methods: Sequence[Method], title: str, columns: Sequence[Column]) -> Table:
    """For the terminal: one row per method, mean±spread over seeds."""
    table = _terminal(title)
    table.add_column("network")
    table.add_column("seeds", justify="right")
    for column in columns:
        table.add_column(fill(_heading(column), _NARROW), justify="right", no_wrap=True)
    for method in methods:
        cells = [column.text(method.spread(column.figure), plus_minus="±") for column in columns]
        table.add_row(escape(method.label), str(len(method.runs)), *cells)
    return table


def _terminal(title: str) -> Table:
    return Table(
        title=escape(title), title_justify="left", header_style="bold", box=box.SIMPLE_HEAD
    )


BUDGET_HEADINGS = ("FLOPs, × teacher", "network", "seeds", "validation, %", "test, %", "needs")


def budget_rows(methods: Sequence[Method]) -> list[tuple[str, ...]]:
    """Under `BUDGET_HEADINGS`, what is best at each budget."""
    columns = {column.name: column for column in COLUMNS}
    rows = []
    for budget, method, share in best_at_budgets(methods):
        if method is None:
            rows.append((f"≤ {budget:g}", "none is that small", *[MISSING] * 4))
            continue
        accuracies = [columns[name] for name in ("accuracy_val", "accuracy_test")]
        rows.append(
            (
                f"≤ {budget:g}",
                method.label,
                str(len(method.runs)),
                *(column.text(method.spread(column.figure)) for column in accuracies),
                f"{share:.3f}",
            )
        )
    return rows


def budget_table(methods: Sequence[Method]) -> Table:
    """For the terminal: what is best at each budget."""
    table = _terminal("the best on validation within each budget")
    for heading in BUDGET_HEADINGS:
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for row in budget_rows(methods):
        table.add_row(*map(escape, row))
    return table


def _heading(column: Column) -> str:
    """A column's whole name where no group stands above it."""
    return _WHOLE_NAMES.get(column.name, f"{column.group} {column.title}")


def csv_text(methods: Sequence[Method], more: Sequence[Column] = ()) -> str:
    """One row per run with every figure unrounded, and `more`; ratios are over the teacher's."""
    columns = (*COLUMNS, *more)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["folder", "method", "kind", "backbone", "dataset", "image_size", "seed", "device"]
        + [column.name for column in columns]
    )
    for method in methods:
        for run in method.runs:
            writer.writerow(_csv_row(method, run, columns))
    return text.getvalue()


def _csv_row(method: Method, run: Run, columns: Sequence[Column]) -> list[object]:
    summary = run.summary
    return [
        printable(str(run.folder)), method.label, summary.kind, printable(summary.backbone),
        printable(summary.dataset), summary.image_size, summary.seed, summary.device,
        *("" if (value := column.figure(run)) is None else value for column in columns),
    ]  # fmt: skip


def markdown_table(methods: Sequence[Method], columns: Sequence[Column]) -> str:
    """One row per method, mean ± spread over seeds."""
    headings = ["network", "seeds", *(_heading(column) for column in columns)]
    rows = [
        [method.label, str(len(method.runs))]
        + [column.text(method.spread(column.figure)) for column in columns]
        for method in methods
    ]
    return markdown_rows(headings, rows)


def markdown_rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the column `network` is to the left, all others to the right."""
    marks = ["---" if heading == "network" else "---:" for heading in headings]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in (headings, marks, *cells))
