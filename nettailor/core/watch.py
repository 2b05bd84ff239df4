"""Who sees a stage train: the screen, metrics.csv and TensorBoard."""

from collections.abc import Callable, Mapping, Sequence

from rich.progress import TaskID
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from nettailor.core.console import Screen
from nettailor.core.run_folder import RunFolder

# (writer, epoch, network): further curves and pictures of an epoch
Pictures = Callable[[SummaryWriter, int, nn.Module], None]

_PLACES = {
    "lr": "learning_rate",
    "loss": "loss/total",
    "seconds": "seconds/train",
    "val_seconds": "seconds/validation",
    "val_accuracy": "validation/accuracy",
    "val_macro_f1": "validation/macro_f1",
    "val_loss": "validation/loss",
}


class StageWatcher:
    """The `Watcher` of a stage: a bar, a line an epoch, a row an epoch, TensorBoard events.

    Each stage has its own folder under `events/`, so TensorBoard lays the stages of a run over
    each other. After a resume, events of epochs that will come again are purged.
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

    def begin(self, history: Sequence[Mapping[str, float]], network: nn.Module) -> None:
        """See `nettailor.core.trainer.Watcher`; a network before its first epoch is epoch 0."""
        self._history = list(history)
        self._note = ""
        done = len(self._history)
        self._bar = self._screen.start_stage(
            self._stage, self._epochs * self._steps, done * self._steps
        )
        self._writer = SummaryWriter(
            log_dir=str(self._folder.path / "events" / self._stage), purge_step=done + 1
        )
        self._folder.record(self._stage, self._history)
        if self._pictures is not None and not self._history:
            self._pictures(self._writer, 0, network)

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        """See `nettailor.core.trainer.Watcher`."""
        if loss is not None:
            self._note = f"epoch {epoch}/{self._epochs} loss {loss:.3f}"
        assert self._bar is not None, "a stage begins before its first step"
        self._screen.advance(self._bar, (epoch - 1) * self._steps + step, self._note)

    def epoch(self, row: Mapping[str, float], network: nn.Module) -> None:
        """See `nettailor.core.trainer.Watcher`."""
        self._history.append(row)
        self._folder.record(self._stage, self._history)
        number = int(row["epoch"])
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(_PLACES.get(name, f"loss/{name}"), value, number)
        if self._pictures is not None:
            self._pictures(self._writer, number, network)
        self._screen.say(
            f"{self._stage:<14} epoch {number:>3}/{self._epochs}  loss {row['loss']:<8.4f} "
            f"validation {row['val_accuracy']:.2f} %  {row['seconds']:.1f} s"
        )

    def close(self) -> None:
        """Take the bar down and flush the events, if there are any yet."""
        if self._bar is not None:
            self._screen.end_stage(self._bar)
            self._writer.close()
