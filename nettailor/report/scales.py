"""An axis of accuracies on which both close and far ones can be told apart."""

from collections.abc import Sequence
from math import log10

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

_WIDE = 4  # from this ratio of errors on, a plain axis would press the best together
_ERRORS = (100, 70, 50, 30, 20, 10, 5, 3, 2, 1, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01)


class AccuracyScale:
    """Accuracy in % upwards, plain or, where errors differ by much, by the logarithm of the error.

    Args:
        accuracies: all that will be drawn, at least one.
        images: how many each was counted on; 100 % is drawn as half a mistake.
    """

    def __init__(self, accuracies: Sequence[float], images: int) -> None:
        self._floor = 50 / images
        errors = [self._error(value) for value in accuracies]
        self.logarithmic = max(errors) > _WIDE * min(errors)
        places = [self.place(value) for value in accuracies]
        low, high = min(places), max(places)
        room = 0.08 * (high - low) or 0.5
        self._limits = low - room, high + room

    def _error(self, accuracy: float) -> float:
        return max(100 - accuracy, self._floor)

    def place(self, accuracy: float) -> float:
        """Where an accuracy stands on the axis."""
        return -log10(self._error(accuracy)) if self.logarithmic else accuracy

    def dress(self, axes: Axes, name: str) -> None:
        """Give the y axis its limits, ticks and name."""
        axes.set_ylim(*self._limits)
        if not self.logarithmic:
            axes.set_ylabel(f"{name}, %")
            return
        low, high = self._limits
        ticks = {100 - error: -log10(error) for error in _ERRORS if error > 1.4 * self._floor}
        ticks[100.0] = -log10(self._floor)
        shown = {accuracy: place for accuracy, place in ticks.items() if low <= place <= high}
        axes.set_yticks(list(shown.values()), [f"{accuracy:g}" for accuracy in shown])
        axes.set_ylabel(f"{name}, % (by log of error)")


def label_logarithmic(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade, or closer where the axis spans no decade."""
    low, high = axis.get_view_interval()
    locator: Locator = LogLocator(subs=(1, 2, 5)) if high > 8 * low else MaxNLocator(5)
    axis.set_major_locator(locator)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axis.set_minor_formatter(NullFormatter())
