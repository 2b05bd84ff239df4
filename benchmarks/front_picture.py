"""The picture of `frontier.py`: accuracy against FLOPs, a panel a set of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from seeds import Rows

from nettailor.report.plots import plot_style
from nettailor.report.tables import pareto_front

LOOKS: dict[str, dict[str, Any]] = {
    "teacher": {"marker": "*", "color": "#000000", "markersize": 12},
    "fixed removal": {"marker": "s", "color": "#e69f00"},
    "fixed removal, distilled": {"marker": "s", "color": "#e69f00", "markerfacecolor": "white"},
    "channels alone": {"marker": "P", "color": "#009e73"},
    "blocks alone": {"marker": "D", "color": "#56b4e9"},
    "tailored": {"marker": "o", "color": "#0072b2", "markersize": 9},
}


def kind_of(network: str) -> str:
    """Which look a row of a table has."""
    if network.startswith(("first", "whole")):
        return "fixed removal, distilled" if "distilled" in network else "fixed removal"
    if network.startswith("channels"):
        return "channels alone"
    return network.partition(" to ")[0]


def draw(sets: Mapping[str, Sequence[Rows]], file: Path) -> None:
    """Write means over seeds as an SVG; bars are standard errors of tailored accuracies.

    The line is the front of fixed removal and channels: nothing of theirs is leaner and as
    accurate.

    Args:
        sets: by name the rows of each seed, the same networks in the same order.
        file: is overwritten.
    """
    with plot_style():
        figure = Figure(figsize=(1.0 + 5.2 * len(sets), 4.4))
        panels = figure.subplots(1, len(sets), squeeze=False)[0]
        for axes, (name, seeds) in zip(panels, sets.items(), strict=True):
            frame = pd.DataFrame(
                {
                    "kind": kind_of(rows[0]["network"]),
                    "cost": mean(row["flops"] for row in rows),
                    "accuracy": mean(row["test"] for row in rows),
                }
                for rows in zip(*seeds, strict=True)
            )
            images = sum(rows[0]["tested"] for rows in seeds)
            rivals = frame[frame["kind"].str.startswith(("fixed", "channels"))]
            front = pareto_front(rivals)
            axes.step(
                front["cost"], front["accuracy"], where="post", color="#57606a", ls="--",
                label="front of the rivals",
            )  # fmt: skip
            for kind, look in LOOKS.items():
                these = frame[frame["kind"] == kind]
                if these.empty:
                    continue
                share = these["accuracy"] / 100
                error = 100 * (share * (1 - share) / images) ** 0.5
                axes.errorbar(
                    these["cost"], these["accuracy"], yerr=error if kind == "tailored" else None,
                    label=kind, linestyle="none", capsize=3, **look,
                )  # fmt: skip
            axes.set_xscale("log")
            axes.set_xticks([0.05, 0.1, 0.2, 0.5, 1])
            axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}"))
            axes.minorticks_off()
            axes.set_title(name)
            axes.set_xlabel("FLOPs, over the teacher's")
        panels[0].set_ylabel("test accuracy, %")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(file, metadata={"Date": None, "Creator": None})
