"""What a command is about to do: said before it begins, and all that `--dry-run` does."""

from collections.abc import Mapping
from dataclasses import replace

from nettailor.core.config import RunConfig
from nettailor.core.console import Screen
from nettailor.core.data import images_of
from nettailor.core.printable import counted, some
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import Schedule
from nettailor.session import Session, start_session

_CLASSES_SHOWN = 20
_PARTS = {"train": "training", "val": "validation", "test": "test"}


def start_dry(config: RunConfig, screen: Screen) -> Session:
    """A session that has written nothing: it fetches no data, and lists no broken images.

    Raises UserError as `start_session` does, and where data would have to be fetched.
    """
    as_given = {"download": config.download, "on_bad_image": config.on_bad_image}
    quiet = config.model_copy(update={"download": False, "on_bad_image": "error"})
    session = start_session(quiet, screen)
    return replace(session, config=session.config.model_copy(update=as_given))


def say_task(session: Session) -> None:
    """The classes, how many images each part has and whence, and how many steps make an epoch."""
    task, loader = session.task, session.loaders.train
    parts = "; ".join(
        f"{_PARTS[part]} {row['images']:,} images, {row['smallest']:,} of the smallest class, "
        f"{row['from']}"
        for part, row in images_of(task).items()
    )
    session.screen.say(
        f"{task.name}: {len(task.classes)} classes ({some(task.classes, _CLASSES_SHOWN)})\n"
        f"{parts}\n"
        f"one validation image is {100 / len(task.val):.2f} points; an epoch has "
        f"{loader.steps_per_epoch} steps of {loader.batch_size} images"
    )
    if session.config.balance != "none" and session.config.metric == "accuracy":
        session.screen.say(
            "warning: classes are balanced in training, and networks are chosen by "
            "accuracy, in which rare classes hardly count: give --metric macro-f1"
        )


def say_stages(session: Session, schedules: Mapping[str, Schedule]) -> None:
    """How long the stages of a command are, by their names."""
    steps = session.loaders.train.steps_per_epoch
    session.screen.say(
        "; ".join(
            f"{name}: {'at least ' * one.again}{counted(one.epochs, 'epoch')}, "
            f"{counted(one.epochs * steps, 'step')}"
            for name, one in schedules.items()
        )
    )


def say_folder(session: Session, folder: RunFolder, *, overwrite: bool) -> None:
    """Where a run lives, and what becomes of what is there; UserError for a damaged one."""
    if overwrite and folder.begun:
        becomes = "what is there would be discarded"
    elif folder.finished:
        becomes = "finished, nothing would be trained"
    else:
        becomes = "begun, would go on" if folder.begun else "new"
    session.screen.say(f"run folder: {folder.path} ({becomes})")
