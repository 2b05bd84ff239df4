"""The path weights of a tailored run as its student trained, read from its TensorBoard events."""

import logging
import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from nettailor.report.runs import Run
from nettailor.report.svg import FAINT_INK, INK
from nettailor.student.wiring import KINDS, Path

_TAG = re.compile(
    r"path_weight/(?:x(\d+)/(?:(block|identity)|from-x(\d+))|logits/(?:head|exit-x(\d+)))"
)
_NAMED = 60  # proxies: of more only the node they lead into has its name
# pixels: a map's width and the names beside it, a row, from one map to that below it, and what is
# above and below all maps
_MAP, _NAMES, _ROW, _BETWEEN, _EDGES = 124, 44, 14, 66, 70


def read_path_weights(run: Run) -> tuple[list[int], dict[Path, list[float]]]:
    """The epochs and each path's α at each of them; both empty where the events are absent,
    damaged or of no student."""
    logits = len(run.summary.stages) + 1
    found: dict[Path, dict[int, float]] = {}
    accumulator = EventAccumulator(str(run.folder / "events" / "student"), {SCALARS: 0})
    quiet = logging.getLogger("tensorboard")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)  # a damaged file is told by the missing picture
    try:
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            match = _TAG.fullmatch(tag)
            if match:
                path = _path(match, logits)
                found[path] = {event.step: event.value for event in accumulator.Scalars(tag)}
    except Exception:  # the reader of a damaged file can fail in any way
        return [], {}
    finally:
        quiet.setLevel(level)
    steps = sorted(set.intersection(*map(set, found.values()))) if found else []
    ordered = sorted(found, key=lambda path: (path.target, KINDS.index(path.kind), path.source))
    return steps, {path: [found[path][step] for step in steps] for path in ordered}


def _path(tag: re.Match[str], logits: int) -> Path:
    """The path that a tag tells of; `logits` is their node's number."""
    node, kind, proxy, read = tag.groups()
    if read is not None:
        return Path(int(read), logits, "exit")
    if node is None:
        return Path(logits - 1, logits, "head")
    if proxy is not None:
        return Path(int(proxy), int(node), "proxy")
    return Path(int(node) - 1, int(node), "block" if kind == "block" else "identity")


def weights_in_time(run: Run, epochs: Sequence[int], weights: Mapping[Path, list[float]]) -> Figure:
    """Maps of α over epochs: blocks, each identity in the row of its block, exits and head below
    where there are exits, and proxies by the node they lead into.

    What the run kept has its name in bold.
    """
    tailored = run.summary.tailored
    kept = {Path(*row[:3]) for row in tailored.paths} if tailored else set()
    of = {kind: [path for path in weights if path.kind == kind] for kind in KINDS}
    blocks, proxies = of["block"], of["proxy"]
    heads = [*of["exit"], *of["head"]] if of["exit"] else []
    few = len(proxies) <= _NAMED
    pitch = 11 if few else 5  # pixels a row of proxies
    below = _ROW * len(heads) + _BETWEEN if heads else 0
    height = max(300, _EDGES + max(_ROW * len(blocks) + below, pitch * len(proxies)))
    columns = 1 + bool(of["identity"]) + bool(proxies)
    width = columns * (_MAP + _NAMES) + 66
    figure = Figure(figsize=(width / 96, height / 96))
    peak = max((value for values in weights.values() for value in values), default=0.0) or 1.0

    def draw(
        title: str, rows: Sequence[Path | None], column: int, span: int, low: int, tall: int
    ) -> tuple[Axes, AxesImage]:
        """A map between two heights, in pixels, with a row each, empty where there is no path."""
        left, wide = _NAMES + column * (_MAP + _NAMES), _MAP + (span - 1) * (_MAP + _NAMES)
        axes = figure.add_axes((left / width, low / height, wide / width, tall / height))
        nothing = [np.nan] * len(epochs)
        table = np.array([weights[path] if path else nothing for path in rows])
        return axes, _map(axes, table, epochs, peak, title)

    foot, upper = 46, height - _EDGES - below
    axes, image = draw("pretrained blocks", blocks, 0, 1, foot + below, upper)
    _name(axes, [f"G{path.target}" for path in blocks], [path in kept for path in blocks])
    if of["identity"]:
        beside = {path.target: path for path in of["identity"]}
        rows = [beside.get(path.target) for path in blocks]
        axes, _ = draw("identities", rows, 1, 1, foot + below, upper)
        names = [f"G{path.target}" if path else "" for path in rows]
        _name(axes, names, [path in kept for path in rows])
    if heads:
        axes, _ = draw("exits and head", heads, 0, 1 + bool(of["identity"]), foot, below - _BETWEEN)
        names = ["head" if path.kind == "head" else f"x{path.source}" for path in heads]
        _name(axes, names, [path in kept for path in heads])
    if proxies:
        axes, _ = draw("proxies", proxies, columns - 1, 1, foot, height - _EDGES)
        if few:
            names = [f"{path.source}→{path.target}" for path in proxies]
            _name(axes, names, [path in kept for path in proxies], size=7)
        else:
            targets = [path.target for path in proxies]
            firsts: list[int] = []
            for place, target in enumerate(targets):
                # a name is higher than a row
                if target not in targets[:place] and (not firsts or place - firsts[-1] > 1):
                    firsts.append(place)
            axes.set_yticks(firsts, [f"→{targets[place]}" for place in firsts], size=7)
    corner = ((width - 56) / width, foot / height, 9 / width, (height - _EDGES) / height)
    bar = figure.colorbar(image, cax=figure.add_axes(corner))
    bar.set_label("path weight α", labelpad=2)
    bar.ax.tick_params(labelsize=7.5)
    return figure


def _map(
    axes: Axes, table: NDArray[np.float64], epochs: Sequence[int], peak: float, title: str
) -> AxesImage:
    axes.grid(False)
    axes.set_title(title, loc="left")
    axes.tick_params(axis="y", length=0, pad=2)
    axes.set_xlabel("epoch")
    image = axes.imshow(
        table, vmin=0, vmax=peak, cmap="cividis", aspect="auto", interpolation="none"
    )
    step = max(1, len(epochs) // 5)
    axes.set_xticks(range(0, len(epochs), step), [str(epoch) for epoch in epochs[::step]])
    return image


def _name(axes: Axes, names: Sequence[str], chosen: Sequence[bool], *, size: int = 8) -> None:
    """A name for each row, that of a chosen one in bold."""
    axes.set_yticks(range(len(names)), names, size=size)
    for label, bold in zip(axes.get_yticklabels(), chosen, strict=True):
        label.set_fontweight("bold" if bold else "normal")
        label.set_color(INK if bold else FAINT_INK)
