"""Which process is at work in a run folder: a lock that the system takes back when it ends."""

import atexit
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nettailor.core.errors import UserError

_held: dict[Path, tuple[int, FileLock]] = {}  # with the process: a fork holds nothing


def hold(folder: Path) -> None:
    """Make this process the one at work in a folder until it lets go, or ends however it may.

    The lock's file lies beside the folder, which can be discarded meanwhile. Where the system
    has no locks, or no file can be written, nobody is kept out.

    Raises UserError, in one line, while another process is at work there.
    """
    place = folder.resolve()
    if place in _held and _held[place][0] == os.getpid():
        return
    file = _file(place)
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"{folder}: another process is at work in this run folder; wait until it ends, or give "
            "another --out"
        ) from error
    except (OSError, NotImplementedError):
        return
    _held[place] = (os.getpid(), lock)


def require_free(folder: Path) -> None:
    """Raise UserError as `hold` does; writes nothing."""
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


def _file(place: Path) -> Path:
    return place.with_name(f".{place.name}.lock")
