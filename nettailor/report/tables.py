"""The tables of a comparison: methods, budgets and training, for a terminal and for Markdown."""

import html
from collections.abc import Sequence
from textwrap import fill
from typing import NamedTuple

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nettailor.core.printable import printable
from nettailor.report.comparison import Comparison
from nettailor.report.formatting import decimals

BUDGETS = (1.0, 0.6, 0.4, 0.25, 0.15)  # of the teacher's FLOPs
MISSING = "–"
_ROUNDING = 1e-9
_NARROW = 11  # characters of a heading in the terminal
# headings of columns that hold no figures
WORDS = ("network", "seeds", "setting", "value", "networks", "true class", "predicted", "class")


class Column(NamedTuple):
    """One figure as tables show it.

    decimals: digits after the point, or None for three significant ones. unit: what one step of
    the shown number is worth. fixed: the figure belongs to the structure, so that a deviation of
    zero says nothing.
    """

    name: str
    heading: str
    decimals: int | None = 2
    unit: float = 1
    fixed: bool = False

    def text(self, values: pd.Series) -> str:
        """Such as `98.61 ± 0.16`; the sample deviation only where there are several values."""
        known = values.dropna().astype(float) / self.unit
        if known.empty:
            return MISSING
        mean, deviation = float(known.mean()), float(known.std())
        digits = decimals(mean) if self.decimals is None else self.decimals
        if len(known) == 1 or (self.fixed and deviation == 0):
            return f"{mean:,.{digits}f}"
        return f"{mean:,.{digits}f} ± {deviation:,.{digits}f}"


COLUMNS = (
    Column("accuracy_val", "validation accuracy, %"),
    Column("accuracy_test", "test accuracy, %"),
    Column("macro_f1_test", "test macro F1, %"),
    Column("flops", "FLOPs, M", None, 1e6, True),
    Column("flops_ratio", "FLOPs, × teacher", 3, fixed=True),
    Column("params", "parameters, M", None, 1e6, True),
    Column("params_ratio", "parameters, × teacher", 3, fixed=True),
    Column("params_task", "task's own parameters, M", None, 1e6, True),
    Column("latency_ratio_1", "latency at batch 1, × teacher"),
    Column("latency_ratio_64", "latency at batch 64, × teacher"),
    Column("accuracy_train", "training accuracy, %"),
    Column("accuracy_error_val", "standard error, validation, %"),
    Column("accuracy_error_test", "standard error, test, %"),
    Column("macro_f1_train", "training macro F1, %"),
    Column("macro_f1_val", "validation macro F1, %"),
    Column("loss_train", "training loss, nats", 3),
    Column("loss_val", "validation loss, nats", 3),
    Column("loss_test", "test loss, nats", 3),
    Column("input_px", "input, px", 0, fixed=True),
    Column("layers", "layers", 0, fixed=True),
    Column("blocks_universal", "blocks", 0, fixed=True),
    Column("blocks_proxy", "proxies", 0, fixed=True),
    Column("latency_ms_1", "latency at batch 1, ms"),
    Column("latency_iqr_ms_1", "its middle half, ms"),
    Column("latency_ms_64", "latency at batch 64, ms", 1),
    Column("latency_iqr_ms_64", "its middle half, ms", 1),
    Column("test_inference_s", "test split, s"),
    Column("peak_memory_1", "peak memory at batch 1, MB", None, 1e6, True),
    Column("peak_memory_64", "peak memory at batch 64, MB", None, 1e6, True),
    Column("bytes", "file, MB", None, 1e6, True),
    Column("bytes_ratio", "file, × teacher", 3, fixed=True),
    Column("train_s", "training, s", 0),
)
MAIN_COLUMNS = COLUMNS[:10]  # what most readers ask first
TRAINING_COLUMNS = (
    Column("train_teacher_s", "teacher's", 0),
    Column("train_tailored_s", "tailored network's", 0),
    Column("train_other_trials_s", "other trials'", 0),
    Column("train_s", "own", 0),
    Column("train_all_s", "in all", 0),
)
# the terminal drops from the end of these what does not fit
_DISPENSABLE = (
    "latency_ratio_1", "latency_ratio_64", "params_task", "params", "flops", "macro_f1_test",
)  # fmt: skip


