"""What a command shows while it works: bars with time left, and plain lines where nobody looks."""

from types import TracebackType

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

UNBROKEN = 1_000_000  # columns: lines in a file are as long as they need to be


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
