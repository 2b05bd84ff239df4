"""`python -m nettailor.knapsack`: remove channels under a hard budget, fine-tune the rest."""

import math
import time
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from nettailor.commands.teach import ready_teacher, say_teacher, teacher_folder
from nettailor.core.architecture import WEIGHTS_FILE, Architecture, NarrowedStructure
from nettailor.core.backbone import Backbone, create_backbone
from nettailor.core.config import TEACHER_KEYS, RunConfig, recorded
from nettailor.core.console import Screen
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.files import sha256_of
from nettailor.core.flags import CommandFlags
from nettailor.core.latency import measure_latency
from nettailor.core.memory import room_for
from nettailor.core.run_folder import RunFolder, settings_of
from nettailor.core.scores import Scores
from nettailor.core.side_sections import ROUND_TO
from nettailor.core.trainer import Fitted
from nettailor.evidence import gather
from nettailor.figures import budget_row, side_by_side, summary
from nettailor.finetune import Teacher, train
from nettailor.narrowing import (
    CHOICE_FILE,
    Choice,
    choose,
    kept_items,
    read_choice,
    ready_budget,
    write_choice,
)
from nettailor.network import load_network, save_network
from nettailor.outlook import say_folder, say_stages, say_task, start_dry
from nettailor.prune.channels import trace_channels
from nettailor.prune.inner_distillation import InnerDistillation, on_kept_channels
from nettailor.prune.narrow import narrow, positions, widths
from nettailor.prune.statistics import reestimate
from nettailor.session import Session, require_same_task, start_session
from nettailor.student.mimicry import mean_scales
from nettailor.student.network import Student
from nettailor.teacher.target import as_target

PROG = "python -m nettailor.knapsack"
_STATISTICS_BATCHES = 20
_SCALE_BATCHES = 5


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


class Narrowed(NamedTuple):
    """A network that lost channels, with the evidence of how.

    straight_after: validation scores after the cut and re-estimated statistics, untrained.
    """

    network: Backbone | Student
    whole: Whole
    choice: Choice
    straight_after: Scores
    fitted: Fitted


def knapsack(session: Session, *, overwrite: bool) -> RunFolder:
    """The whole procedure, or what is left of it; returns the finished run's folder.

    Raises UserError before anything is trained for a budget out of reach, a network whose channels
    cannot be grouped, and a run to start from that is absent or of another task; and for a run of
    these settings that began with another network than is there now.
    """
    config = session.config
    tailored = None if config.knapsack.of == "teacher" else _tailored(session)
    folder = knapsack_folder(session)
    settings = _settings(session)
    ignored = ["knapsack.of", *TEACHER_KEYS]
    choice_file = folder.path / CHOICE_FILE
    if not overwrite and folder.finished:
        session.open(folder, settings, ignored=ignored, overwrite=False)
        choice = read_choice(choice_file)
        if tailored is not None:
            _require_same_network(folder, choice, tailored.digest)
        elif (teacher_run := teacher_folder(session)).finished:
            _require_same_network(folder, choice, sha256_of(teacher_run.path / WEIGHTS_FILE))
        return folder
    folder.check(None if overwrite else settings, ignored=ignored)
    chosen = not overwrite and choice_file.exists()
    budget = None
    if not chosen:
        if tailored is None:
            network: Backbone | Student = create_backbone(
                config.backbone, len(session.task.classes), config.image_size
            )
        else:
            network = tailored.network
        network = place(network, session.accelerator.device)
        budget = ready_budget(session, network, fresh=overwrite)
    teacher = ready_teacher(session)
    if overwrite or not folder.begun:
        session.check_images()
    whole = tailored or Whole(
        teacher.network,
        teacher.architecture,
        sha256_of(teacher.folder.path / WEIGHTS_FILE),
        "",
        teacher.figures["seconds"]["train"],
    )
    place(whole.network, session.accelerator.device)
    if budget is None:
        choice = read_choice(choice_file)
        _require_same_network(folder, choice, whole.digest)
        session.open(folder, settings, ignored=ignored, overwrite=False)
    else:
        session.seed_stage("knapsack")
        choice = choose(session, whole.network, budget, whole.digest)
        session.open(folder, settings, ignored=ignored, overwrite=overwrite)
        write_choice(choice_file, choice)
    _finish(session, folder, _narrowed(session, folder, whole, choice), teacher)
    return folder


