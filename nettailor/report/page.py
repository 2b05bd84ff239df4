"""The comparison as one HTML page that needs nothing beside itself."""

from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from nettailor.core.printable import printable
from nettailor.report.comparison import Comparison, settings_table
from nettailor.report.formatting import shortened, times
from nettailor.report.plots import (
    confusion_picture,
    curves,
    drawing,
    plot_style,
    svg_uri,
    tradeoffs,
)
from nettailor.report.runs import Run
from nettailor.report.tables import (
    COLUMNS,
    MAIN_COLUMNS,
    TRAINING_COLUMNS,
    WORDS,
    best_at_budgets,
    budget_table,
    method_table,
)

PAGE_MARK = "<title>NetTailor: "  # what every page of ours holds
_DRAWN = 40  # classes: with more, the worst pairs are listed instead of a confusion matrix
_WORST, _PAIRS = 8, 20
_NAME = 60  # characters of a class's name


class Picture(NamedTuple):
    """A data URI, and what stands below it."""

    source: str
    caption: str


class Mistakes(NamedTuple):
    """What a method gets wrong on the test.

    confusion: None with many classes. pairs: the classes taken for each other most. worse: the
    classes that lost against the teacher; None without a teacher of the same seeds.
    """

    confusion: Picture | None
    pairs: pd.DataFrame
    worse: pd.DataFrame | None


