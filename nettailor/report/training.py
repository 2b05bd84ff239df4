"""How the methods trained: validation accuracy and loss by epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nettailor.report.boxes import spread_out
from nettailor.report.brief import shortened
from nettailor.report.curves import Epoch
from nettailor.report.looks import Look, look_of
from nettailor.report.methods import Method
from nettailor.report.runs import Run
from nettailor.report.scales import AccuracyScale, label_logarithmic
from nettailor.report.svg import FAINT_INK, widest

_WIDTH, _LINE = 400, 13  # pixels: of a picture, and from one label to the next
# methods of one kind share a colour; their dashes tell them apart
_DASHES: tuple[tuple[float, ...], ...] = (
    (), (5, 1.5), (1.5, 1.2), (6, 1.5, 1.5, 1.5), (9, 2), (3, 3),
)  # fmt: skip


@dataclass(frozen=True)
class _Line:
    label: str
    look: Look
    dashes: tuple[float, ...]
    epochs: tuple[Epoch, ...]
    cut: int | None  # epochs before the cut, of a tailored run


def kept_epochs(run: Run) -> tuple[Epoch, ...]:
    """The epochs that led to the run's network: of a tailored one the student's and those of the
    depth that was kept, without the other depths tried."""
    tailored = run.summary.tailored
    if tailored is None:
        return run.epochs
    return tuple(epoch for epoch in run.epochs if epoch.stage in ("student", tailored.depth))


def _lines(methods: Sequence[Method]) -> list[_Line]:
    lines: list[_Line] = []
    for method in methods:
        run, look = method.runs[0], look_of(method)
        epochs = kept_epochs(run)
        alike = sum(line.look.colour == look.colour for line in lines)
        cut = None
        if run.summary.tailored:
            cut = sum(epoch.stage == "student" for epoch in epochs)
        lines.append(
            _Line(shortened(method.label, 48), look, _DASHES[alike % len(_DASHES)], epochs, cut)
        )
    return [line for line in lines if line.epochs]


def accuracy_curves(methods: Sequence[Method]) -> Figure:
    """Validation accuracy of each method's first seed."""
    lines = _lines(methods)
    images = len(methods[0].runs[0].predictions["val"])
    figure, axes = _frame(lines)
    scale = AccuracyScale([epoch.accuracy for line in lines for epoch in line.epochs], images)
    _draw(axes, lines, [[scale.place(epoch.accuracy) for epoch in line.epochs] for line in lines])
    scale.dress(axes, "validation accuracy")
    _name_lines(figure, axes, lines, [scale.place(line.epochs[-1].accuracy) for line in lines])
    return figure


def loss_curves(methods: Sequence[Method]) -> Figure:
    """Validation loss of each method's first seed, on a logarithmic axis."""
    lines = _lines(methods)
    figure, axes = _frame(lines)
    axes.set_yscale("log")
    _draw(axes, lines, [[max(epoch.loss, 1e-6) for epoch in line.epochs] for line in lines])
    axes.set_ylabel("validation loss, nats (log axis)")
    label_logarithmic(axes.yaxis)
    _name_lines(figure, axes, lines, [max(line.epochs[-1].loss, 1e-6) for line in lines])
    return figure


def _frame(lines: Sequence[_Line]) -> tuple[Figure, Axes]:
    """A picture with room for the lines' names beside its axes."""
    names = 42 + widest([line.label for line in lines], 8)
    width, height = _WIDTH + max(0.0, names - 150), max(400, 80 + _LINE * len(lines))
    figure = Figure(figsize=(width / 96, height / 96))
    axes = figure.add_axes((56 / width, 42 / height, 1 - (56 + names) / width, 1 - 52 / height))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure, axes


def _draw(axes: Axes, lines: Sequence[_Line], values: Sequence[Sequence[float]]) -> None:
    """A line each, with a ring where the student was cut."""
    for line, heights in zip(lines, values, strict=True):
        colour = line.look.colour
        epochs = range(1, len(heights) + 1)
        axes.plot(epochs, heights, color=colour, linestyle=(0, line.dashes), linewidth=1.5)
        if line.cut and line.cut < len(heights):
            axes.plot(
                line.cut, heights[line.cut - 1], marker="o", color=colour, markersize=5,
                markerfacecolor="white", zorder=3,
            )  # fmt: skip
    axes.set_xlim(left=0.5)


def _name_lines(figure: Figure, axes: Axes, lines: Sequence[_Line], last: Sequence[float]) -> None:
    """Each line's name beside the axes, moved apart where lines end close together."""
    to_figure = figure.transFigure.inverted()
    pixel_x, pixel_y = 1 / (96 * figure.get_figwidth()), 1 / (96 * figure.get_figheight())
    ends = [
        to_figure.transform(axes.transData.transform((len(line.epochs), value)))
        for line, value in zip(lines, last, strict=True)
    ]
    places = spread_out([float(end[1]) for end in ends], _LINE * pixel_y, 0.03, 0.97)
    edge = axes.get_position().x1
    key = (edge + 16 * pixel_x, edge + 34 * pixel_x)  # a stretch of the line before its name
    for line, end, place in zip(lines, ends, places, strict=True):
        leader = Line2D(
            [end[0], edge, key[0] - 2 * pixel_x], [end[1], end[1], place],
            color=FAINT_INK, linewidth=0.5, alpha=0.6,
        )  # fmt: skip
        figure.add_artist(leader)
        sample = Line2D(
            key, [place, place],
            color=line.look.colour, linestyle=(0, line.dashes), linewidth=1.5,
        )  # fmt: skip
        figure.add_artist(sample)
        figure.text(key[1] + 4 * pixel_x, place, line.label, size=8, va="center", ha="left")