def outlook(session: Session, *, overwrite: bool) -> None:
    """Say what `knapsack` would do; UserError where it would refuse, without measuring."""
    config = session.config
    tailored = None if config.knapsack.of == "teacher" else _tailored(session)
    folder = knapsack_folder(session)
    ignored = ["knapsack.of", *TEACHER_KEYS]
    folder.check(None if overwrite else _settings(session), ignored=ignored)
    if config.knapsack.max_latency_ms is None:
        network = (
            tailored.network
            if tailored
            else create_backbone(config.backbone, len(session.task.classes), config.image_size)
        )
        ready_budget(session, place(network, session.accelerator.device))
    say_task(session)
    say_teacher(session)
    say_stages(session, {"fine-tuning after the cut": config.knapsack.epochs})
    say_folder(session, folder, overwrite=overwrite)


def _require_same_network(folder: RunFolder, choice: Choice, digest: str) -> None:
    """Raise UserError where the network is not the one that the run began with."""
    if choice.whole != digest:
        raise UserError(
            f"{folder.path} was begun with another network than is there now; give --overwrite to "
            "discard that run and begin anew, or another --out"
        )


def _settings(session: Session) -> dict[str, Any]:
    """What is recorded; the budget by default as if it had been given."""
    settings = recorded(session.config, "teacher", "knapsack")
    cost, most = session.config.knapsack.budget
    settings["knapsack"][f"max_{cost}"] = most
    return settings


def _tailored(session: Session) -> Whole:
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
    require_same_task(session, RunFolder(settings.parent))
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
        _short_name(session, folder),
        _train_seconds(RunFolder(folder)),
    )


def _train_seconds(folder: RunFolder) -> float:
    try:
        seconds = float(folder.read_summary()["seconds"]["train"])
        if not math.isfinite(seconds):
            raise ValueError("no number of seconds")
        return seconds
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"--knapsack.of {folder.path}: its summary.json lacks the training seconds; tailor it "
            "again"
        ) from error


def _short_name(session: Session, folder: Path) -> str:
    """What a tailored run's name says beside backbone, image size and seed.

    Another cut of the run, `candidates/<cut>` or `picked/<choice>`, adds its own name.
    """
    config, folder = session.config, folder.resolve()
    if folder.parent.name in ("candidates", "picked"):
        return f"{_short_name(session, folder.parent.parent)}-{folder.name}"
    start, end = f"{config.backbone}-{config.image_size}px-", f"-seed{config.seed}"
    return folder.name.removeprefix(start).removesuffix(end)


def knapsack_folder(session: Session) -> RunFolder:
    """Where the run of a session's settings lives."""
    settings = session.config.knapsack
    details = [session.limit(settings)]
    if settings.of != "teacher":
        details.append(f"of-{_short_name(session, Path(settings.of))}")
    details += ["greedy"] * (settings.solver == "greedy")
    details += [f"by{settings.round_to}"] * (settings.round_to != ROUND_TO)
    details += ["no-kd"] * (not settings.distill) + ["inner"] * (settings.mimic > 0)
    return RunFolder(session.folder("knapsack", *details), PROG)


