"""`python -m nettailor.knapsack`: remove channels under a hard budget, fine-tune the rest."""

import time
from itertools import islice
from pathlib import Path
from typing import Any

from nettailor.commands.teach import ready_teacher, say_teacher, teacher_folder
from nettailor.core.architecture import WEIGHTS_FILE
from nettailor.core.backbone import Backbone, create_backbone
from nettailor.core.config import TEACHER_KEYS, RunConfig, recorded
from nettailor.core.console import Screen
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.files import sha256_of
from nettailor.core.flags import CommandFlags
from nettailor.core.latency import measure_latency
from nettailor.core.ranks import from_main
from nettailor.core.run_folder import RunFolder
from nettailor.core.scores import Scores
from nettailor.core.side_sections import ROUND_TO
from nettailor.evidence import gather
from nettailor.figures import budget_row, side_by_side, summary
from nettailor.finetune import Teacher, train
from nettailor.narrowing import (
    CHOICE_FILE,
    Budget,
    Choice,
    choose,
    kept_items,
    read_choice,
    ready_budget,
    write_choice,
)
from nettailor.network import narrowed_structure, save_network
from nettailor.outlook import say_folder, say_stages, say_task, start_dry
from nettailor.prune.channels import trace_channels
from nettailor.prune.distillation import Distillation
from nettailor.prune.fold import fold
from nettailor.prune.narrow import channels_left, narrow
from nettailor.prune.statistics import STATISTICS_BATCHES, reestimate
from nettailor.session import Session, start_session
from nettailor.student.network import Student
from nettailor.teacher.target import as_target
from nettailor.whole import Whole, short_name, tailored_whole

PROG = "python -m nettailor.knapsack"
_IGNORED = ("knapsack.of", *TEACHER_KEYS)  # keys in which a run that is there may differ


def knapsack(session: Session, *, overwrite: bool) -> RunFolder:
    """The whole procedure, or what is left of it; returns the finished run's folder.

    Raises UserError before anything is trained for a budget out of reach, a network whose channels
    cannot be grouped, and a run to start from that is absent or of another task; and for a run of
    these settings that began with another network than is there now.
    """
    config = session.config
    tailored = tailored_whole(session) if config.knapsack.of != "teacher" else None
    folder, settings = knapsack_folder(session), _settings(session)
    choice_file = folder.path / CHOICE_FILE
    if not overwrite and folder.finished:
        session.open(folder, settings, ignored=_IGNORED, overwrite=False)
        choice = read_choice(choice_file)
        if tailored is not None:
            _require_same_network(folder, choice, tailored.digest)
        elif (teacher_run := teacher_folder(session)).finished:
            _require_same_network(folder, choice, sha256_of(teacher_run.path / WEIGHTS_FILE))
        return folder
    folder.check(None if overwrite else settings, ignored=_IGNORED)
    chosen = not overwrite and choice_file.exists()
    own = _at_its_own(session, tailored)
    budget = None if chosen else _ready_budget(own, tailored, fresh=overwrite)
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
        session.open(folder, settings, ignored=_IGNORED, overwrite=False)
    else:
        session.seed_stage("knapsack")
        choice = from_main(lambda: choose(own, whole.network, budget, whole.digest))
        session.open(folder, settings, ignored=_IGNORED, overwrite=overwrite)
        write_choice(choice_file, choice)
    _finetune(own, folder, whole, choice, teacher)
    return folder


def outlook(session: Session, *, overwrite: bool) -> None:
    """Say what `knapsack` would do; UserError where it would refuse, without measuring."""
    config = session.config
    tailored = tailored_whole(session) if config.knapsack.of != "teacher" else None
    folder = knapsack_folder(session)
    folder.check(None if overwrite else _settings(session), ignored=_IGNORED)
    if config.budget.max_latency_ms is None:
        _ready_budget(_at_its_own(session, tailored), tailored, fresh=False)
    say_task(session)
    say_teacher(session)
    say_stages(session, {"fine-tuning after the cut": session.schedule("prune")})
    say_folder(session, folder, overwrite=overwrite)


def _ready_budget(session: Session, tailored: Whole | None, *, fresh: bool) -> Budget:
    """The budget of the network that is to lose channels; a teacher needs no weights for it."""
    network: Backbone | Student
    if tailored is None:
        config, classes = session.config, len(session.task.classes)
        network = create_backbone(config.backbone, classes, config.image_size)
    else:
        network = tailored.network
    return ready_budget(session, place(network, session.accelerator.device), fresh=fresh)


