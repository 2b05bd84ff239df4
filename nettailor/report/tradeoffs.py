"""Test accuracy against what a network costs, with the front of those that nothing beats."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nettailor.report.boxes import Box, place_labels
from nettailor.report.brief import shortened
from nettailor.report.budgets import best_at_budgets
from nettailor.report.looks import Look, look_of
from nettailor.report.measures import accuracy_test, flops, latency_ratio, params
from nettailor.report.methods import Figure as Measure
from nettailor.report.methods import Method, Spread
from nettailor.report.scales import AccuracyScale, label_logarithmic
from nettailor.report.svg import FAINT_INK, INK, widest
from nettailor.report.verdict import pareto_front


@dataclass(frozen=True)
class Cost:
    """What stands on the x axis: a figure over `unit`, on a plain or logarithmic axis."""

    name: str
    label: str
    figure: Measure
    unit: float = 1
    logarithmic: bool = False


COSTS = (
    Cost("flops", "FLOPs (multiply-adds), M", flops, 1e6),
    Cost("parameters", "parameters, M (log axis)", params, 1e6, logarithmic=True),
    Cost("latency", "latency at batch 1 over the teacher's, ×", latency_ratio),
)
_WIDTH, _HEIGHT = 400, 390  # pixels of a page, without more rows in the legend than _ROWS
_AXIS, _ROW, _ROWS = 46, 15, 4  # pixels below the axes without the legend, and a row of that
_PIXELS = 100  # of an inch while labels are placed
_FONT, _LABEL = 8.5, 48  # points; characters of a name, which holds a backbone's at times
_RING = 13  # points: around the marker of what is best within a budget
_CROWD = 14
_LEADER = "#9aa4af"


_Corners = list[tuple[float, float]]


@dataclass(frozen=True)
class _Point:
    label: str
    cost: float
    accuracy: Spread
    look: Look
    best: bool  # within a budget


def tradeoff(methods: Sequence[Method], cost: Cost) -> Figure:
    """Means with the seeds' spread; methods whose test accuracy is unknown are not drawn.

    Labels cover neither each other nor markers; one for which there is no room is left out.
    """
    best = {found.method for found in best_at_budgets(methods)}
    points = [
        _Point(
            shortened(method.label, _LABEL),
            value / cost.unit,
            accuracy,
            look_of(method),
            method in best,
        )
        for method in methods
        if (accuracy := method.spread(accuracy_test)) is not None
        and (value := method.mean(cost.figure)) is not None
    ]
    images = len(methods[0].runs[0].predictions["test"])
    # many points, or long names, need more room than a panel has
    width = _WIDTH + max(0.0, widest([point.label for point in points], _FONT) - 120)
    rows = ceil((len(_looks(points)) + 2) / 2)  # in two columns, with the front and the ring
    height, foot = _HEIGHT + _ROW * max(0, rows - _ROWS), _AXIS + _ROW * max(_ROWS, rows)
    if len(points) > _CROWD:
        width, height = width + 16 * (len(points) - _CROWD), height + 12 * (len(points) - _CROWD)
    figure = Figure(figsize=(width / 96, height / 96), dpi=_PIXELS)
    axes = figure.add_axes((58 / width, foot / height, 1 - 70 / width, 1 - (foot + 10) / height))
    ends = [
        end
        for point in points
        for end in (
            point.accuracy.mean - (point.accuracy.deviation or 0),
            min(100.0, point.accuracy.mean + (point.accuracy.deviation or 0)),
        )
    ]
    scale = AccuracyScale(ends or [0, 100], images)
    axes.set_xscale("log" if cost.logarithmic else "linear")
    axes.margins(x=0.1)
    front = _draw_front(axes, points, scale)
    for point in points:
        _draw_point(axes, point, scale)
    scale.dress(axes, "test accuracy")
    axes.set_xlabel(cost.label)
    if cost.logarithmic:
        label_logarithmic(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    _draw_labels(figure, axes, points, scale, front)
    _draw_legend(figure, points)
    return figure


def _draw_front(axes: Axes, points: Sequence[_Point], scale: AccuracyScale) -> _Corners:
    """Steps: up to the next member's cost, the one before is the best to be had."""
    front = [points[i] for i in pareto_front([(p.cost, p.accuracy.mean) for p in points])]
    members = [(point.cost, scale.place(point.accuracy.mean)) for point in front]
    corners = members[:1]
    for cost, place in members[1:]:
        corners += [(cost, corners[-1][1]), (cost, place)]
    axes.plot(
        [x for x, _ in corners], [y for _, y in corners],
        color=FAINT_INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1,
    )  # fmt: skip
    return corners


