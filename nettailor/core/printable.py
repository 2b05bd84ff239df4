"""Text made fit to be shown: a file's or a class's name may hold anything."""

from collections.abc import Iterable
from itertools import islice


def printable(text: str) -> str:
    """Text on one line that a terminal or a page can show, and that a terminal does not obey.

    Every character that is no visible one is written as its escape.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def some(names: Iterable[object], most: int = 5) -> str:
    """Printable names on one line, of many the first."""
    first = [printable(str(name)) for name in islice(names, most + 1)]
    return ", ".join(first[:most]) + ", …" * (len(first) > most)


def counted(number: int, name: str) -> str:
    """Such as `1 epoch`, `2 epochs`."""
    return f"{number:,} {name}{'s' * (number != 1)}"
