"""`python -m nettailor.teach`: fine-tune a pretrained network on the task."""

import time
from collections.abc import Sequence
from typing import Any

from nettailor.core.architecture import Architecture
from nettailor.core.backbone import Chain
from nettailor.core.config import as_settings
from nettailor.core.console import Screen
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.flags import parse, run_command
from nettailor.core.latency import measure_latency
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import parameter_groups
from nettailor.core.trainer import fit
from nettailor.core.watch import StageWatcher
from nettailor.core.weights import load_pretrained
from nettailor.figures import side_by_side, summary
from nettailor.network import load_network, save_network
from nettailor.session import TASK_KEYS, Session, schedule_of, start_session
from teacher.objective import CrossEntropy

DESCRIPTION = "Fine-tune a pretrained network on a task: the teacher of all that follows."


def teacher_folder(session: Session) -> RunFolder:
    """Where the teacher of this task, backbone, image size and seed lives."""
    return RunFolder(session.folder("teacher"), "python -m nettailor.teach")


def load_teacher(folder: RunFolder, session: Session) -> tuple[Chain, Architecture, dict[str, Any]]:
    """A finished teacher, what it was made from, and its summary.

    Raises UserError when it was made for another task: other data, split, weights or crop.
    """
    folder.require_same(as_settings(session.config), TASK_KEYS)
    network, architecture = load_network(folder.path)
    if not isinstance(network, Chain) or architecture.classes != session.task.classes:
        raise UserError(
            f"{folder.path}: holds no teacher of these classes ({len(session.task.classes)} here, "
            f"{len(architecture.classes)} there); train it again: "
            "python -m nettailor.teach --overwrite"
        )
    return network, architecture, folder.read_summary()


def train_teacher(session: Session, *, overwrite: bool) -> dict[str, Any]:
    """Fine-tune the whole pretrained network, or go on with it; returns its summary.

    Keeps the epoch that does best on validation. The test split is read once, at the end.
    """
    config = session.config
    settings = {
        key: value for key, value in as_settings(config).items() if key not in ("student", "prune", "eliminate")
    }
    folder = teacher_folder(session)
    if folder.finished and not overwrite:
        folder.open(settings, overwrite=False)
        return folder.read_summary()
    # whatever can be wrong with settings and images shows before anything is discarded
    session.seed_stage("teacher")
    chain, source = load_pretrained(config.backbone, len(session.task.classes), config.weights)
    loader = session.train_loader
    if overwrite or not folder.begun:
        session.check_images()
    folder.open(settings, overwrite=overwrite)
    session.screen.say(f"teacher: {config.backbone}, weights from {source.origin}")
    place(chain, session.accelerator.device)
    watcher = StageWatcher(
        "teacher",
        folder,
        session.screen,
        epochs=config.teacher.epochs,
        steps_per_epoch=loader.steps_per_epoch,
    )
    schedule = schedule_of(config.teacher)
    fitted = fit(
        chain,
        CrossEntropy(config.teacher.label_smoothing),
        loader,
        groups=parameter_groups(chain.named_parameters(), schedule),
        schedule=schedule,
        accelerator=session.accelerator,
        validate=session.validate,
        keep="best",
        state_path=folder.state_path("teacher"),
        watcher=watcher,
    )
    watcher.close()
    started = time.perf_counter()
    weights = save_network(
        folder.path,
        chain,
        Architecture(
            backbone=config.backbone,
            classes=session.task.classes,
            preprocessing=session.preprocessing,
            weights_origin=source.origin,
            weights_digest=source.digest,
        ),
    )
    task, device = session.task, session.accelerator.device
    latency = measure_latency({"teacher": chain}, config.image_size, device)
    scores = {
        "train": session.score(chain, task.train),
        "val": fitted.scores,
        "test": session.score(chain, task.test),
    }
    result = summary(
        "teacher",
        config,
        dataset=task.name,
        classes=task.classes,
        scores=scores,
        network=chain,
        latency=latency["teacher"],
        device=device,
        size=weights.stat().st_size,
        train_seconds=fitted.seconds,
        total_seconds=fitted.total_seconds + time.perf_counter() - started,
        teacher=None,
    )
    folder.finish(result)
    return result


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    config, flags = parse("python -m nettailor.teach", DESCRIPTION, argv)
    with Screen() as screen:
        session = start_session(config, screen)
        result = train_teacher(session, overwrite=flags.overwrite)
    screen.console.print(side_by_side({"teacher": result}, f"{session.task.name}, teacher"))
    screen.say(f"run folder: {teacher_folder(session).path}")


if __name__ == "__main__":
    run_command(main)
