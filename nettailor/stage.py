"""One stage of training in a run: who watches it, and where its state is kept."""

from collections.abc import Callable
from contextlib import closing
from typing import Literal

from accelerate import Accelerator
from torch import nn

from nettailor.core.console import Screen
from nettailor.core.epochs import Epochs
from nettailor.core.objective import Objective
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import Schedule, parameter_groups
from nettailor.core.scores import Scores
from nettailor.core.trainer import Stop, fit
from nettailor.core.training_state import Fitted
from nettailor.core.watch import EpochLines, Pictures, StageWatcher
from nettailor.student.groups import student_groups
from nettailor.student.network import Student


def train_stage(
    name: str,
    network: nn.Module,
    objective: Objective,
    loader: Epochs,
    schedule: Schedule,
    *,
    accelerator: Accelerator,
    validate: Callable[[nn.Module], Scores],
    keep: Literal["best", "last"],
    folder: RunFolder | None,
    screen: Screen,
    path_lr: float | None = None,
    pictures: Pictures | None = None,
    stop: Stop | None = None,
) -> Fitted:
    """Train all of a network that trains as one stage, or go on with it; see `trainer.fit`.

    Args:
        name: of the stage, in its run.
        folder: of the run, opened; None: nothing is kept, and a line an epoch is said.
        path_lr: of a student's path weights; None: they train as all the rest.
        pictures: further curves and pictures of an epoch.
    """
    if path_lr is not None and isinstance(network, Student):
        groups = student_groups(network, schedule, path_lr)
    else:
        groups = parameter_groups(network.named_parameters(), schedule)
    watcher = (
        EpochLines(name, schedule.epochs, screen.say)
        if folder is None
        else StageWatcher(
            name,
            folder,
            screen,
            epochs=schedule.epochs,
            steps_per_epoch=loader.steps_per_epoch,
            pictures=pictures,
        )
    )
    with closing(watcher):
        return fit(
            network,
            objective,
            loader,
            groups=groups,
            schedule=schedule,
            accelerator=accelerator,
            validate=validate,
            keep=keep,
            state_path=None if folder is None else folder.state_path(name),
            watcher=watcher,
            stop=stop,
        )
