"""Which process is at work in a folder: a lock that the system takes back when the process ends."""

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import FileLock, Timeout

from nettailor.core.errors import UserError

_LOOK_EVERY = 2.0  # seconds between two looks at what other processes do
_held: dict[Path, tuple[int, FileLock]] = {}  # with the process: a fork holds nothing


class AtWorkError(UserError):
    """Another process is at work in a folder."""


def hold(folder: Path) -> None:
    """Make this process the one at work in a folder until it lets go, or ends however it may.

    The lock's file lies beside the folder, which can be discarded meanwhile. Where the system
    has no locks, or no file can be written, nobody is kept out.

    Raises AtWorkError while another process is at work there.
    """
    place = folder.resolve()
    if place in _held and _held[place][0] == os.getpid():
        return
    lock = FileLock(_file(place))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise AtWorkError(
            f"{folder}: another process is at work in this run folder; wait until it ends, or give "
            "another --out"
        ) from error
    except (OSError, NotImplementedError):
        return
    _held[place] = (os.getpid(), lock)


def require_free(folder: Path) -> None:
    """Raise AtWorkError as `hold` does; writes nothing."""
    place = folder.resolve()
    if place not in _held and _file(place).exists():
        hold(folder)
        let_go(folder)


def let_go(folder: Path) -> None:
    """Leave a folder to others; nothing where this process does not hold it."""
    process, lock = _held.pop(folder.resolve(), (0, None))
    if lock is not None and process == os.getpid():
        with suppress(OSError):  # while the lock is held: nobody can take what is not there
            Path(lock.lock_file).unlink()
        lock.release()


@atexit.register
def let_go_of_all() -> None:
    """Leave every folder to others."""
    for folder in list(_held):
        let_go(folder)


class Job(Protocol):
    """Work of which one process at a time may do any; `place` is the folder that it holds."""

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> Path: ...


AnyJob = TypeVar("AnyJob", bound=Job)


def shared_out(left: list[AnyJob], say: Callable[[str], None]) -> Iterator[AnyJob]:
    """Every job in its turn, held by this process meanwhile, until the list is empty.

    The caller takes a job off the list once it is done, by whomever: what another process has
    finished is given out as well. Where others are at work on all that is left, they are waited
    for; what a process left that was killed is given out at once.
    """
    told: list[str] = []
    while left:
        before = set(_held)
        for job in left:
            with suppress(AtWorkError):
                hold(job.place)
                break
        else:
            names = [job.name for job in left]
            if names != told:
                say(f"waiting for other processes: {'; '.join(names)}")
            told = names
            time.sleep(_LOOK_EVERY)
            continue
        try:
            yield job
        finally:
            for folder in set(_held) - before:
                let_go(folder)


def _file(place: Path) -> Path:
    return place.with_name(f".{place.name}.lock")
