"""`python -m nettailor.teach`: fine-tune a pretrained network on the task."""

from typing import Any

from nettailor.core.backbone import Backbone
from nettailor.core.config import RunConfig, recorded
from nettailor.core.console import Screen
from nettailor.core.errors import UserError
from nettailor.core.flags import CommandFlags
from nettailor.core.run_folder import RunFolder
from nettailor.core.weights import WeightsSource, load_pretrained
from nettailor.figures import side_by_side
from nettailor.finetune import ChainRun, Teacher, finetune
from nettailor.network import load_network
from nettailor.outlook import say_folder, say_stages, say_task, start_dry
from nettailor.session import Session, start_session

PROG = "python -m nettailor.teach"


def teacher_folder(session: Session) -> RunFolder:
    """Where the teacher of this task, backbone, image size and seed lives."""
    return RunFolder(session.places.run("teacher"), PROG)


def load_teacher(folder: RunFolder, session: Session) -> Teacher:
    """A finished teacher.

    Raises UserError when it was made for another task: other data, split, weights or crop.
    """
    session.require_same_task(folder)
    network, architecture = load_network(folder.path)
    if not isinstance(network, Backbone) or architecture.classes != session.task.classes:
        raise UserError(
            f"{folder.path}: holds no teacher of these classes ({len(session.task.classes)} here, "
            f"{len(architecture.classes)} there); train it again: {PROG} --overwrite"
        )
    return Teacher(network, architecture, folder.read_summary(), folder)


def ready_teacher(session: Session) -> Teacher:
    """The task's teacher, trained first when there is none; UserError as in `load_teacher`."""
    folder = teacher_folder(session)
    if not folder.finished:
        session.screen.say(
            f"no teacher yet for {session.task.name} and {session.config.backbone}: "
            "training it first"
        )
        train_teacher(session, overwrite=False)
    teacher = load_teacher(folder, session)
    folder.tidy()
    return teacher


def say_teacher(session: Session, *, overwrite: bool = False) -> None:
    """What is there of the teacher, or would be trained; UserError where that is refused."""
    folder = teacher_folder(session)
    if overwrite or not folder.finished:
        folder.check(None if overwrite else recorded(session.config, "teacher"))
        say_stages(session, {"teacher": session.schedule("teacher")})
    else:
        load_teacher(folder, session)
    say_folder(session, folder, overwrite=overwrite)


def train_teacher(session: Session, *, overwrite: bool) -> dict[str, Any]:
    """Fine-tune the whole pretrained network, or go on with it; returns its summary."""
    config = session.config

    def make() -> tuple[Backbone, WeightsSource]:
        return load_pretrained(
            config.backbone, len(session.task.classes), config.weights, config.image_size
        )

    run = ChainRun(
        "teacher",
        teacher_folder(session),
        recorded(config, "teacher"),
        ignored=(),
        schedule=session.schedule("teacher"),
        make=make,
    )
    return finetune(session, run, beside=None, overwrite=overwrite)


def execute(config: RunConfig, flags: CommandFlags) -> None:
    """Run the command with settings and flags that were found good."""
    with Screen() as screen:
        if flags.own["dry_run"]:
            session = start_dry(config, screen)
            settings = None if flags.overwrite else recorded(session.config, "teacher")
            teacher_folder(session).check(settings)
            say_task(session)
            say_teacher(session, overwrite=flags.overwrite)
            return
        session = start_session(config, screen)
        say_task(session)
        result = train_teacher(session, overwrite=flags.overwrite)
    screen.console.print(side_by_side({"teacher": result}, f"{session.task.name}, teacher"))
    screen.say(f"run folder: {teacher_folder(session).path}")
