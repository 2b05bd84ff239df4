"""Pictures of a student: its path weights through time, as a map, and drawn as in the paper."""

from collections.abc import Callable, Container, Sequence
from itertools import pairwise

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from student.network import Student
from student.wiring import Wiring

_BLOCK, _PROXY, _INK = "#555555", "#1f77b4", "#222222"
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
    wiring: Wiring, alpha: Sequence[float], *, stages: Sequence[int], title: str
) -> Figure:
    """The network from left to right: universal blocks grey, proxies blue, opacity = α.

    Args:
        wiring: the living paths.
        alpha: their weights in [0, 1].
        stages: the backbone stage of each block, L entries; a gap is left between stages.
        title: above the drawing.
    """
    gaps = np.cumsum([0, *(int(after != before) for before, after in pairwise(stages))])
    # node l sits right of block l; node 0 is the stem's output
    x = [0.0, *(float(1 + i + 0.3 * gaps[i]) for i in range(wiring.depth))]
    figure = Figure(figsize=(0.6 + 0.46 * (x[-1] + 2.2), 3.4), dpi=110)
    axes = figure.add_subplot()
    weights = dict(zip(wiring.paths, alpha, strict=True))
    for path in wiring.of_kind("block"):
        opacity = max(_FAINT, weights[path])
        left, right = x[path.source], x[path.target]
        box = FancyBboxPatch(
            (right - 0.8, -0.3), 0.6, 0.6, boxstyle="round,pad=0.02,rounding_size=0.08",
            facecolor=_BLOCK, edgecolor=_INK, alpha=opacity, linewidth=0.8,
        )  # fmt: skip
        axes.add_patch(box)
        for start, end in ((left, right - 0.82), (right - 0.18, right)):
            axes.plot([start, end], [0, 0], color=_BLOCK, alpha=opacity, linewidth=1.4, zorder=0)
        ink = "white" if opacity > 0.5 else _INK
        axes.text(right - 0.5, 0, f"G{path.target}", ha="center", va="center", size=7, color=ink)
    for path in wiring.of_kind("proxy"):
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
    for node, place in enumerate(x):
        if node in living:
            axes.plot(place, 0, "o", color=_INK, markersize=4, zorder=3)
    axes.text(-0.25, 0, "stem", ha="right", va="center", size=8)
    axes.text(x[-1] + 0.25, 0, "head", ha="left", va="center", size=8)
    axes.plot([], [], color=_BLOCK, linewidth=5, label="universal block")
    axes.plot([], [], color=_PROXY, linewidth=2, label="proxy")
    axes.legend(loc="upper right", ncols=2, frameon=False, fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    height = 0.7 + 0.2 * max((p.target - p.source for p in wiring.paths), default=1)
    axes.set_xlim(-1.1, x[-1] + 1.1)
    axes.set_ylim(-height, height + 0.25)
    axes.axis("off")
    figure.tight_layout()
    return figure


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
