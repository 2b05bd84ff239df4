"""What a command shows while it works: bars with time left, and plain lines where nobody looks."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nettailor.core import ranks
from nettailor.core.run_lock import let_go_of_all

UNBROKEN = 1_000_000  # columns: lines in a file are as long as they need to be

# (done, of): how far something is that takes a while
Tell = Callable[[int, int], None]
Item = TypeVar("Item")


def untold(done: int, of: int) -> None:
    """A `Tell` for whom nobody looks at."""


class Screen:
    """The terminal of one command.

    On a terminal each stage has a bar that counts steps and tells the time left; elsewhere every
    message is a line.
    """

    def __init__(self) -> None:
        # of several ranks the first one talks
        self.console = Console(highlight=False, soft_wrap=False, quiet=ranks.rank() > 0)
        if not self.console.is_terminal:
            self.console.width = UNBROKEN
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal or self.console.quiet,
        )

    def __enter__(self) -> "Screen":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        let_go_of_all()  # the command is over, also where one is called from Python

    def say(self, message: str) -> None:
        """One message above the bars."""
        self.console.print(message, markup=False, soft_wrap=True)

    def start_stage(self, name: str, steps: int, done: int) -> TaskID:
        """A bar for a stage of `steps` training steps, `done` of them in an earlier session."""
        return self._progress.add_task(name, total=steps, completed=done, note="")

    def advance(self, stage: TaskID, done: int, note: str) -> None:
        """Move a stage's bar to `done` steps."""
        self._progress.update(stage, completed=done, note=note)

    def end_stage(self, stage: TaskID) -> None:
        """Take a stage's bar down."""
        self._progress.remove_task(stage)

    @contextmanager
    def counting(self, name: str) -> Iterator[Tell]:
        """A bar for the while; gives what moves it, whose total may change as it goes."""
        bar = self._progress.add_task(name, total=None, note="")
        try:
            yield lambda done, of: self._progress.update(bar, completed=done, total=of)
        finally:
            self.end_stage(bar)

    def each(self, name: str, items: Iterable[Item], count: int) -> Iterator[Item]:
        """The items, of which there are `count`, with a bar that counts them."""
        with self.counting(name) as tell:
            for done, item in enumerate(items, 1):
                yield item
                tell(done, count)
