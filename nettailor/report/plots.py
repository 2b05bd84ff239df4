"""The pictures of a comparison, made with matplotlib."""

import base64
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from sklearn.metrics import ConfusionMatrixDisplay

from nettailor.report.comparison import kept_epochs
from nettailor.report.formatting import shortened
from nettailor.report.runs import Run
from nettailor.report.tables import pareto_front
from nettailor.student.drawing import architecture
from nettailor.student.wiring import Path, Wiring, full_wiring

_MARKERS = {
    "teacher": "*", "tailored": "o", "eliminated": "s", "head-only": "^", "scratch": "v",
    "knapsack": "P", "scaled": "p", "searched": "h",
}  # fmt: skip
# Okabe and Ito's colours, which colour-blind readers tell apart
_COLOURS = ("#000000", "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
_INK, _FAINT = "#1f2328", "#57606a"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # the reader's browser has the fonts of any script
    "svg.hashsalt": "nettailor",  # the same picture is the same text each time
    "text.parse_math": False,  # class names may hold dollar signs
    "figure.constrained_layout.use": True,
    "font.size": 9, "axes.labelsize": 9, "axes.titlesize": 9, "legend.fontsize": 8.5,
    "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _FAINT,
    "xtick.color": _FAINT, "ytick.color": _FAINT,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#dde1e6",
}  # fmt: skip
COSTS = {
    "flops": "FLOPs (multiply-adds), M",
    "params": "parameters, M (log axis)",
    "latency_ratio_1": "latency at batch 1, × teacher",
}
_NUMBERED = 20  # classes: up to so many with numbers in the cells