def method_table(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """A row of texts per method, mean ± deviation over its seeds; without columns of no figure."""
    columns = [column for column in columns if frame[column.name].notna().any()]
    rows = []
    for label, runs in frame.groupby("method", sort=False):
        seeds = " ".join(map(str, runs["seed"]))
        rows.append([label, seeds, *(column.text(runs[column.name]) for column in columns)])
    headings = ["network", "seeds", *(column.heading for column in columns)]
    return pd.DataFrame(rows, columns=headings)


def best_at_budgets(frame: pd.DataFrame) -> dict[float, tuple[str, float] | None]:
    """For each of `BUDGETS` the method of the highest mean validation accuracy among those whose
    mean FLOPs fit, of equals the leanest, and its share of the FLOPs. None where nothing fits.

    Budgets are shares of one teacher's FLOPs for all methods: where runs have teachers of several
    backbones, of the most accurate one's on validation.
    """
    means = frame.groupby("method", sort=False)[["accuracy_val", "flops"]].mean()
    means["flops"] /= frame.sort_values("teacher_accuracy_val")["teacher_flops"].iloc[-1]
    # of figures that are rounded themselves: equals must not differ by that
    means["accuracy_val"] = means["accuracy_val"].round(3)
    ranked = means.sort_values(["accuracy_val", "flops"], ascending=[False, True], kind="stable")
    shares = [(str(method), float(share)) for method, share in ranked["flops"].items()]
    return {
        budget: next((found for found in shares if found[1] <= budget + _ROUNDING), None)
        for budget in BUDGETS
    }


def pareto_front(points: pd.DataFrame) -> pd.DataFrame:
    """The points (columns cost, accuracy) that no other one beats, by rising cost.

    A point is beaten by one that costs no more and is no less accurate. Accuracies, in %, count
    to three decimals: they are means of what was rounded.
    """
    ordered = points.assign(accuracy=points["accuracy"].round(3))
    ordered = ordered.sort_values(["cost", "accuracy"], ascending=[True, False], kind="stable")
    before = ordered["accuracy"].cummax().shift(fill_value=-1.0)
    return points.loc[ordered.index[ordered["accuracy"] > before]]


def budget_table(frame: pd.DataFrame) -> pd.DataFrame:
    """A row of texts per budget: the best network within it."""
    accuracies = [
        COLUMNS[0]._replace(heading="validation, %"),
        COLUMNS[1]._replace(heading="test, %"),
    ]
    methods = method_table(frame, accuracies).set_index("network", drop=False)
    rows = []
    for budget, best in best_at_budgets(frame).items():
        cells = ["none is that small", *[MISSING] * len(methods.columns)]
        if best:
            cells = [*methods.loc[best[0]], f"{best[1]:.3f}"]
        rows.append([f"≤ {budget:g}", *cells])
    return pd.DataFrame(rows, columns=["FLOPs, × teacher", *methods.columns, "needs"])


def terminal_table(table: pd.DataFrame, title: str) -> Table:
    """A table of texts for the terminal."""
    shown_table = Table(
        title=escape(title), title_justify="left", header_style="bold", box=box.SIMPLE_HEAD
    )
    for heading in table.columns:
        words = heading in WORDS
        shown_table.add_column(
            fill(heading, _NARROW), justify="left" if words else "right", no_wrap=not words
        )
    for row in table.itertuples(index=False):
        shown_table.add_row(*(escape(cell).replace(" ± ", "±") for cell in row))
    return shown_table


def main_table(comparison: Comparison, console: Console) -> Table:
    """The main columns for the terminal, as many as fit the console's width."""
    columns, dispensable = list(MAIN_COLUMNS), list(_DISPENSABLE)
    room = console.options.update(width=10_000)
    while True:
        table = terminal_table(method_table(comparison.frame, columns), comparison.title)
        if not dispensable or console.measure(table, options=room).maximum <= console.width:
            return table
        name = dispensable.pop()
        columns = [column for column in columns if column.name != name]


def markdown_table(table: pd.DataFrame) -> str:
    """A table of texts in Markdown; names are to the left, figures to the right."""
    marks = ["---" if heading in WORDS else "---:" for heading in table.columns]
    cells = [[markdown_text(cell) for cell in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (table.columns.tolist(), marks, *cells))


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no end of a cell."""
    return html.escape(printable(text), quote=False).replace("|", "\\|")