def _draw_point(axes: Axes, point: _Point, scale: AccuracyScale) -> None:
    look, mean = point.look, point.accuracy.mean
    if point.accuracy.deviation is not None:
        ends = [mean - point.accuracy.deviation, mean + point.accuracy.deviation]
        axes.plot(
            [point.cost] * 2, [scale.place(max(0.0, end)) for end in ends],
            color=look.colour, linewidth=1.2, marker="_", markersize=5, zorder=2,
        )  # fmt: skip
    axes.plot(
        point.cost, scale.place(mean), marker=look.marker, color=look.colour, linestyle="none",
        markerfacecolor=look.face, markeredgecolor=INK if look.face == look.colour else look.colour,
        markeredgewidth=0.6 if look.face == look.colour else 1.4,
        markersize=_marker_size(look), zorder=3,
    )  # fmt: skip
    if point.best:
        axes.plot(
            point.cost, scale.place(mean), marker="o", color=INK, linestyle="none",
            markerfacecolor="none", markeredgewidth=0.9, markersize=_RING, zorder=4,
        )  # fmt: skip


def _marker_size(look: Look) -> float:
    return {"*": 11, "D": 6}.get(look.marker, 7)


def _draw_labels(
    figure: Figure, axes: Axes, points: Sequence[_Point], scale: AccuracyScale, front: _Corners
) -> None:
    """Each point's name where it covers nothing, with a thin line where that is not beside it."""
    per_point = _PIXELS / 72
    centres, sizes, obstacles = [], [], []
    for point in points:
        x, y = axes.transData.transform((point.cost, scale.place(point.accuracy.mean)))
        centres.append((float(x), float(y)))
        size = _RING if point.best else _marker_size(point.look)
        half = (size / 2 + 1.5) * per_point
        obstacles.append(Box(x - half, y - half, x + half, y + half))
        deviation = point.accuracy.deviation or 0
        low, high = (
            axes.transData.transform((point.cost, scale.place(max(0.0, end))))[1]
            for end in (point.accuracy.mean - deviation, point.accuracy.mean + deviation)
        )
        bar = 3.5 * per_point
        obstacles.append(Box(x - bar, low - 2, x + bar, high + 2))
        probe = figure.text(0, 0, point.label, size=_FONT)
        extent = probe.get_window_extent()
        probe.remove()
        sizes.append((extent.width + 3, extent.height + 1))
    corners = [axes.transData.transform(corner) for corner in front]
    for start, stop in pairwise(corners):
        (x0, x1), (y0, y1) = sorted((start[0], stop[0])), sorted((start[1], stop[1]))
        obstacles.append(Box(x0 - 1.5, y0 - 1.5, x1 + 1.5, y1 + 1.5))
    inside = axes.get_window_extent()
    gap = 9 * per_point
    bounds = Box(inside.x0 + 3, inside.y0 + 3, inside.x1 + 3, inside.y1)
    boxes = place_labels(centres, sizes, obstacles, bounds, gap)
    to_figure = figure.transFigure.inverted()
    for point, centre, box in zip(points, centres, boxes, strict=True):
        if box is None:
            continue
        x, y = to_figure.transform(((box.left + box.right) / 2, (box.bottom + box.top) / 2))
        figure.text(x, y, point.label, size=_FONT, ha="center", va="center")
        end = box.nearest(*centre)
        if abs(end[0] - centre[0]) + abs(end[1] - centre[1]) > 1.7 * gap:
            line = to_figure.transform([centre, end])
            figure.add_artist(
                Line2D(line[:, 0], line[:, 1], color=_LEADER, linewidth=0.8, zorder=0)
            )


def _looks(points: Sequence[_Point]) -> list[Look]:
    """The kinds of networks that are drawn, as the legend lists them."""
    return list(dict.fromkeys(point.look for point in points))


def _draw_legend(figure: Figure, points: Sequence[_Point]) -> None:
    handles = [
        Line2D(
            [], [], linestyle="none", marker=look.marker, color=look.colour,
            markerfacecolor=look.face, markeredgecolor=look.colour,
            markersize=_marker_size(look) * 0.85, label=look.name,
        )
        for look in _looks(points)
    ]  # fmt: skip
    handles.append(
        Line2D([], [], color=FAINT_INK, linewidth=1.1, linestyle=(0, (4, 2)), label="Pareto front")
    )
    handles.append(
        Line2D(
            [], [], linestyle="none", marker="o", color=INK, markerfacecolor="none",
            markeredgewidth=0.9, markersize=_RING * 0.85, label="best within a budget",
        )
    )  # fmt: skip
    figure.legend(
        handles=handles, loc="lower center", ncols=2, frameon=False, fontsize=8,
        handletextpad=0.4, columnspacing=1.6, borderpad=0.1, borderaxespad=0.2,
    )  # fmt: skip