@contextmanager
def plot_style() -> Iterator[None]:
    """How all pictures look; they are made and written inside it."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def svg_uri(figure: Figure) -> str:
    """The figure as an SVG file in a data URI."""
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _looks(methods: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, Any]]:
    """Keyword arguments of a marker by method: a form for each kind, and a colour of its own."""
    looks = {}
    for number, (label, runs) in enumerate(methods.items()):
        kind, colour = runs[0].summary.kind, _COLOURS[number % len(_COLOURS)]
        hollow = number // len(_COLOURS) % 2 == 1
        looks[label] = {
            "color": colour, "marker": _MARKERS[kind], "markersize": 10 if kind == "teacher" else 7,
            "markerfacecolor": "white" if hollow else colour,
        }  # fmt: skip
    return looks


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Below the axes, in as many columns as fit."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(figure.get_figwidth() * 12) // (longest + 8)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    figure.set_figheight(figure.get_figheight() + 0.2 * ceil(len(handles) / columns))


def _errors(accuracies: pd.Series, images: int) -> pd.Series:
    """Errors in % as they are drawn: none at all, which has no logarithm, as half a mistake."""
    return (100 - accuracies).clip(lower=50 / images)


def _accuracy_axis(axis: Axis, name: str) -> None:
    """An axis of errors in %, by their logarithm and the best on top, that is told in accuracies:
    from 90 to 99 % as far as from 99 to 99.9."""
    axis.axes.set_yscale("log")
    axis.axes.invert_yaxis()
    axis.axes.set_ylabel(f"{name} accuracy, % (by log of error)")
    _number_log_axis(axis, lambda error: 100 - error)


def _number_log_axis(axis: Axis, value: Callable[[float], float] = float) -> None:
    """Plain numbers at 1, 2 and 5 of each decade, or closer where the axis spans no decade."""
    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 8 * low else MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda place, _: f"{value(place):.4g}"))
    axis.set_minor_locator(NullLocator())


def tradeoffs(
    methods: Mapping[str, Sequence[Run]], frame: pd.DataFrame, best: Sequence[str]
) -> Figure:
    """Test accuracy against FLOPs, parameters and latency: means, and the deviation over seeds.

    Methods without a test accuracy are not drawn; those in `best` have a ring.
    """
    frame = frame.dropna(subset="accuracy_test")
    groups = frame.groupby("method", sort=False)
    accuracy, spread = groups["accuracy_test"].mean(), groups["accuracy_test"].std().fillna(0)
    images = len(next(iter(methods.values()))[0].predictions["test"])
    error = _errors(accuracy, images)
    bars = error - _errors(accuracy + spread, images), _errors(accuracy - spread, images) - error
    looks = _looks(methods)
    figure = Figure(figsize=(12.4, 4.2))
    panels = figure.subplots(1, len(COSTS), sharey=True)
    for axes, (cost, name) in zip(panels, COSTS.items(), strict=True):
        means = groups[cost].mean() / (1 if cost.endswith("ratio_1") else 1e6)
        front = pareto_front(pd.DataFrame({"cost": means, "accuracy": accuracy}))
        axes.step(front["cost"], error[front.index], where="post", color=_FAINT, linestyle="--")
        for label in means.index:
            place, ends = (means[label], error[label]), [[bar[label]] for bar in bars]
            axes.errorbar(*place, yerr=ends, capsize=3, elinewidth=1.2, **looks[label])
            if label in best:
                axes.plot(*place, "o", markersize=15, markerfacecolor="none", color=_INK)
        axes.set_xlabel(name)
        axes.margins(0.08)
        if cost == "params":
            axes.set_xscale("log")
            _number_log_axis(axes.xaxis)
    if len(error):
        _accuracy_axis(panels[0].yaxis, "test")
    ring: dict[str, Any] = {"marker": "o", "markersize": 12, "mfc": "none", "ls": "none"}
    _legend(
        figure,
        [
            *(Line2D([], [], linestyle="none", label=shortened(label, 60), **looks[label])
              for label in means.index),
            Line2D([], [], color=_FAINT, linestyle="--", label="Pareto front"),
            Line2D([], [], color=_INK, label="best within a budget", **ring),
        ],
    )  # fmt: skip
    return figure


def curves(methods: Mapping[str, Sequence[Run]]) -> Figure:
    """Validation accuracy and loss by epoch, of each method's first seed."""
    figure = Figure(figsize=(12.4, 4.2))
    accuracy, loss = figure.subplots(1, 2)
    images = len(next(iter(methods.values()))[0].predictions["val"])
    looks = _looks(methods)
    for label, runs in methods.items():
        epochs = kept_epochs(runs[0])
        look = {**looks[label], "markersize": 4.5, "linewidth": 1.4}
        numbers = range(1, len(epochs) + 1)
        cut = int(epochs["stage"].str.startswith("student").sum())
        errors = _errors(epochs["val_accuracy"], images)
        for axes, values in ((accuracy, errors), (loss, epochs["val_loss"].clip(lower=1e-6))):
            axes.plot(numbers, values, markevery=max(1, len(numbers) // 8), **look)
            if 0 < cut < len(epochs):
                axes.plot(cut, values.iloc[cut - 1], "|", color=look["color"], markersize=18)
    for axes in (accuracy, loss):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    _accuracy_axis(accuracy.yaxis, "validation")
    loss.set_ylabel("validation loss, nats (log axis)")
    loss.set_yscale("log")
    _number_log_axis(loss.yaxis)
    handles = [Line2D([], [], label=shortened(label, 60), **looks[label]) for label in methods]
    cut_mark: dict[str, Any] = {"marker": "|", "markersize": 12, "ls": "none"}
    _legend(figure, [*handles, Line2D([], [], color=_FAINT, label="the cut", **cut_mark)])
    return figure


def drawing(run: Run) -> Figure:
    """The network of a run: what was kept, and outlines of the blocks that were removed."""
    summary = run.summary
    stages, rows, cut = summary.stages, summary.paths, summary.eliminated
    if rows is None:
        wiring = full_wiring(cut.kept_blocks if cut else len(stages), 0)
        alpha = [1.0] * len(wiring.paths)
    else:
        weights = {Path(*row[:3]): min(row[3], 1.0) for row in rows}
        wiring = Wiring(len(stages) + 1, tuple(weights))
        alpha = [weights[path] for path in wiring.paths]
    fresh = cut is not None and cut.replacement
    with matplotlib.rc_context({"axes.grid": False, "figure.constrained_layout.use": False}):
        return architecture(
            wiring, alpha, stages=stages, ghosts=True, replacement=fresh,
            image_size=summary.input_size, channels=summary.channels,
        )  # fmt: skip


def confusion_picture(table: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Numbers of images by true class (rows) and predicted class, with shades by their logarithm:
    single mistakes are seen."""
    names = [shortened(name, 22) for name in classes]
    figure = Figure(figsize=(3.2 + 0.16 * len(names),) * 2)
    axes = figure.add_subplot()
    shades = {"norm": LogNorm(vmin=0.5, vmax=table.max()), "interpolation": "none"}
    shown = ConfusionMatrixDisplay(table, display_labels=names).plot(
        ax=axes, cmap="Blues", colorbar=False, include_values=len(names) <= _NUMBERED,
        xticks_rotation="vertical" if max(map(len, names)) > 2 else "horizontal", im_kw=shades,
        text_kw={"size": 8},
    )  # fmt: skip
    for text, images in zip(np.ravel(shown.text_), table.flat, strict=False):
        if text:  # there are none with many classes
            text.set(text=str(images or ""), color="white" if images**2 > table.max() else _INK)
    axes.grid(False)
    axes.set(xlabel="predicted", ylabel="true")
    return figure
