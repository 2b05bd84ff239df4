"""The network that a knapsack makes narrower, where it is a tailored run and not the teacher."""

from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from nettailor.core.architecture import WEIGHTS_FILE, Architecture, read_checked
from nettailor.core.backbone import Backbone
from nettailor.core.errors import UserError
from nettailor.core.files import sha256_of
from nettailor.core.run_folder import SUMMARY_FILE, RunFolder
from nettailor.core.run_settings import settings_of
from nettailor.network import load_network
from nettailor.report.summary import Seconds
from nettailor.session import Session
from nettailor.student.network import Student


class _Trained(BaseModel):
    """All that is read of a tailored run's summary."""

    seconds: Seconds


class Whole(NamedTuple):
    """The network that is made narrower.

    digest: SHA-256 of its weights. name: of the tailored run; empty for the teacher.
    train_seconds: of that run.
    """

    network: Backbone | Student
    architecture: Architecture
    digest: str
    name: str
    train_seconds: float


def tailored_whole(session: Session) -> Whole:
    """The tailored network that `knapsack.of` names; UserError where it is none to start from."""
    folder = Path(session.config.knapsack.of)
    try:
        settings = settings_of(folder) if folder.is_dir() else None
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise UserError(f"--knapsack.of {folder}: {error.strerror or error}") from error
    if settings is None:
        raise UserError(
            f"--knapsack.of {folder}: holds no run; give the folder of a tailored run, or teacher"
        )
    if not RunFolder(folder).finished:
        if RunFolder(settings.parent).finished:
            raise UserError(
                f"--knapsack.of {folder}: is no network of its own to start from; give "
                f"{settings.parent}, or one in its candidates/ or picked/"
            )
        raise UserError(f"--knapsack.of {folder}: is not finished; tailor it to its end first")
    session.require_same_task(RunFolder(settings.parent))
    network, architecture = load_network(folder)
    alone = isinstance(network, Student) and network.finetunes_all
    if not alone or architecture.narrowed or architecture.classes != session.task.classes:
        raise UserError(
            f"--knapsack.of {folder}: holds no tailored network of this task that stands alone "
            "(prune.finetune all) and has all of its channels"
        )
    return Whole(
        network,
        architecture,
        sha256_of(folder / WEIGHTS_FILE),
        short_name(session, folder),
        read_checked(folder / SUMMARY_FILE, _Trained, "tailor it again").seconds.train,
    )


def short_name(session: Session, folder: Path) -> str:
    """What a tailored run's name says beside backbone, image size and seed.

    Another cut of the run, `candidates/<cut>` or `picked/<choice>`, adds its own name.
    """
    config, folder = session.config, folder.resolve()
    if folder.parent.name in ("candidates", "picked"):
        return f"{short_name(session, folder.parent.parent)}-{folder.name}"
    start, end = f"{config.backbone}-{config.image_size}px-", f"-seed{config.seed}"
    return folder.name.removeprefix(start).removesuffix(end)