def _narrowed(session: Session, folder: RunFolder, whole: Whole, choice: Choice) -> Narrowed:
    """Cut, re-estimate statistics, and fine-tune everything that is left, or go on with it."""
    config, settings = session.config, session.config.knapsack
    device = session.accelerator.device
    channels = trace_channels(whole.network, config.image_size)
    kept = kept_items(choice, channels, folder.path / CHOICE_FILE)
    network = place(narrow(whole.network, channels, kept), device).requires_grad_(True)
    reestimate(
        network, islice(session.train_loader.epoch(0), _STATISTICS_BATCHES), session.accelerator
    )
    straight_after = session.validate(network)
    session.screen.say(
        f"knapsack: {int(kept.sum())} of {len(kept)} groups of channels stay, {choice.cost:.3f} of "
        f"the cost; validation straight after the cut {straight_after.accuracy:.2f} %"
    )
    target, of_nodes = as_target(whole.network), []
    if settings.mimic:
        nodes = [
            None if items is None else positions(items, kept).to(device) for items in channels.nodes
        ]
        target = on_kept_channels(target, nodes)
        batches = islice(session.train_loader.epoch(0), _SCALE_BATCHES)
        room = room_for(config.batch_size, "a pass of the whole network")
        with session.accelerator.autocast(), room:
            *of_nodes, _ = mean_scales(
                "normalized", (target(images.to(device)) for images, _ in batches)
            )
    session.seed_stage("fine-tuning after the knapsack")
    objective = InnerDistillation(
        target,
        distill=settings.distill,
        mimic=settings.mimic,
        scales=of_nodes,
        label_smoothing=settings.label_smoothing,
        class_weights=session.class_weights,
    )
    fitted = train(session, network, objective, "knapsack", folder, settings)
    return Narrowed(network, whole, choice, straight_after, fitted)


def _finish(session: Session, folder: RunFolder, narrowed: Narrowed, teacher: Teacher) -> None:
    """Write the network, measure it beside the teacher, read the test split, write the summary."""
    started = time.perf_counter()
    device, size = session.accelerator.device, session.config.image_size
    network, whole = narrowed.network, narrowed.whole
    weights = save_network(folder.path, network, _architecture(network, whole))
    networks: dict[str, nn.Module] = {
        "teacher": place(teacher.network, device),
        "knapsack": network,
    }
    with session.screen.counting("timing") as tell:
        latency = measure_latency(networks, size, device, tell=tell)
    result = summary(
        "knapsack",
        session,
        network=network,
        evidence=gather(session, folder.path, network, latency["knapsack"]),
        size=weights.stat().st_size,
        train_seconds=narrowed.fitted.seconds,
        total_seconds=narrowed.fitted.total_seconds + time.perf_counter() - started,
        teacher=teacher.measured(latency["teacher"], device),
        knapsack=_how(session, narrowed),
    )
    folder.finish(result)


def _architecture(network: Backbone | Student, whole: Whole) -> Architecture:
    before = widths(whole.network)
    return whole.architecture.model_copy(
        update={
            "narrowed": NarrowedStructure(
                layers={
                    name: left for name, left in widths(network).items() if left != before[name]
                },
                nodes=tuple(spec.channels for spec in network.specs)
                if isinstance(network, Student)
                else None,
            )
        }
    )


def _how(session: Session, narrowed: Narrowed) -> dict[str, Any]:
    settings, network = session.config.knapsack, narrowed.network
    paths = None
    if isinstance(network, Student):
        alpha = network.path_weights().tolist()
        paths = [
            [*path, round(weight, 6)]
            for path, weight in zip(network.wiring.paths, alpha, strict=True)
        ]
    straight = narrowed.straight_after
    return {
        "of": {
            "kind": "tailored" if narrowed.whole.name else "teacher",
            "name": narrowed.whole.name,
            "train_seconds": narrowed.whole.train_seconds,
        },
        "budget": budget_row(settings),
        "solver": settings.solver,
        "round_to": settings.round_to,
        "distill": settings.distill,
        "mimic": settings.mimic,
        "cost": round(narrowed.choice.cost, 6),
        "value_kept": round(narrowed.choice.value, 6),
        "straight_after": {
            "accuracy": round(straight.accuracy, 4),
            "loss": round(straight.loss, 4),
        },
        "paths": paths,
    }


def execute(config: RunConfig, flags: CommandFlags) -> None:
    """Run the command with settings and flags that were found good."""
    with Screen() as screen:
        if flags.own["dry_run"]:
            outlook(start_dry(config, screen), overwrite=flags.overwrite)
            return
        session = start_session(config, screen)
        folder = knapsack(session, overwrite=flags.overwrite)
    result = folder.read_summary()
    title = f"{session.task.name}, narrowed by a knapsack beside the teacher"
    screen.console.print(side_by_side({"teacher": result["teacher"], "knapsack": result}, title))
    screen.say(f"run folder: {folder.path}")
