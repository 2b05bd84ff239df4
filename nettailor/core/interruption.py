"""SIGINT and SIGTERM: a stage that trains is asked to save first, a second signal ends at once."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The process was asked to end; `code` is its exit code, 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


# torchrun passes on to its processes what the terminal has sent them already
_SECONDS_OF_AN_ECHO = 1.0


class _Asked:
    """What the handlers know: the process they belong to, the first signal and when it came, who
    wants to save, and whether other processes take part in the work."""

    def __init__(self) -> None:
        self.process = 0
        self.number: int | None = None
        self.since = 0.0
        self.deferring = 0
        self.peers = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a loader's process, which its parent ends
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        now = time.monotonic()
        if self.number is not None:
            if self.peers and now - self.since < _SECONDS_OF_AN_ECHO:
                return
            os._exit(128 + number)
        self.number, self.since = number, now
        # A signal to all processes of a group ends a loader's, too. That is then no fault, and
        # must not be raised in the midst of a step or of a save.
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if not self.deferring:
            self.leave()

    def leave(self) -> None:
        """Raise `Interrupted` where a signal has come.

        With peers, to be asked at another place than they are is to end: they would wait in vain
        for this process to save with them.
        """
        if self.number is None:
            return
        if self.peers:
            os._exit(128 + self.number)
        raise Interrupted(self.number)


_asked = _Asked()


def catch_signals() -> None:
    """From here on SIGINT and SIGTERM raise `Interrupted`, at once or where `deferred` lets it."""
    _asked.process = os.getpid()
    _asked.number = None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _asked.handle)


def expect_peers() -> None:
    """From here on other processes take part: only where all agree on a signal do they save."""
    _asked.peers = True


def leave_if_asked() -> None:
    """Raise `Interrupted` where a signal has come; with peers, end at once."""
    _asked.leave()


@contextmanager
def deferred() -> Iterator[Callable[[], int]]:
    """Inside, a first signal only raises a flag; gives a function that reads it.

    The function returns the signal's number, or 0. Whoever reads it raises `Interrupted`; leaving
    the block with the flag up raises it, too.
    """
    _asked.deferring += 1
    try:
        yield lambda: _asked.number or 0
    finally:
        _asked.deferring -= 1
    leave_if_asked()
