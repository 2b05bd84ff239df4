"""The settings of a run that is to end within a given time: the epochs of its stages."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Literal

from nettailor.core import ranks
from nettailor.core.device import place
from nettailor.core.epochs import Batch, Epochs
from nettailor.core.errors import UserError
from nettailor.core.printable import counted
from nettailor.core.run_folder import RunFolder
from nettailor.core.run_settings import CONFIG_FILE, read_config
from nettailor.core.schedule import parameter_groups
from nettailor.core.settings import validate
from nettailor.core.trainer import fit
from nettailor.core.watch import Watcher
from nettailor.core.weights import load_pretrained
from nettailor.resolutions import may_lower
from nettailor.resolve import auto_epochs, has_student
from nettailor.session import Session
from nettailor.teacher.objective import CrossEntropy
from nettailor.time_limit import TimeLimit, fitting

_STEPS = 5  # that are timed, after as many that are slower
_PLANNED = 0.9  # of the time: what comes between the stages is not counted, and machines are shared
_CALLED = {"teacher": "teacher", "student": "student", "prune": "sizes"}
# epochs of the whole network that one of a student takes: at its own resolution, at each in turn,
# and at all of them at once
_STUDENT, _IN_TURN, _AT_ONCE = 1.1, 2.3, 1.1
# and one of the size, or of sizes that are fine-tuned: one to its end, others half of the way
_SIZE, _SIZES = 1.0, 2.0
# seconds of measuring for a budget of milliseconds, at each of the resolutions
_TIMING, _RESOLUTIONS = 100.0, 3


class _FewSteps:
    """The first steps of each epoch of another source."""

    def __init__(self, epochs: Epochs) -> None:
        self.steps_per_epoch = min(_STEPS, epochs.steps_per_epoch)
        self.batch_size = epochs.batch_size
        self._epochs = epochs

    def epoch(self, number: int, start: int = 0, part: slice = slice(None)) -> Iterator[Batch]:
        return islice(self._epochs.epoch(number, start, part), self.steps_per_epoch - start)


def plain_epoch(session: Session) -> float:
    """Seconds of an epoch of the whole network, its validation included, by a few of its steps.

    Of several ranks the slowest counts.
    """
    session = replace(session)  # dropped here, with the processes that load its images
    config, loaders = session.config, session.loaders
    session.seed_stage("timing")
    network, _ = load_pretrained(
        config.backbone, len(session.task.classes), config.weights, config.image_size
    )
    schedule = session.schedule("teacher")
    # hardly a step: without a warm-up the usual one may lead anywhere
    schedule = replace(schedule, epochs=2, warmup_epochs=0, lr=1e-3 * schedule.lr)
    steps = _FewSteps(loaders.train)
    timed = fit(
        place(network, session.accelerator.device),
        CrossEntropy(config.label_smoothing, loaders.class_weights),
        steps,
        groups=parameter_groups(network.named_parameters(), schedule),
        schedule=schedule,
        accelerator=session.accelerator,
        validate=loaders.validate,
        state_path=None,
        watcher=Watcher(),
    ).history[-1]
    trains = timed["seconds"] * loaders.train.steps_per_epoch / steps.steps_per_epoch
    (slowest,) = ranks.highest([round(1e6 * (trains + timed["val_seconds"]))])
    return slowest / 1e6


def in_time(session: Session, limit: TimeLimit, teacher: RunFolder) -> Session:
    """The session with as many epochs as fit; says what that gives up.

    Args:
        session: of settings that were found good.
        limit: for all stages that are still to be trained.
        teacher: its folder; one that was begun keeps its epochs.

    Raises:
        UserError: one epoch of each stage is too much.
    """
    session = as_begun(session, teacher, "teacher")
    config, taught = session.config, session.config.teacher.epochs
    several = may_lower(config.student.levers, config.student.cost)
    free = config.budget.given is None
    several_takes = _AT_ONCE if free else _IN_TURN
    takes = {
        "teacher": 1.0,
        "student": several_takes if several else _STUDENT,
        "prune": _SIZES if free or several else _SIZE,
    }
    plain, seconds = plain_epoch(session), _PLANNED * limit.seconds
    if config.budget.max_latency_ms is not None:
        seconds -= _TIMING * (_RESOLUTIONS if several else 1)
    room, auto = seconds / plain, auto_epochs(session.loaders.train.steps_per_epoch)
    tries = [{"prune": session.schedule("prune").epochs}]
    if has_student(config):
        tries = [{"student": session.schedule("student").epochs, **tries[0]}]
    if not _settled(teacher):
        # all that may follow, in which case it stays open, or the first epochs alone
        lengths = (3 * auto, auto) if taught == "auto" else (taught,)
        tries = [{"teacher": one, **tries[0]} for one in lengths]
    elif not teacher.finished:
        room -= auto if taught == "auto" else taught
    wanted = next((one for one in tries if fitting(room, one, takes) == one), tries[-1])
    epochs = fitting(room, wanted, takes)
    if epochs is None:
        more = sum(takes[stage] for stage in wanted) - room
        raise UserError(
            f"--time {limit.text}: an epoch of the whole network takes {plain:.3g} s here, and one "
            f"of each stage {limit.seconds + more * plain / _PLANNED:.0f} s: give more, or fewer "
            "images (--limit.train)"
        )
    given_up = [
        f"{wanted[stage] - number} of {counted(wanted[stage], 'epoch')} of the {_CALLED[stage]}"
        for stage, number in epochs.items()
        if number < wanted[stage]
    ]
    if taught == "auto" and "teacher" in epochs:
        if wanted["teacher"] == 3 * auto:
            del epochs["teacher"]  # it stays as it is
        else:
            given_up.append("longer training of a teacher that is not there yet")
    session.screen.say(
        f"--time {limit.text}: an epoch of the whole network takes {plain:.3g} s here; given up: "
        f"{', '.join(given_up) or 'nothing'}"
    )
    return _with(session, epochs)


def as_begun(session: Session, folder: RunFolder, *stages: str) -> Session:
    """The session with the epochs of a run that was begun, where there is one."""
    if not _settled(folder):
        return session
    with suppress(UserError):  # of another version, or damaged: whoever opens it says which
        there = validate(read_config(folder.path / CONFIG_FILE))
        session = _with(session, {stage: getattr(there, stage).epochs for stage in stages})
    return session


def _settled(folder: RunFolder) -> bool:
    """Whether there is a run, which goes on with its own epochs only."""
    return folder.begun and not folder.untrained


def _with(session: Session, epochs: Mapping[str, int | Literal["auto"]]) -> Session:
    """The session with other epochs of some stages."""
    config = session.config
    changes = {
        stage: getattr(config, stage).model_copy(update={"epochs": number})
        for stage, number in epochs.items()
    }
    if (number := epochs.get("teacher", "auto")) != "auto":  # its warm-up ends before it does
        warmup = min(config.teacher.warmup_epochs or 0, number - 1)
        changes["teacher"] = changes["teacher"].model_copy(update={"warmup_epochs": warmup})
    return replace(session, config=config.model_copy(update=changes))
