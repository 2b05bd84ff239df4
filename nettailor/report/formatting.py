"""Names and numbers in few characters."""

from collections.abc import Mapping
from math import floor, log10
from typing import Any

from nettailor.core.printable import printable


def shortened(text: str, most: int) -> str:
    """The text, printable and cut to `most` characters."""
    text = printable(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def decimals(value: float) -> int:
    """Digits after the point that leave a number three significant ones, four at most."""
    return 0 if value == 0 else min(4, max(0, 2 - floor(log10(abs(value)))))


def times(ratio: float) -> str:
    """A ratio such as `0.43×`, with two significant digits where it is small."""
    return f"{ratio:.2f}×" if ratio >= 0.1 else f"{ratio:.2g}×"


def accuracy(row: Mapping[str, Any], split: str) -> str:
    """A summary's accuracy on a split in %, with its standard error where that is known."""
    value, error = row["accuracy"][split], (row.get("accuracy_error") or {}).get(split)
    if value is None:
        return "–"
    return f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"
