"""Pictures of a student: its path weights as a map, and the network drawn as in the paper."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from numpy.typing import NDArray

from nettailor.student.wiring import Kind, Path, Wiring

_BLOCK, _IDENTITY, _PROXY, _EXIT = "#555555", "#222222", "#1f77b4", "#e69f00"
_GHOST, _INK = "#8a8a8a", "#222222"
_DASHED = (0, (2, 2))  # the outline of what is gone
_SMALL = 7
_HEIGHT = 0.6  # of a box with all of its channels
_FAINT = 0.04  # least opacity, so that a closed path is still seen
_LEGEND: dict[Kind, tuple[str, float, str]] = {
    "block": (_BLOCK, 5, "pretrained block"),
    "identity": (_IDENTITY, 1, "identity"),
    "proxy": (_PROXY, 2, "proxy"),
    "exit": (_EXIT, 5, "exit"),
}  # by kind: colour, width of its line in points, words


def heat_map(wiring: Wiring, alpha: Sequence[float]) -> Figure:
    """Node × path: the paths into each node, and beside them those that lead from it to the logits.

    Columns: block, identity, proxies by skip length; then exit and head of a student with exits.
    """
    exits = wiring.of_kind("exit")
    reach = max((path.target - path.source for path in wiring.of_kind("proxy")), default=0)
    before = ["block", *(["identity"] if wiring.of_kind("identity") else [])]
    into = before + [f"−{skip}" for skip in range(1, reach + 1)]
    first = min([1, *(path.source for path in exits)])
    nodes = range(first, wiring.depth)
    table = np.full((len(nodes), len(into)), np.nan)
    reading = np.full((len(nodes), 2), np.nan)
    for path, weight in zip(wiring.paths, alpha, strict=True):
        if path.target == wiring.depth:
            reading[path.source - first, int(path.kind == "head")] = weight
        else:
            skip = path.target - path.source
            column = into.index(f"−{skip}" if path.kind == "proxy" else path.kind)
            table[path.target - first, column] = weight
    columns = len(into) + (2.4 if exits else 0)
    figure = Figure(
        figsize=(2.6 + 0.62 * columns, 1.4 + 0.3 * len(nodes)), dpi=110, layout="constrained"
    )
    shares = [len(into), 2] if exits else [len(into)]
    axes, *beside = figure.subplots(
        1, len(shares), sharey=True, squeeze=False, width_ratios=shares
    )[0]
    image = _cells(axes, table, into, numbers=reach < 8)
    axes.set_yticks(range(len(nodes)), [f"x{node}" for node in nodes])
    axes.set_xlabel("path from (nodes back)" if reach else "path into the node")
    axes.set_ylabel("node")
    for logits in beside:
        _cells(logits, reading, ["exit", "head"], numbers=reach < 8)
        logits.set_xlabel("to the logits")
        logits.tick_params(axis="y", left=False, labelleft=False)
    figure.colorbar(image, ax=[axes, *beside], label="path weight α")
    return figure


def _cells(
    axes: Axes, table: NDArray[np.float64], columns: Sequence[str], *, numbers: bool
) -> AxesImage:
    """Weights as colours, with their numbers in them; nothing where there is no path."""
    image = axes.imshow(table, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    axes.set_xticks(range(len(columns)), columns, size=8)
    if numbers:
        for row, column in np.argwhere(~np.isnan(table)):
            value = table[row, column]
            shade = "black" if value > 0.55 else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=shade, size=7)
    return image


def architecture(
    wiring: Wiring,
    alpha: Sequence[float],
    *,
    stages: Sequence[int],
    title: str = "",
    ghosts: bool = False,
    replacement: bool = False,
    image_size: int | None = None,
    channels: Mapping[int, float] | None = None,
) -> Figure:
    """The network from left to right, opacity = α.

    Pretrained blocks and head are grey, an identity is a thin line in the place of its block, or
    over it where both are there; proxies are blue, and exits orange below the node they read.

    Args:
        wiring: the living paths; of fewer blocks than the backbone where the top is cut off.
        alpha: their weights in [0, 1].
        stages: the stage of each block of the whole backbone; a gap is left between stages.
        title: above the drawing.
        ghosts: outline the blocks that the wiring lacks; those of a top that is cut off stand
            behind the head.
        replacement: a fresh convolution stands between the last node and the head.
        image_size: side of its images in pixels, said beside the stem.
        channels: by number of a block, which part of its channels is left: its height.
    """
    last = wiring.depth - 1
    x = _places(last, stages, aside=1.4 + replacement)
    weights = {path: max(_FAINT, weight) for path, weight in zip(wiring.paths, alpha, strict=True)}
    kinds = [kind for kind in _LEGEND if wiring.of_kind(kind)]
    named = any(kind != "block" for kind in kinds)  # blocks alone explain themselves
    gone = (ghosts and len(wiring.of_kind("block")) < len(stages)) or bool(channels)
    entries = len(kinds) + gone
    reach = max((path.target - path.source for path in wiring.of_kind("proxy")), default=0)
    arcs = 0.5 + 0.16 * reach if reach else 0.4 + 0.1 * ("identity" in kinds)
    inches = 1.1 if reach else 0.6  # of a unit upwards; without arcs the boxes need less
    exit_height = 0.34 / inches
    top = arcs + (0.32 / inches if named else 0)  # room for the legend
    bottom = -arcs - (exit_height + 0.15 if "exit" in kinds else 0)
    right = max(x[-1] if ghosts else x[last] + replacement, 5.0, 2.4 * entries) + 1.1
    figure = Figure(figsize=(0.6 + 0.46 * (right + 1.1), 0.3 + inches * (top - bottom)), dpi=110)
    axes = figure.add_subplot()
    _draw_blocks(axes, wiring, weights, x, channels or {}, ghosts=len(stages) if ghosts else 0)
    _draw_proxies(axes, wiring, weights, x)
    for path in wiring.of_kind("exit"):
        middle = bottom + 0.05 + exit_height / 2
        axes.plot(
            [x[path.source]] * 2, [0, middle + exit_height / 2],
            color=_EXIT, alpha=weights[path], linewidth=1.4, zorder=0,
        )  # fmt: skip
        _box(
            axes, x[path.source], f"exit\nx{path.source}", y=middle, height=exit_height,
            facecolor=_EXIT, edgecolor=_INK, alpha=weights[path], linewidth=0.8,
        )  # fmt: skip
    for path in wiring.of_kind("head"):
        place = x[last] + 0.65 + replacement
        axes.plot(
            [x[last], place - 0.3], [0, 0],
            color=_BLOCK, alpha=weights[path], linewidth=1.4, zorder=0,
        )  # fmt: skip
        _draw_pretrained(axes, place, "head", weights[path])
    for node in {0, *(path.target for path in wiring.paths)} - {wiring.depth}:
        axes.plot(x[node], 0, "o", color=_INK, markersize=4, zorder=3)
    if replacement:
        _box(
            axes, x[last] + 0.65, "conv", ink=_PROXY,
            facecolor="white", edgecolor=_PROXY, linewidth=1.4,
        )  # fmt: skip
    begins = "stem" if image_size is None else f"{image_size} px\nstem"
    axes.text(-0.25, 0, begins, ha="right", va="center", size=8)
    if named:
        for colour, width, words in (_LEGEND[kind] for kind in kinds):
            axes.plot([], [], color=colour, linewidth=width, label=words)
        if gone:
            axes.plot([], [], color=_GHOST, linestyle=_DASHED, label="taken out")
        axes.legend(loc="upper right", ncols=entries, frameon=False, fontsize=8, borderpad=0)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlim(-1.1, right)
    axes.set_ylim(bottom, top)
    axes.axis("off")
    figure.tight_layout()
    return figure


def _draw_blocks(
    axes: Axes,
    wiring: Wiring,
    weights: Mapping[Path, float],
    x: Sequence[float],
    channels: Mapping[int, float],
    *,
    ghosts: int,
) -> None:
    """Blocks, identities, and outlines of those of the first `ghosts` blocks that are not there."""
    blocks = {path.target for path in wiring.of_kind("block")}
    bare = {path.target for path in wiring.of_kind("identity")} - blocks
    for path in wiring.of_kind("block"):
        left, right = x[path.source], x[path.target]
        part = channels.get(path.target, 1.0)
        _draw_pretrained(axes, right - 0.5, f"G{path.target}", weights[path], part)
        for ends in ((left, right - 0.82), (right - 0.18, right)):
            axes.plot(ends, [0, 0], color=_BLOCK, alpha=weights[path], linewidth=1.4, zorder=0)
    for path in wiring.of_kind("identity"):
        left, right = x[path.source], x[path.target]
        over = 0.0 if path.target in bare else 0.42
        axes.plot(
            [left, right - 0.85, right - 0.15, right], [0, over, over, 0],
            color=_IDENTITY, alpha=weights[path], linewidth=0.9, zorder=0,
        )  # fmt: skip
    for block in set(range(1, ghosts + 1)) - blocks:
        _box(
            axes, x[block] - 0.5, f"G{block}", ink=_GHOST,
            lift=0.16 if block in bare else 0.0,  # above the line of an identity
            facecolor="none", edgecolor=_GHOST, linestyle=_DASHED,
        )  # fmt: skip


def _draw_pretrained(
    axes: Axes, middle: float, name: str, opacity: float, part: float = 1.0
) -> None:
    """The grey box of a block or of the head; part: of its channels, within the outline of all."""
    if part < 1:
        _box(axes, middle, "", facecolor="none", edgecolor=_GHOST, linestyle=_DASHED)
    _box(
        axes, middle, name, ink="white" if opacity > 0.5 else _INK, height=_HEIGHT * max(part, 0.3),
        facecolor=_BLOCK, edgecolor=_INK, alpha=opacity, linewidth=0.8,
    )  # fmt: skip


def _draw_proxies(
    axes: Axes, wiring: Wiring, weights: Mapping[Path, float], x: Sequence[float]
) -> None:
    for path in wiring.of_kind("proxy"):
        skip = path.target - path.source
        side = 1 if path.source % 2 == 0 else -1  # arcs alternate sides, so that few overlap
        arc = FancyArrowPatch(
            (x[path.source], 0.36 * side), (x[path.target], 0.36 * side),
            connectionstyle=f"arc3,rad={-side * (0.42 + 0.5 / (skip + 1)):.2f}",
            arrowstyle="-|>", mutation_scale=7, color=_PROXY, linewidth=1.5,
            alpha=weights[path], zorder=1,
        )  # fmt: skip
        axes.add_patch(arc)


def _places(depth: int, stages: Sequence[int], aside: float) -> list[float]:
    """Where each node of the whole backbone stands; node l sits right of block l.

    Node 0 is the stem's output. The blocks above `depth` stand `aside` to the right.
    """
    gaps = np.cumsum([0, *(int(after != before) for before, after in pairwise(stages))])
    return [0.0] + [
        float(1 + block + 0.3 * gap + (aside if block >= depth else 0))
        for block, gap in enumerate(gaps)
    ]


def _box(
    axes: Axes,
    middle: float,
    name: str,
    *,
    y: float = 0.0,
    height: float = _HEIGHT,
    lift: float = 0.0,
    ink: str = _INK,
    **look: Any,
) -> None:
    """A rounded box with its name in it, `lift` above the middle."""
    axes.add_patch(
        FancyBboxPatch(
            (middle - 0.3, y - height / 2), 0.6, height,
            boxstyle="round,pad=0.02,rounding_size=0.08", **look,
        )
    )  # fmt: skip
    if name:
        axes.text(middle, y + lift, name, ha="center", va="center", size=_SMALL, color=ink)
