"""Who sees a stage train: the screen, metrics.csv and TensorBoard."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.progress import TaskID
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from nettailor.core import ranks
from nettailor.core.console import Screen
from nettailor.core.errors import UserError
from nettailor.core.printable import counted
from nettailor.core.run_folder import RunFolder

# (writer, epoch, network): further curves and pictures of an epoch
Pictures = Callable[[SummaryWriter, int, nn.Module], None]

_TIMED_STEPS = 10
_PLACES = {
    "lr": "learning_rate",
    "loss": "loss/total",
    "seconds": "seconds/train",
    "val_seconds": "seconds/validation",
    "val_accuracy": "validation/accuracy",
    "val_macro_f1": "validation/macro_f1",
    "val_loss": "validation/loss",
    "val_worst_recall": "validation/worst_recall",
    "val_judged": "validation/judged",
    "val_error": "validation/error",
}


def epoch_line(stage: str, row: Mapping[str, float], epochs: int) -> str:
    """What is said after an epoch of a stage of so many epochs, with its metrics."""
    number = int(row["epoch"])
    return (
        f"{stage:<14} epoch {number:>3}/{epochs}  loss {row['loss']:<8.4f} "
        f"validation {row['val_accuracy']:.2f} %  {row['seconds']:.1f} s"
    )


class Watcher:
    """Sees a stage train; this one says and keeps nothing."""

    def begin(
        self, history: Sequence[Mapping[str, float]], network: nn.Module, *, within: bool
    ) -> None:
        """Before the first step of this session, with the epochs of earlier ones.

        network: as it is judged. within: it has taken steps since the last of these epochs.
        """

    def warn(self, message: str) -> None:
        """Something that the user should know."""

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        """After a step, counted from 1 within the epoch; the loss is given after some only."""

    def epoch(self, row: Mapping[str, float], network: nn.Module) -> None:
        """After an epoch, with its metrics; the first is row["epoch"] = 1."""

    def close(self) -> None:
        """The stage is over, or was left."""


class StageWatcher(Watcher):
    """The `Watcher` of a stage: a bar, a line an epoch, a row an epoch, TensorBoard events.

    Each stage has its own folder under `events/`, so TensorBoard lays the stages of a run over
    each other. After a resume, events of epochs that will come again are purged, and those of the
    last epoch are written again: the end may have come before they were.
    """

    def __init__(
        self,
        stage: str,
        folder: RunFolder,
        screen: Screen,
        *,
        epochs: int,
        steps_per_epoch: int,
        pictures: Pictures | None = None,
    ) -> None:
        self._stage, self._folder, self._screen = stage, folder, screen
        self._epochs, self._steps = epochs, steps_per_epoch
        self._pictures = pictures
        self._bar: TaskID | None = None
        self._writer: SummaryWriter | None = None

    def begin(
        self, history: Sequence[Mapping[str, float]], network: nn.Module, *, within: bool
    ) -> None:
        """See `Watcher`; a network before its first epoch is epoch 0."""
        self._history = list(history)
        self._note = ""
        done = len(self._history)
        # a stage can be left and gone on with, as by a search: it is announced once
        self._timed = self._folder.recorded(self._stage)
        self._since: tuple[int, float] | None = None
        if not self._timed and done < self._epochs:
            self._screen.say(
                f"{self._stage}: {counted(self._epochs, 'epoch')} of {counted(self._steps, 'step')}"
                + f", {done} of them done" * (done > 0)
            )
        self._bar = self._screen.start_stage(
            self._stage, self._epochs * self._steps, done * self._steps
        )
        self._folder.record(self._stage, self._history)
        events = self._folder.path / "events" / self._stage
        threading.excepthook = _not_twice
        if ranks.rank() > 0:
            return
        with told(events):
            self._writer = SummaryWriter(log_dir=str(events), purge_step=done + within)
        if not within:
            self._write_events(network)

    def warn(self, message: str) -> None:
        self._screen.say(message)

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        if loss is not None:
            self._note = f"epoch {epoch}/{self._epochs} loss {loss:.3f}"
        assert self._bar is not None, "a stage begins before its first step"
        done = (epoch - 1) * self._steps + step
        self._screen.advance(self._bar, done, self._note)
        if not self._timed:
            self._estimate(done)

    def _estimate(self, done: int) -> None:
        """After some steps, of which the first is slow, say what the whole stage takes."""
        now = time.perf_counter()
        if self._since is None:
            self._since = (done, now)
        first, since = self._since
        if done - first == _TIMED_STEPS:
            whole = self._epochs * self._steps
            seconds = (now - since) / _TIMED_STEPS * whole
            self._timed = True
            self._screen.say(
                f"{self._stage}: all of its {whole} steps take about {seconds:.0f} s, validation "
                "not counted"
            )

    def epoch(self, row: Mapping[str, float], network: nn.Module) -> None:
        self._history.append(row)
        self._folder.record(self._stage, self._history)
        self._write_events(network)
        self._screen.say(epoch_line(self._stage, row, self._epochs))

    def _write_events(self, network: nn.Module) -> None:
        """The events of the last epoch, or of the start, on their way to the disk at once."""
        if ranks.rank() > 0:
            return
        assert self._writer is not None, "a stage begins before its first epoch"
        number = len(self._history)
        with told(self._folder.path / "events" / self._stage):
            for name, value in self._history[-1].items() if self._history else ():
                if name != "epoch":
                    self._writer.add_scalar(_PLACES.get(name, f"loss/{name}"), value, number)
            if self._pictures is not None:
                self._pictures(self._writer, number, network)
            self._writer.flush()

    def close(self) -> None:
        """Take the bar down and close the events, if there are any yet."""
        if self._bar is not None:
            self._screen.end_stage(self._bar)
        if self._writer is not None:
            with suppress(OSError):  # all that was to be written has been flushed
                self._writer.close()


class EpochLines(Watcher):
    """Says a line an epoch, and keeps nothing."""

    def __init__(self, stage: str, epochs: int, say: Callable[[str], None]) -> None:
        self._stage, self._epochs, self._say = stage, epochs, say

    def warn(self, message: str) -> None:
        self._say(message)

    def epoch(self, row: Mapping[str, float], network: nn.Module) -> None:
        self._say(epoch_line(self._stage, row, self._epochs))


def _not_twice(fault: threading.ExceptHookArgs) -> None:
    """No traceback of a thread that could not write: who asked for the events is told, too."""
    if not isinstance(fault.exc_value, OSError):
        threading.__excepthook__(fault)


@contextmanager
def told(events: Path) -> Iterator[None]:
    """Inside, a disk that is full or read-only is a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {events}: {error.strerror or error}; free the disk, or choose another "
            "place"
        ) from error
