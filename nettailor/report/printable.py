"""Text of unknown origin, and numbers of any size, made fit to be shown."""

from math import floor, log10


def printable(text: str) -> str:
    """The text with a sign in the place of what no page can hold: control characters, halves of
    surrogate pairs."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


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
