"""`python -m nettailor.tailor`: grow a student, shrink it, keep the leanest that holds."""

from pathlib import Path
from typing import Any, get_args

from nettailor.all_blocks import AllBlocks
from nettailor.budget import check_budget
from nettailor.by_rank import ByRank, check_depths, check_routes
from nettailor.by_shrinking import ByShrinking
from nettailor.by_sizes import BySizes
from nettailor.candidates import target_of
from nettailor.choice_warnings import warn_of_coarse_validation, warn_of_the_choice
from nettailor.commands.teach import ready_teacher, say_teacher, teacher_folder
from nettailor.core.architecture import WEIGHTS_FILE
from nettailor.core.config import TEACHER_KEYS, RunConfig, recorded
from nettailor.core.console import Screen
from nettailor.core.errors import UserError
from nettailor.core.files import read_json, sha256_of, write_json
from nettailor.core.flags import CommandFlags
from nettailor.core.run_folder import RunFolder
from nettailor.core.sections import Lever
from nettailor.figures import candidates_table, side_by_side
from nettailor.finetune import Teacher
from nettailor.front import pick, read_front
from nettailor.hand_over import CANDIDATES_FILE, hand_over
from nettailor.in_time import as_begun, in_time
from nettailor.outlook import say_folder, say_stages, say_task, start_dry
from nettailor.path_shares import PathCosts
from nettailor.resolutions import may_lower
from nettailor.resolve import has_student
from nettailor.session import Session, start_session
from nettailor.share import Share
from nettailor.tailoring import Tailoring, wiring_of
from nettailor.time_limit import TimeLimit

LATENCY_FILE = "latency_table.json"
TEACHER_FILE = "teacher.json"


def tailor(session: Session, *, overwrite: bool, limit: TimeLimit | None = None) -> RunFolder:
    """The whole procedure, or what is left of it; returns the finished run's folder.

    limit: for all of it; a run that was begun goes on with its own epochs.
    """
    folder = tailored_folder(session)
    if limit and not overwrite:
        session = as_begun(session, folder, "student", "prune")
    config, screen = session.config, session.screen
    settings = _settings(session)
    check_depths(config.prune.remove, len(session.stages))
    if not overwrite and folder.finished:
        session.open(folder, settings, ignored=TEACHER_KEYS, overwrite=False)
        _hold_to(folder, teacher_folder(session))
        return folder
    # whatever can be wrong with settings and images shows before anything is trained or discarded
    # the images themselves are compared when the folder is opened
    folder.check(None if overwrite else settings, ignored={*TEACHER_KEYS, "data"})
    costs = PathCosts(session, folder.path / LATENCY_FILE, fresh=overwrite)
    if overwrite or not folder.begun:
        check_routes(config, len(session.task.classes))
        check_budget(session, costs)
    if limit and (overwrite or not folder.begun or folder.untrained):
        session = in_time(session, limit, teacher_folder(session))
        settings = _settings(session)
    teacher = ready_teacher(session)
    work = _way(session, folder, teacher, costs)
    if work.source.digest != teacher.architecture.weights_digest:
        raise UserError(
            f"{teacher.folder.path} was fine-tuned from other weights "
            f"({teacher.architecture.weights_origin}) than are there now ({work.source.origin}); "
            "train it again: python -m nettailor.teach --overwrite"
        )
    if overwrite or not folder.begun:
        session.check_images()
    session.open(folder, settings, ignored=TEACHER_KEYS, overwrite=overwrite)
    _hold_to(folder, teacher.folder, begins=True)

    say_stages_of(session)
    warn_of_coarse_validation(session, work.taught.right)
    screen.say(f"teacher: validation {work.judge.aim:.2f} % ({config.metric})")
    target = target_of(work.judge, config.prune.tolerance)
    found = work.tailored(target)
    # where there is a budget, tolerance has no say
    wanted = target if config.budget.given is None else None
    hand_over(work, found.candidates, teacher, found.seconds, kind="tailored", target=wanted)
    warn_of_the_choice(work, found, wanted, teacher=teacher.folder)
    return folder


def _way(session: Session, folder: RunFolder, teacher: Teacher, costs: PathCosts) -> Tailoring:
    """By rank as published, by a student that shrinks, or with all blocks."""
    shrinks: type[Tailoring] = ByShrinking if has_student(session.config) else AllBlocks
    way = ByRank if session.config.prune.by == "rank" else shrinks
    return way(session, folder, teacher.network, costs)


def say_stages_of(session: Session) -> None:
    """The stages after the teacher's, each with its epochs."""
    config = session.config
    free = config.budget.given is None
    cut = "each size that is tried, at most" if free else "the size within the budget"
    several = config.prune.by == "route" and may_lower(config.student.levers, config.student.cost)
    each = "at several resolutions at once" if free else "at each resolution that is tried"
    student = f"student, {each}" if several else "student"
    stages = {student: session.schedule("student")} if has_student(config) else {}
    say_stages(session, stages | {cut: session.schedule("prune")})


