"""Optuna's plots of the studies that searched networks came from."""

from collections.abc import Sequence
from typing import NamedTuple

from nettailor.core.printable import printable
from nettailor.report.inline_png import png_uri
from nettailor.report.methods import Method

# files in a study's folder, each with its caption
PLOTS = {
    "pareto_front.png": "All trials after their first epochs, and the front of these",
    "optimization_history.png": "Macro F1 after the first epochs, trial by trial",
    "param_importances.png": "How much each choice matters to macro F1: rough, of few trials",
}
_LARGEST = 1_000_000  # bytes of a plot


class Plot(NamedTuple):
    """A picture as a data URI, and what stands below it."""

    source: str
    caption: str


def study_plots(methods: Sequence[Method]) -> list[Plot]:
    """The plots that lie in the studies of all searched runs, study by study."""
    folders = {
        run.folder.parent.parent / "search" / run.summary.searched.study
        for method in methods
        for run in method.runs
        if run.summary.searched
    }
    return [
        Plot(source, f"{caption}. {printable(folder.name)}")
        for folder in sorted(folders)
        for name, caption in PLOTS.items()
        if (source := png_uri(folder / name, _LARGEST))
    ]
