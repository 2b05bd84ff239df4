"""How this process was started: by itself, or by torchrun as one of several ranks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nettailor.core.errors import UserError


class _Here:
    """Whether the other ranks wait while this one works by itself."""

    alone = False


def count() -> int:
    """How many ranks share the work that is being done."""
    return 1 if _Here.alone else int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is."""
    return 0 if count() == 1 else int(os.environ.get("RANK", "0"))


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this is rank 0 of 1."""
    _Here.alone = True
    try:
        yield
    finally:
        _Here.alone = False


def restarts() -> int:
    """How often torchrun was told to start all ranks again where one has ended."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))


def require_alone() -> None:
    """Raise UserError where a command that no ranks can share was started by torchrun."""
    if count() > 1:
        raise UserError("this command works in one process: start it without torchrun")