def outlook(session: Session, *, overwrite: bool, limit: TimeLimit | None = None) -> None:
    """Say what `tailor` would do; UserError where it would refuse, without measuring."""
    folder = tailored_folder(session)
    if limit:
        session = as_begun(session, teacher_folder(session), "teacher")
    if limit and not overwrite:
        session = as_begun(session, folder, "student", "prune")
    config = session.config
    check_depths(config.prune.remove, len(session.stages))
    if overwrite or not folder.finished:
        check_routes(config, len(session.task.classes))
        if config.budget.max_latency_ms is None:
            check_budget(session, PathCosts(session, folder.path / LATENCY_FILE, fresh=overwrite))
    folder.check(None if overwrite else _settings(session), ignored=TEACHER_KEYS)
    say_task(session)
    say_teacher(session)
    say_stages_of(session)
    if limit and (overwrite or not folder.begun):
        session.screen.say(f"--time {limit.text}: fewer epochs than these where they take longer")
    say_folder(session, folder, overwrite=overwrite)


def _settings(session: Session) -> dict[str, Any]:
    return recorded(session.config, "teacher", "student", "budget", "prune")


def tailored_folder(session: Session) -> RunFolder:
    """Where the tailored run of a session's settings lives."""
    prune = session.config.prune
    details: list[str] = [prune.finetune]
    if prune.by == "rank":
        details.append("rank")
    elif len(levers := session.config.student.levers) < len(get_args(Lever)):
        details.append("-".join(sorted(levers)))
    details.append(f"gamma{session.config.student.gamma:g}")
    if session.config.budget.given is not None:
        details.append(session.places.limit(session.config.budget))
    return RunFolder(session.places.run("tailored", *details), "python -m nettailor.tailor")


def _hold_to(folder: RunFolder, teacher: RunFolder, *, begins: bool = False) -> None:
    """Raise UserError where the teacher is no longer the one that the run began with.

    A run whose teacher is gone stands for itself. One that begins notes which it is.
    """
    note, weights = folder.path / TEACHER_FILE, teacher.path / WEIGHTS_FILE
    if begins and not note.exists():
        write_json(note, {"folder": str(teacher.path), "sha256": sha256_of(weights)})
    elif note.exists() and teacher.finished and _noted(note) != sha256_of(weights):
        raise UserError(
            f"{folder.path} was begun with another teacher than {teacher.path} holds now; "
            "give --overwrite to tailor again"
        )


def _noted(note: Path) -> str:
    """The SHA-256 of the teacher's weights that a run began with."""
    content = read_json(note)
    if not isinstance(content, dict):
        raise UserError(f"{note}: is damaged; delete it, or give --overwrite to tailor again")
    return str(content.get("sha256"))


def pick_another(session: Session, share: Share, *, limit: TimeLimit | None) -> RunFolder:
    """Fine-tune another point of a finished run's front; returns the folder that holds it.

    limit: that of the run, whose epochs count.

    Raises UserError when the run is not finished, has no front, or none of its points is asked for.
    """
    folder = tailored_folder(session)
    if not folder.finished:
        raise UserError(
            f"--pick: {folder.path} holds no finished run; give the settings of one, or tailor "
            "first, without --pick"
        )
    if limit:
        session = as_begun(session, folder, "student", "prune")
    session.open(folder, _settings(session), ignored=TEACHER_KEYS, overwrite=False)
    wiring = wiring_of(session.config, len(session.task.classes))
    front = read_front(folder.path, wiring)
    own = session.config.image_size
    # summaries of before lack it: all networks had images of their own size then
    size = folder.read_summary()["tailored"].get("image_size", own)
    point = pick(front, share, None if size == own else size)
    picked = RunFolder(folder.path / "picked" / share.name)
    if picked.finished:
        return picked
    picked.hold()
    teacher = ready_teacher(session)
    _hold_to(folder, teacher.folder)
    costs = PathCosts(session, folder.path / LATENCY_FILE, fresh=False)
    work = BySizes(session, picked, teacher.network, costs, of=folder.path)
    candidate = work.finetune(point.plan(wiring))
    hand_over(work, [candidate], teacher, front.seconds, kind="picked")
    return picked


def execute(config: RunConfig, flags: CommandFlags) -> None:
    """Run the command with settings and flags that were found good."""
    share: Share | None = flags.own["pick"]
    limit: TimeLimit | None = flags.own["time"]
    with Screen() as screen:
        if flags.own["dry_run"]:
            outlook(start_dry(config, screen), overwrite=flags.overwrite, limit=limit)
            return
        session = start_session(config, screen)
        say_task(session)
        if share:
            folder = pick_another(session, share, limit=limit)
        else:
            folder = tailor(session, overwrite=flags.overwrite, limit=limit)
    result = folder.read_summary()
    teacher = result["teacher"]
    if share is None:
        file = folder.path / CANDIDATES_FILE
        rows = read_json(file)
        try:
            table = candidates_table(rows if isinstance(rows, list) else [rows], teacher)
            screen.console.print(table)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file}: is damaged; restore it, or give --overwrite") from error
    title = f"{session.task.name}, tailored ({config.prune.finetune} mode) beside its teacher"
    screen.console.print(side_by_side({"teacher": teacher, "tailored": result}, title))
    screen.say(f"run folder: {folder.path}")
