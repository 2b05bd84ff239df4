"""What the winner gets wrong: its confusion matrix, and the classes that suffered most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from nettailor.evidence import MISTAKES_FOLDER
from nettailor.report.brief import shortened
from nettailor.report.inline_png import png_uri
from nettailor.report.looks import BLACK, VERMILLION, look_of
from nettailor.report.methods import Method
from nettailor.report.runs import Run
from nettailor.report.svg import FAINT_INK, GRID, INK, widest

ANNOTATED, DRAWN = 20, 40  # classes: up to so many with numbers in the cells, or drawn at all
_WORST, _EXAMPLES, _PAIRS = 8, 6, 20
_NAME = 60  # characters of a class's name in the page
_LARGEST = 256 * 1024  # bytes of one embedded picture


def confusion(method: Method) -> NDArray[np.int64]:
    """Test images by true and predicted class, summed over seeds, shape (classes, classes)."""
    classes = len(method.example.classes)
    table = np.zeros((classes, classes), dtype=np.int64)
    for run in method.runs:
        table += run.predictions["test"].confusion(classes)
    return table


@dataclass(frozen=True)
class Confused:
    """A class that was taken for another, and on how many test images over all seeds."""

    true: str
    predicted: str
    images: int
    share: float  # of the true class's images, in %


def most_confused(table: NDArray[np.int64], classes: Sequence[str]) -> list[Confused]:
    """The pairs of classes with most mistakes, twenty at most."""
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [divmod(int(place), len(classes)) for place in order]
    return [
        Confused(
            shortened(classes[true], _NAME), shortened(classes[predicted], _NAME),
            int(wrong[true, predicted]), 100 * float(wrong[true, predicted] / table[true].sum()),
        )
        for true, predicted in pairs
        if wrong[true, predicted]
    ]  # fmt: skip


def confusion_picture(table: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Rows are true classes; what is right in blue, mistakes in orange, by share of the row."""
    count = len(classes)
    names = [shortened(name, 22) for name in classes]
    longest = widest(names, 8)
    margin = 32 + longest
    side = max(300.0, 15.0 * count)
    width, height = side + margin + 8, side + margin + 8
    figure = Figure(figsize=(width / 96, height / 96))
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    right = np.eye(count, dtype=bool)
    wrong = np.where(right | (table == 0), np.nan, share)
    blues = LinearSegmentedColormap.from_list("right", ["#ffffff", "#8fc1e3"])
    oranges = LinearSegmentedColormap.from_list("wrong", ["#fbe3d3", VERMILLION])
    axes.imshow(np.where(right, share, np.nan), cmap=blues, vmin=0, vmax=1, interpolation="none")
    most = np.nanmax(wrong) if np.isfinite(wrong).any() else 1
    axes.imshow(wrong, cmap=oranges, vmin=0, vmax=most, interpolation="none")
    if count <= ANNOTATED:
        for row, column in np.argwhere(table > 0):
            dark = not right[row, column] and wrong[row, column] > 0.6 * most
            axes.text(
                column, row, str(table[row, column]), ha="center", va="center",
                size=8 if table.max() < 1000 else 6.5, color="white" if dark else INK,
            )  # fmt: skip
    axes.set_xticks(range(count), names, rotation=90 if longest > side / count else 0, size=8)
    axes.set_yticks(range(count), names, size=8)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(False)
    axes.grid(which="minor", color=GRID, linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


@dataclass(frozen=True)
class Example:
    """A test image that the winner got wrong and the teacher of the same seed right."""

    source: str  # a data URI
    predicted: str
    seed: int


@dataclass(frozen=True)
class Worse:
    """A class and its recall on the test in %, means over the seeds that both have."""

    name: str
    teacher: float
    winner: float
    examples: tuple[Example, ...]


def worse_classes(teacher: Method, winner: Method) -> list[Worse]:
    """The classes that lost most recall against the teacher, the worst first, eight at most."""
    by_seed = {run.summary.seed: run for run in teacher.runs}
    pairs = [(by_seed[run.summary.seed], run) for run in winner.runs if run.summary.seed in by_seed]
    if not pairs:
        return []
    classes = winner.example.classes
    before, after = (
        np.mean([run.predictions["test"].recall(len(classes)) for run in runs], axis=0)
        for runs in zip(*pairs, strict=True)
    )
    lost = np.nan_to_num(before - after)
    worst = [int(place) for place in np.argsort(-lost, kind="stable")[:_WORST] if lost[place] > 0]
    return [
        Worse(
            shortened(classes[place], _NAME), float(before[place]), float(after[place]),
            _examples(pairs, place),
        )
        for place in worst
    ]  # fmt: skip


def _examples(pairs: Sequence[tuple[Run, Run]], label: int) -> tuple[Example, ...]:
    """Pictures of a class, each image once, taken from all seeds."""
    found: dict[int, Example] = {}
    for teacher, run in pairs:
        test, was_right = run.predictions["test"], teacher.predictions["test"].is_right()
        for index, true, predicted in zip(test.index, test.label, test.predicted, strict=True):
            if true != label or predicted == label or not was_right.get(int(index)):
                continue
            picture = test.pictures.get(int(index))
            if picture is None or int(index) in found:
                continue
            if source := png_uri(run.folder / MISTAKES_FOLDER / picture, _LARGEST):
                name = shortened(run.summary.classes[predicted], _NAME)
                found[int(index)] = Example(source, name, run.summary.seed)
    return tuple(found[index] for index in sorted(found))[:_EXAMPLES]


def worse_picture(classes: Sequence[Worse], winner: Method) -> Figure:
    """Recall of each class from the teacher's to the winner's, with the difference in points."""
    look = look_of(winner)
    width, height = 400, 74 + 30 * len(classes)
    figure = Figure(figsize=(width / 96, height / 96))
    names = [shortened(worse.name, 24) for worse in classes]
    left = (16 + widest(names, 8.5)) / width
    axes = figure.add_axes((left, 44 / height, 0.86 - left, 1 - 74 / height))
    for row, worse in enumerate(classes):
        axes.plot([worse.winner, worse.teacher], [row, row], color=FAINT_INK, linewidth=1.4)
        axes.plot(worse.teacher, row, marker="*", color=BLACK, markersize=10)
        axes.plot(worse.winner, row, marker=look.marker, color=look.colour, markersize=7)
        axes.annotate(
            f"−{worse.teacher - worse.winner:.1f}", (1, row), xycoords=("axes fraction", "data"),
            xytext=(6, 0), textcoords="offset points", va="center", size=8.5,
        )  # fmt: skip
    axes.set_yticks(range(len(classes)), names)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("recall on the test, %")
    figure.text(0.875, 1 - 22 / height, "points", size=8, va="center")
    handles = [
        Line2D([], [], marker="*", color=BLACK, linestyle="none", label="teacher"),
        Line2D([], [], marker=look.marker, color=look.colour, linestyle="none",
               label=shortened(winner.label, 48)),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="upper left", ncols=2, frameon=False, fontsize=8)
    return figure
