"""The errors that a user is meant to read; `code` is the exit code of a command they end."""

from collections.abc import Iterable
from difflib import get_close_matches

# what a network raises for an input that it does not take
REFUSALS = (RuntimeError, AssertionError, TypeError, ValueError, IndexError)


class UserError(Exception):
    """A fault in what the user gave: commands print its text and leave with exit code 2.

    The text says what was found, what was expected and what to do.
    """

    code = 2


class NotFiniteError(Exception):
    """A loss term became NaN or infinite; the text says which, at which epoch and step."""

    code = 3


class PeerLostError(Exception):
    """Another rank has ended in the midst of the work."""

    code = 5

    def __init__(self) -> None:
        super().__init__("another process of this run has ended; what is saved is kept")


def nearest(word: str, words: Iterable[str], count: int = 3) -> str:
    """A hint such as `; did you mean 'gamma'?`, or an empty string when nothing is close."""
    close = get_close_matches(word, list(words), n=count, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
