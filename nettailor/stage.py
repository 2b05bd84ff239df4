"""One stage of training in a run: who watches it, and where its state is kept."""

from contextlib import closing
from typing import Any

from torch import nn

from nettailor.core.console import Screen
from nettailor.core.epochs import Epochs
from nettailor.core.objective import Objective
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import Schedule, parameter_groups
from nettailor.core.trainer import fit
from nettailor.core.training_state import Fitted
from nettailor.core.watch import EpochLines, Pictures, StageWatcher, Watcher
from nettailor.prune.groups import shrinking_groups
from nettailor.prune.shrink import Shrinking
from nettailor.student.groups import student_groups
from nettailor.student.network import Student


def train_stage(
    name: str,
    network: nn.Module,
    objective: Objective,
    loader: Epochs,
    schedule: Schedule,
    *,
    folder: RunFolder | None,
    screen: Screen,
    path_lr: float | None = None,
    pictures: Pictures | None = None,
    **how: Any,
) -> Fitted:
    """Train what trains of a network as one stage, or go on with it.

    Args:
        name: of the stage, in its run.
        folder: of the run, opened; None: nothing is kept, and a line an epoch is said.
        path_lr: of a student's path weights; None: they train as all the rest.
        pictures: further curves and pictures of an epoch.
        how: accelerator, validate, stop and before_step, as for
            `nettailor.core.trainer.fit`.
    """
    if isinstance(network, Shrinking):
        groups = shrinking_groups(network, schedule)
    elif path_lr is not None and isinstance(network, Student):
        groups = student_groups(network, schedule, path_lr)
    else:
        groups = parameter_groups(network.named_parameters(), schedule)
    watcher: Watcher = EpochLines(name, schedule.epochs, screen.say)
    state_path = None
    if folder is not None:
        state_path, steps = folder.state_path(name), loader.steps_per_epoch
        watcher = StageWatcher(
            name, folder, screen, epochs=schedule.epochs, steps_per_epoch=steps, pictures=pictures
        )
    with closing(watcher):
        return fit(
            network,
            objective,
            loader,
            groups=groups,
            schedule=schedule,
            state_path=state_path,
            watcher=watcher,
            **how,
        )
