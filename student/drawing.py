"""Pictures of a student: its path weights through time, as a map, and drawn as in the paper."""

from collections.abc import Callable, Container, Sequence
from itertools import pairwise
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from student.network import Student
from student.wiring import Wiring

_BLOCK, _PROXY, _GHOST, _INK = "#555555", "#1f77b4", "#8a8a8a", "#222222"
_SMALL = 7
_FAINT = 0.04  # least opacity, so that a closed path is still seen


def heat_map(wiring: Wiring, alpha: Sequence[float]) -> Figure:
    """Node × path: each row a node, its block in the first column, then proxies by skip length."""
    reach = max((p.target - p.source for p in wiring.of_kind("proxy")), default=0)
    table = np.full((wiring.depth, reach + 1), np.nan)
    for path, weight in zip(wiring.paths, alpha, strict=True):
        column = 0 if path.kind == "block" else path.target - path.source
        table[path.target - 1, column] = weight
    figure = Figure(figsize=(2.6 + 0.62 * (reach + 1), 1.4 + 0.3 * wiring.depth), dpi=110)
    axes = figure.add_subplot()
    image = axes.imshow(table, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    axes.set_xticks(range(reach + 1), ["block", *(f"−{skip}" for skip in range(1, reach + 1))])
    axes.set_yticks(range(wiring.depth), [f"x{node}" for node in range(1, wiring.depth + 1)])
    axes.set_xlabel("path from (nodes back)")
    axes.set_ylabel("node")
    if reach < 8:
        for row, column in np.argwhere(~np.isnan(table)):
            value = table[row, column]
            shade = "black" if value > 0.55 else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=shade, size=7)
    figure.colorbar(image, ax=axes, label="path weight α")
    figure.tight_layout()
    return figure