def page_html(comparison: Comparison, command: str) -> str:
    """The whole page; `command` makes it again.

    It holds no script and asks for nothing from anywhere: styles and pictures are part of it.
    """
    methods, frame = comparison.methods, comparison.frame
    budgets = [found[0] for found in best_at_budgets(frame).values() if found]
    best = list(dict.fromkeys(budgets)) or [next(iter(methods))]
    with plot_style():
        context: dict[str, Any] = {
            "title": comparison.title,
            "facts": _facts(comparison),
            "best": best,
            "main_table": method_table(frame, MAIN_COLUMNS),
            "full_table": method_table(frame, COLUMNS),
            "budgets": budget_table(frame),
            "training_table": method_table(frame, TRAINING_COLUMNS),
            "settings": settings_table(comparison),
            "words": WORDS,
            "tradeoffs": Picture(
                svg_uri(tradeoffs(methods, frame, best)),
                "Test accuracy against FLOPs, parameters and measured latency: means over seeds, "
                "bars are ± one standard deviation, 100 % is drawn as half a mistake. No other "
                "network costs less than one on the front and is as accurate. Rings were chosen on "
                "validation.",
            ),
            "curves": Picture(
                svg_uri(curves(methods)),
                "Validation accuracy and loss by epoch, the first seed of each. A tailored run "
                "goes on from its student to the kept cut.",
            ),
            "drawings": list(_drawings(comparison)),
            "mistakes": {label: _mistakes(comparison, label) for label in best},
            "left_out": [
                (printable(str(item.folder)), printable(item.reason))
                for item in comparison.left_out
            ],
            "command": printable(command),
        }
    template = resources.files("nettailor.report").joinpath("page.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(context)


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    """What was compared and on what, as pairs of a name and a text."""
    runs, frame = comparison.runs, comparison.frame
    images = {split: len(rows) for split, rows in runs[0].predictions.items()}
    versions = {f"{name} {v}" for run in runs for name, v in run.summary.versions.items()}
    return [
        ("Task", f"{comparison.title}, {len(runs[0].summary.classes)} classes"),
        ("Images", f"{images['val']:,} validation, {images['test']:,} test"),
        ("Backbone", ", ".join(sorted(frame["backbone"].unique()))),
        ("Compared", f"{len(comparison.methods)} networks, {len(runs)} runs"),
        ("Latency on", ", ".join(sorted(frame["device"].unique()))),
        ("Made with", printable(", ".join(sorted(versions)))),
    ]


def _drawings(comparison: Comparison) -> Iterator[Picture]:
    """The networks that lost blocks; the first seed of each."""
    for label, (run, *_) in comparison.methods.items():
        summary = run.summary
        if summary.paths is None and summary.eliminated is None:
            continue
        exits = [f"exit at x{path[0]}" for path in summary.paths or () if path[2] == "exit"]
        proxies = [f"{summary.blocks.proxy} proxies"] if summary.blocks.proxy else []
        words = [
            f"{label}, seed {summary.seed}",
            f"{summary.blocks.universal} of {len(summary.stages)} pretrained blocks",
            *proxies,
            *exits,
            f"{times(summary.flops / run.teacher.flops)} FLOPs",
            f"{times(summary.params.total / run.teacher.params.total)} parameters of the teacher",
        ]
        yield Picture(svg_uri(drawing(run)), ", ".join(words))


def confusion(runs: Sequence[Run]) -> NDArray[np.int64]:
    """Test images by true and predicted class, summed over seeds, shape (classes, classes)."""
    test = pd.concat([run.predictions["test"] for run in runs])
    classes = range(len(runs[0].summary.classes))
    table: NDArray[np.int64] = confusion_matrix(test["label"], test["predicted"], labels=classes)
    return table


def most_confused(table: NDArray[np.int64], names: Sequence[str]) -> pd.DataFrame:
    """The pairs of classes with most mistakes as a table of texts, twenty at most."""
    wrong = pd.Series((table * ~np.eye(len(names), dtype=bool)).ravel())
    rows = []
    for place in wrong[wrong > 0].nlargest(_PAIRS).index.tolist():
        true, predicted = divmod(place, len(names))
        images = table[true, predicted]
        share = 100 * images / table[true].sum()
        rows.append((names[true], names[predicted], f"{images}", f"{share:.1f}"))
    return pd.DataFrame(rows, columns=["true class", "predicted", "images", "of the class, %"])


def worse_classes(
    teachers: Sequence[Run], runs: Sequence[Run], names: Sequence[str]
) -> pd.DataFrame:
    """The classes whose recall on the test fell most below the teachers', as a table of texts.

    The worst first, eight at most; means over the runs, and over the teachers of their seeds.
    """
    before, after = _recall(teachers), _recall(runs)
    lost = before - after
    rows = [
        (names[place], f"{before[place]:.1f}", f"{after[place]:.1f}", f"−{lost[place]:.1f}")
        for place in lost[lost > 0].nlargest(_WORST).index.tolist()
    ]
    return pd.DataFrame(rows, columns=["class", "teacher", "this network", "difference"])


def _recall(runs: Sequence[Run]) -> pd.Series:
    """Share of each class (index) that was recognised on the test in %, mean over the runs."""
    tests = [run.predictions["test"] for run in runs]
    right = [100.0 * (test["label"] == test["predicted"]) for test in tests]
    by_run = [share.groupby(test["label"]).mean() for share, test in zip(right, tests, strict=True)]
    return pd.concat(by_run, axis="columns").mean(axis="columns")


def _mistakes(comparison: Comparison, label: str) -> Mistakes:
    runs = comparison.methods[label]
    names = [shortened(name, _NAME) for name in runs[0].summary.classes]
    table, picture = confusion(runs), None
    if len(names) <= _DRAWN:
        seeds = f", {len(runs)} seeds together" if len(runs) > 1 else ""
        title = f"Confusion matrix of {label} on the test{seeds}"
        picture = Picture(svg_uri(confusion_picture(table, names)), title)
    backbone, seeds_of = runs[0].summary.backbone, {run.summary.seed: run for run in runs}
    teachers = {
        run.summary.seed: run
        for run in comparison.runs
        if (run.summary.kind, run.summary.backbone) == ("teacher", backbone)
        and run not in runs and run.summary.seed in seeds_of
    }  # fmt: skip
    worse = None
    if teachers:
        paired = [seeds_of[seed] for seed in teachers]
        worse = worse_classes(list(teachers.values()), paired, names)
    return Mistakes(picture, most_confused(table, names), worse)
