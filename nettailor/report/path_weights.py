"""The path weights of a tailored run as its student trained, read from its TensorBoard events."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from nettailor.report.runs import Run
from nettailor.report.svg import FAINT_INK, INK
from student.wiring import Path

_TAG = re.compile(r"path_weight/x(\d+)/(?:block|from-x(\d+))")
_NAMED = 60  # proxies: of more only the node they lead into has its name


def read_path_weights(folder: FilePath) -> tuple[list[int], dict[Path, list[float]]]:
    """The epochs and each path's α at each of them; both empty where the events are absent,
    damaged or of no student."""
    found: dict[Path, dict[int, float]] = {}
    accumulator = EventAccumulator(str(folder / "events" / "student"), {SCALARS: 0})
    quiet = logging.getLogger("tensorboard")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)  # a damaged file is told by the missing picture
    try:
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            match = _TAG.fullmatch(tag)
            if match:
                target, source = int(match[1]), match[2]
                path = (
                    Path(target - 1, target, "block")
                    if source is None
                    else Path(int(source), target, "proxy")
                )
                found[path] = {event.step: event.value for event in accumulator.Scalars(tag)}
    except Exception:  # the reader of a damaged file can fail in any way
        return [], {}
    finally:
        quiet.setLevel(level)
    steps = sorted(set.intersection(*map(set, found.values()))) if found else []
    ordered = sorted(found, key=lambda path: (path.target, path.source))
    return steps, {path: [found[path][step] for step in steps] for path in ordered}


def weights_in_time(run: Run, epochs: Sequence[int], weights: Mapping[Path, list[float]]) -> Figure:
    """Two maps of α over epochs: pretrained blocks, and proxies by the node they lead into.

    What the run kept has its name in bold.
    """
    tailored = run.summary.tailored
    kept = {Path(*row[:3]) for row in tailored.paths} if tailored else set()
    blocks = [path for path in weights if path.kind == "block"]
    proxies = [path for path in weights if path.kind == "proxy"]
    few = len(proxies) <= _NAMED
    pitch = 11 if few else 5  # pixels a row
    width, height = 400, max(300, 70 + 14 * len(blocks), 70 + pitch * len(proxies))
    figure = Figure(figsize=(width / 96, height / 96))
    top, bottom = 1 - 24 / height, 46 / height
    table = np.array([weights[path] for path in [*blocks, *proxies]])
    peak = float(table.max(initial=0.0)) or 1.0
    axes = figure.add_axes((0.07, bottom, 0.33, top - bottom))
    _map(axes, table[: len(blocks)], epochs, peak)
    axes.set_title("pretrained blocks", loc="left")
    axes.set_yticks(range(len(blocks)), [f"G{path.target}" for path in blocks], size=8)
    _embolden(axes.get_yticklabels(), [path in kept for path in blocks])
    axes = figure.add_axes((0.53, bottom, 0.33, top - bottom))
    image = _map(axes, table[len(blocks) :], epochs, peak)
    axes.set_title("proxies", loc="left")
    if few:
        names = [f"{path.source}→{path.target}" for path in proxies]
        axes.set_yticks(range(len(proxies)), names, size=7)
        _embolden(axes.get_yticklabels(), [path in kept for path in proxies])
    else:
        targets = [path.target for path in proxies]
        firsts = [row for row, target in enumerate(targets) if targets.index(target) == row]
        axes.set_yticks(firsts, [f"→{targets[row]}" for row in firsts], size=7)
    bar = figure.colorbar(image, cax=figure.add_axes((0.885, bottom, 0.022, top - bottom)))
    bar.set_label("path weight α", labelpad=2)
    bar.ax.tick_params(labelsize=7.5)
    return figure


def _map(axes: Axes, table: NDArray[np.float64], epochs: Sequence[int], peak: float) -> AxesImage:
    axes.grid(False)
    axes.tick_params(axis="y", length=0, pad=2)
    axes.set_xlabel("epoch")
    image = axes.imshow(
        table, vmin=0, vmax=peak, cmap="cividis", aspect="auto", interpolation="none"
    )
    step = max(1, len(epochs) // 5)
    axes.set_xticks(range(0, len(epochs), step), [str(epoch) for epoch in epochs[::step]])
    return image


def _embolden(labels: Sequence[Text], chosen: Sequence[bool]) -> None:
    for label, bold in zip(labels, chosen, strict=True):
        label.set_fontweight("bold" if bold else "normal")
        label.set_color(INK if bold else FAINT_INK)