def architecture(
    wiring: Wiring,
    alpha: Sequence[float],
    *,
    stages: Sequence[int],
    title: str = "",
    ghosts: bool = False,
    replacement: bool = False,
) -> Figure:
    """The network from left to right: pretrained blocks grey, proxies blue, opacity = α.

    Args:
        wiring: the living paths; its depth is below the number of blocks where the top is cut off.
        alpha: their weights in [0, 1].
        stages: the stage of each block of the whole backbone; a gap is left between stages.
        title: above the drawing.
        ghosts: outline the blocks that the wiring lacks; those of a top that is cut off stand
            behind the head.
        replacement: a fresh convolution stands between the last node and the head.
    """
    x = _places(wiring.depth, stages, aside=1.7 + replacement)
    end = x[wiring.depth]
    weights = dict(zip(wiring.paths, alpha, strict=True))
    proxies = wiring.of_kind("proxy")
    reach = max((path.target - path.source for path in proxies), default=0)
    height = 0.5 + 0.16 * reach if proxies else 0.4
    above = 0.35 if proxies else 0.0  # room for the legend
    inches = 1.1 if proxies else 0.6  # of a unit upwards; without arcs the boxes need less
    width = max(x[-1] if ghosts else end + replacement, 5.0) + 2.2
    figure = Figure(figsize=(0.6 + 0.46 * width, 0.3 + inches * (2 * height + above)), dpi=110)
    axes = figure.add_subplot()
    for path in wiring.of_kind("block"):
        opacity = max(_FAINT, weights[path])
        left, right = x[path.source], x[path.target]
        _box(axes, right - 0.5, facecolor=_BLOCK, edgecolor=_INK, alpha=opacity, linewidth=0.8)
        for start, stop in ((left, right - 0.82), (right - 0.18, right)):
            axes.plot([start, stop], [0, 0], color=_BLOCK, alpha=opacity, linewidth=1.4, zorder=0)
        ink = "white" if opacity > 0.5 else _INK
        axes.text(
            right - 0.5, 0, f"G{path.target}", ha="center", va="center", size=_SMALL, color=ink
        )
    for path in proxies:
        skip = path.target - path.source
        side = 1 if path.source % 2 == 0 else -1  # arcs alternate sides, so that few overlap
        arc = FancyArrowPatch(
            (x[path.source], 0.36 * side), (x[path.target], 0.36 * side),
            connectionstyle=f"arc3,rad={-side * (0.42 + 0.5 / (skip + 1)):.2f}",
            arrowstyle="-|>", mutation_scale=7, color=_PROXY, linewidth=1.5,
            alpha=max(_FAINT, weights[path]), zorder=1,
        )  # fmt: skip
        axes.add_patch(arc)
    living = {0, *(path.target for path in wiring.paths)}
    for node in living:
        axes.plot(x[node], 0, "o", color=_INK, markersize=4, zorder=3)
    there = {path.target for path in wiring.of_kind("block")}
    removed = [block for block in range(1, len(stages) + 1) if block not in there]
    if ghosts:
        for block in removed:
            _box(axes, x[block] - 0.5, facecolor="none", edgecolor=_GHOST, linestyle=(0, (2, 2)))
            axes.text(
                x[block] - 0.5, 0, f"G{block}", ha="center", va="center", size=_SMALL, color=_GHOST
            )
    if replacement:
        _box(axes, end + 0.65, facecolor="white", edgecolor=_PROXY, linewidth=1.4)
        axes.text(end + 0.65, 0, "conv", ha="center", va="center", size=_SMALL, color=_PROXY)
    axes.text(-0.25, 0, "stem", ha="right", va="center", size=8)
    axes.text(end + 0.25 + replacement, 0, "head", ha="left", va="center", size=8)
    if proxies:
        axes.plot([], [], color=_BLOCK, linewidth=5, label="pretrained block")
        axes.plot([], [], color=_PROXY, linewidth=2, label="proxy")
        axes.legend(loc="upper right", ncols=2, frameon=False, fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlim(-1.1, width - 1.1)
    axes.set_ylim(-height, height + above)
    axes.axis("off")
    figure.tight_layout()
    return figure


def _places(depth: int, stages: Sequence[int], aside: float) -> list[float]:
    """Where each node of the whole backbone stands; node l sits right of block l.

    Node 0 is the stem's output. The blocks above `depth` stand `aside` to the right.
    """
    gaps = np.cumsum([0, *(int(after != before) for before, after in pairwise(stages))])
    return [0.0] + [
        float(1 + block + 0.3 * gap + (aside if block >= depth else 0))
        for block, gap in enumerate(gaps)
    ]


def _box(axes: Axes, middle: float, **look: Any) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (middle - 0.3, -0.3), 0.6, 0.6, boxstyle="round,pad=0.02,rounding_size=0.08", **look
        )
    )


class StudentPictures:
    """TensorBoard curves of a student after each epoch, and pictures after chosen ones.

    Args:
        stages: the backbone stage of each block, L entries.
        drawn: the epochs to draw, 0 for the start; drawing takes most of a second.
        expected_complexity: E[C] of the student, as a share of the backbone's cost.
    """

    def __init__(
        self,
        stages: Sequence[int],
        drawn: Container[int],
        expected_complexity: Callable[[Student], Tensor],
    ) -> None:
        self._stages, self._drawn = stages, drawn
        self._expected_complexity = expected_complexity

    def __call__(self, writer: SummaryWriter, epoch: int, network: nn.Module) -> None:
        """Every α as a curve, the heat map and the drawing."""
        assert isinstance(network, Student)
        expected = self._expected_complexity(network).item()
        writer.add_scalar("expected_complexity", expected, epoch)
        alpha = network.path_weights().tolist()
        for path, weight in zip(network.wiring.paths, alpha, strict=True):
            name = "block" if path.kind == "block" else f"from-x{path.source}"
            writer.add_scalar(f"path_weight/x{path.target}/{name}", weight, epoch)
        if epoch not in self._drawn:
            return
        writer.add_figure("path_weights", heat_map(network.wiring, alpha), epoch)
        title = f"epoch {epoch}: opacity is the path weight"
        drawing = architecture(network.wiring, alpha, stages=self._stages, title=title)
        writer.add_figure("architecture", drawing, epoch)
