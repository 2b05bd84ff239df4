"""Optuna's own plots of a study, as pictures."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from matplotlib import pyplot
from optuna.trial import FrozenTrial
from optuna.visualization import matplotlib as plots

from nettailor.core.files import write_atomically
from nettailor.report.formatting import STUDY_PLOTS

_NAMES = ["macro F1, %", "parameters", "latency, × teacher"]


def _macro_f1(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def _mistakes(trial: FrozenTrial) -> float:
    # importance is told for low values
    return -_macro_f1(trial)


def write_plots(study: optuna.Study, folder: Path) -> list[Path]:
    """Write the plots of a study with three objectives; returns what was written.

    The front of all trials after their first epochs, and for macro F1 its history and the
    importance of the parameters, which needs a few trials and is rough with less than hundreds.
    """
    draw: Mapping[str, Callable[[], Any]] = {
        "pareto_front.png": partial(plots.plot_pareto_front, study, target_names=_NAMES),
        "optimization_history.png": partial(
            plots.plot_optimization_history, study, target=_macro_f1, target_name=_NAMES[0]
        ),
        "param_importances.png": partial(
            plots.plot_param_importances, study, target=_mistakes, target_name=_NAMES[0]
        ),
    }
    assert draw.keys() == STUDY_PLOTS.keys()
    written = []
    pyplot.switch_backend("agg")
    for name, plot in draw.items():
        with warnings.catch_warnings(), pyplot.style.context("default"):
            warnings.simplefilter("ignore")  # of functions that may change, and of few trials
            try:
                figure = plot().figure
            except (ValueError, RuntimeError):  # too few trials, or all alike
                continue
            figure.set_size_inches(7, 5)
            write_atomically(
                folder / name, partial(figure.savefig, format="png", dpi=100, bbox_inches="tight")
            )
            pyplot.close(figure)
        written.append(folder / name)
    return written