def _at_its_own(session: Session, tailored: Whole | None) -> Session:
    """The session at the resolution of the network that is to lose channels."""
    if tailored is None:
        return session
    return session.at(tailored.architecture.preprocessing.image_size)


def _require_same_network(folder: RunFolder, choice: Choice, digest: str) -> None:
    """Raise UserError where the network is not the one that the run began with."""
    if choice.whole != digest:
        raise UserError(
            f"{folder.path} was begun with another network than is there now; give --overwrite to "
            "discard that run and begin anew, or another --out"
        )


def _settings(session: Session) -> dict[str, Any]:
    """What is recorded."""
    config = session.config
    cut = ("student.optimizer", "prune.epochs", "prune.lr")
    return recorded(config, "teacher", *cut, "budget", "knapsack")


def knapsack_folder(session: Session) -> RunFolder:
    """Where the run of a session's settings lives."""
    settings = session.config.knapsack
    details = [session.places.limit(session.config.budget)]
    if settings.of != "teacher":
        details.append(f"of-{short_name(session, Path(settings.of))}")
    details += [f"by{settings.round_to}"] * (settings.round_to != ROUND_TO)
    return RunFolder(session.places.run("knapsack", *details), PROG)


def _finetune(
    session: Session, folder: RunFolder, whole: Whole, choice: Choice, teacher: Teacher
) -> None:
    """Cut, re-estimate statistics, fine-tune all that is left, or go on with it, and measure."""
    config, device = session.config, session.accelerator.device
    side = session.preprocessing.image_size
    channels = trace_channels(whole.network, side)
    kept = kept_items(choice, channels, folder.path / CHOICE_FILE)
    network = place(narrow(whole.network, channels, kept), device).requires_grad_(True)
    batches = islice(session.loaders.train.epoch(0), STATISTICS_BATCHES)
    reestimate(network, batches, session.accelerator)
    straight_after = session.loaders.validate(network)
    session.screen.say(
        f"knapsack: {int(kept.sum())} of {len(kept)} groups of channels stay, {choice.cost:.3f} of "
        f"the cost; validation straight after the cut {straight_after.accuracy:.2f} %"
    )
    session.seed_stage("fine-tuning after the knapsack")
    target = as_target(whole.network)
    objective = Distillation(target, config.label_smoothing, session.loaders.class_weights)
    fitted = train(session, network, objective, "knapsack", folder, session.schedule("prune"))
    started = time.perf_counter()
    narrowed = narrowed_structure(whole.network, network)
    architecture = whole.architecture.model_copy(update={"narrowed": narrowed})
    weights = save_network(folder.path, network, architecture)
    networks = {"teacher": place(fold(teacher.network), device), "knapsack": fold(network)}
    with session.screen.counting("timing") as tell:
        sides = {"teacher": config.image_size, "knapsack": side}
        latency = measure_latency(networks, sides, device, tell=tell)
    evidence = from_main(lambda: gather(session.loaders, folder.path, network, latency["knapsack"]))
    result = summary(
        "knapsack",
        session,
        network=network,
        evidence=evidence,
        size=weights.stat().st_size,
        train_seconds=fitted.seconds,
        total_seconds=fitted.total_seconds + time.perf_counter() - started,
        teacher=teacher.measured(latency["teacher"], device),
        knapsack=_how(session, network, whole, choice, straight_after, teacher),
    )
    session.finish(folder, result)


def _how(
    session: Session,
    network: Backbone | Student,
    whole: Whole,
    choice: Choice,
    straight_after: Scores,
    teacher: Teacher,
) -> dict[str, Any]:
    """For the summary; `straight_after`: on validation, after re-estimating and before training."""
    config, paths = session.config, None
    if isinstance(network, Student):
        alpha = network.path_weights().tolist()
        paths = [
            [*path, round(weight, 6)]
            for path, weight in zip(network.wiring.paths, alpha, strict=True)
        ]
    return {
        "of": {
            "kind": "tailored" if whole.name else "teacher",
            "name": whole.name,
            "train_seconds": whole.train_seconds,
        },
        "budget": budget_row(config.budget),
        "round_to": config.knapsack.round_to,
        "image_size": session.preprocessing.image_size,
        "channels": sorted(channels_left(network, teacher.network).items()),
        "cost": round(choice.cost, 6),
        "value_kept": round(choice.value, 6),
        "straight_after": {
            "accuracy": round(straight_after.accuracy, 4),
            "loss": round(straight_after.loss, 4),
        },
        "paths": paths,
    }


def execute(config: RunConfig, flags: CommandFlags) -> None:
    """Run the command with settings and flags that were found good."""
    config = config.model_copy(update={"budget": config.budget.or_half()})
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
