"""Names and numbers in few characters."""

from math import floor, log10

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
