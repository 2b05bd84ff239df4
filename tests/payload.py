"""What must never run when a file is read."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Payload:
    """A pickle of this creates a file when something unpickles it carelessly."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return subprocess.call, (["touch", str(self.victim)],)
