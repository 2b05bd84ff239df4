"""SIGINT and SIGTERM: a stage that trains is asked to save first, a second signal ends at once."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The process was asked to end; `code` is its exit code, 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


class _Asked:
    """What the handlers know: the process they belong to, the first signal, who wants to save."""

    def __init__(self) -> None:
        self.process = 0
        self.number: int | None = None
        self.deferring = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a loader's process, which its parent ends
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        # A signal to all processes of a group ends a loader's, too. That is then no fault, and
        # must not be raised in the midst of a step or of a save.
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if not self.deferring:
            raise Interrupted(number)


_asked = _Asked()


def catch_signals() -> None:
    """From here on SIGINT and SIGTERM raise `Interrupted`, at once or where `deferred` lets it."""
    _asked.process = os.getpid()
    _asked.number = None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _asked.handle)


def leave_if_asked() -> None:
    """Raise `Interrupted` where a signal has come."""
    if _asked.number is not None:
        raise Interrupted(_asked.number)


@contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """Inside, a first signal only raises a flag; gives a function that reads it.

    The function returns the signal's number, or None. Whoever reads it saves and raises
    `Interrupted`; leaving the block with the flag up raises it, too.
    """
    _asked.deferring += 1
    try:
        yield lambda: _asked.number
    finally:
        _asked.deferring -= 1
    leave_if_asked()
