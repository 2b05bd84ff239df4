"""`python -m nettailor.tailor`: grow a student, train it, cut it, keep the leanest that holds."""

import time
from collections.abc import Sequence
from typing import Any

from torch import nn

from nettailor.budget import check_budget
from nettailor.candidate import Candidate
from nettailor.candidates import check_depths, check_routes, try_candidates
from nettailor.commands.teach import ready_teacher, say_teacher, teacher_folder
from nettailor.core.architecture import WEIGHTS_FILE
from nettailor.core.config import TEACHER_KEYS, RunConfig, recorded
from nettailor.core.console import Screen
from nettailor.core.device import place as place_on
from nettailor.core.errors import UserError
from nettailor.core.files import read_json, sha256_of, write_json
from nettailor.core.flags import CommandFlags
from nettailor.core.judge import error_of_difference, margin
from nettailor.core.latency import measure_latency
from nettailor.core.run_folder import RunFolder
from nettailor.core.scores import Scores
from nettailor.evidence import right_on
from nettailor.figures import candidates_table, side_by_side
from nettailor.finetune import Teacher
from nettailor.front import Seconds, pick, read_front
from nettailor.hand_over import hand_over, hand_over_alone
from nettailor.network import load_network
from nettailor.outlook import say_folder, say_stages, say_task, start_dry
from nettailor.path_shares import PathCosts
from nettailor.session import Session, start_session
from nettailor.share import Share
from nettailor.student.network import Student
from nettailor.tailoring import Tailoring

CANDIDATES_FILE = "candidates.json"
LATENCY_FILE = "latency_table.json"
TEACHER_FILE = "teacher.json"
_ROUNDING = 1e-6  # per cent, of sums and differences


def tailor(session: Session, *, overwrite: bool) -> RunFolder:
    """The whole procedure, or what is left of it; returns the finished run's folder."""
    config, screen = session.config, session.screen
    folder = tailored_folder(session)
    settings = _settings(session)
    check_depths(config.prune.remove, len(session.stages))
    if not overwrite and folder.finished:
        session.open(folder, settings, ignored=TEACHER_KEYS, overwrite=False)
        _require_same_teacher(folder, teacher_folder(session))
        return folder
    # whatever can be wrong with settings and images shows before anything is trained or discarded
    # the images themselves are compared when the folder is opened
    folder.check(None if overwrite else settings, ignored={*TEACHER_KEYS, "data"})
    costs = PathCosts(session, folder.path / LATENCY_FILE, fresh=overwrite)
    if overwrite or not folder.begun:
        check_routes(session)
        check_budget(session, costs)
    teacher = ready_teacher(session)
    work = Tailoring(session, folder, teacher.network, costs)
    if work.source.digest != teacher.architecture.weights_digest:
        raise UserError(
            f"{teacher.folder.path} was fine-tuned from other weights "
            f"({teacher.architecture.weights_origin}) than are there now ({work.source.origin}); "
            "train it again: python -m nettailor.teach --overwrite"
        )
    if overwrite or not folder.begun:
        session.check_images()
    session.open(folder, settings, ignored=TEACHER_KEYS, overwrite=overwrite)
    _begin_with(folder, teacher.folder)

    say_stages_of(session)
    student, grown, before = work.train_student()
    aim = work.judge.aim
    _warn_of_coarse_validation(session, work.taught.right)
    target = aim - config.prune.tolerance - _ROUNDING
    screen.say(
        f"student before the cut: validation {work.judge.value(before):.2f} %; "
        f"teacher {aim:.2f} %" + (f" ({config.metric})" if config.metric != "accuracy" else "")
    )
    spent = Seconds(grown.seconds, grown.total_seconds)
    candidates, spent = try_candidates(work, student, target, spent)
    _finish(work, spent, before, candidates, target, teacher)
    return folder


def _warn_of_coarse_validation(session: Session, right: bytes) -> None:
    """Say where a cut that differs from the teacher on no image is not within tolerance either."""
    images, tolerance = len(session.task.val), session.config.prune.tolerance
    least = margin(right, right)
    if tolerance < least and session.config.budget.given is None:
        session.screen.say(
            f"warning: {images} validation images do not resolve a tolerance of {tolerance:g} "
            f"points: where no image differs, {least:.2f} may be chance. A cut counts as within "
            "tolerance only where it is ahead of the teacher; more validation images or a "
            "larger --tolerance let leaner ones count"
        )


def say_stages_of(session: Session) -> None:
    """The stages after the teacher's, each with its epochs."""
    config = session.config
    cut = "each cut that is tried, at most" if config.budget.given is None else "the cut that wins"
    say_stages(session, {"student": config.student.epochs, cut: config.prune.epochs})


def outlook(session: Session, *, overwrite: bool) -> None:
    """Say what `tailor` would do; UserError where it would refuse, without measuring."""
    folder = tailored_folder(session)
    check_depths(session.config.prune.remove, len(session.stages))
    if overwrite or not folder.finished:
        check_routes(session)
        if session.config.budget.max_latency_ms is None:
            costs = PathCosts(session, folder.path / LATENCY_FILE, fresh=overwrite)
            check_budget(session, costs)
    folder.check(None if overwrite else _settings(session), ignored=TEACHER_KEYS)
    say_task(session)
    say_teacher(session)
    say_stages_of(session)
    say_folder(session, folder, overwrite=overwrite)


def _settings(session: Session) -> dict[str, Any]:
    return recorded(session.config, "teacher", "student", "budget", "prune")


def tailored_folder(session: Session) -> RunFolder:
    """Where the tailored run of a session's settings lives."""
    prune = session.config.prune
    details: list[str] = [prune.finetune]
    if prune.by == "rank":
        details.append("rank")
    details.append(f"gamma{session.config.student.gamma:g}")
    if session.config.budget.given is not None:
        details.append(session.limit(session.config.budget))
    return RunFolder(session.folder("tailored", *details), "python -m nettailor.tailor")


def _begin_with(folder: RunFolder, teacher: RunFolder) -> None:
    """Note the teacher that the run begins with, or hold the run to it."""
    note = folder.path / TEACHER_FILE
    if note.exists():
        _require_same_teacher(folder, teacher)
    else:
        digest = sha256_of(teacher.path / WEIGHTS_FILE)
        write_json(note, {"folder": str(teacher.path), "sha256": digest})


def _require_same_teacher(folder: RunFolder, teacher: RunFolder) -> None:
    """Raise UserError where the teacher is no longer the one that the run began with.

    A run whose teacher is gone stands for itself.
    """
    note = folder.path / TEACHER_FILE
    if not (note.exists() and teacher.finished):
        return
    if read_json(note).get("sha256") != sha256_of(teacher.path / WEIGHTS_FILE):
        raise UserError(
            f"{folder.path} was begun with another teacher than {teacher.path} holds now; "
            "give --overwrite to tailor again"
        )


def _finish(
    work: Tailoring,
    spent: Seconds,
    before_cut: Scores,
    candidates: Sequence[Candidate],
    target: float,
    teacher: Teacher,
) -> None:
    """Read the test split for the first candidate, which is kept, measure, write every summary.

    Args:
        spent: before the candidates were fine-tuned.
        before_cut: of the student, on validation.
    """
    session, config, folder = work.session, work.config, work.folder
    started = time.perf_counter()
    networks: dict[str, nn.Module] = {"teacher": work.teacher}
    networks |= {candidate.name: candidate.network for candidate in candidates}
    with session.screen.counting("timing") as tell:
        latency = measure_latency(networks, config.image_size, work.device, tell=tell)
    beside = teacher.measured(latency["teacher"], work.device)
    all_spent = spent.plus(*(candidate.fitted for candidate in candidates))
    rows = []
    # a budget ends with a race, where tolerance has no say
    aim = target if config.budget.given is None else None
    kept, *others = candidates
    for candidate in (*others, kept):
        tailored = candidate is kept
        place = RunFolder(folder.path if tailored else folder.path / "candidates" / candidate.name)
        figures = hand_over(
            work,
            place.path,
            candidate,
            # the test judges what the user gets, and nothing else
            kind="tailored" if tailored else "candidate",
            latency=latency[candidate.name],
            teacher=beside,
            spent=all_spent if tailored else spent.plus(candidate.fitted),
            since=started,
        )
        rows.append(
            {
                "name": candidate.name,
                "verdict": "kept" if tailored else candidate.verdict(aim),
                "blocks": figures["blocks"],
                "flops": figures["flops"],
                "params": figures["params"]["total"],
                "before_cut": before_cut.accuracy,
                "straight_after_cut": candidate.straight_after.accuracy,
                "finetuned": candidate.scores.accuracy,
                "judged": candidate.scores.standing,
                "lost_classes": list(candidate.lost),
            }
        )
        if tailored:
            rows.sort(key=lambda row: str(row["name"]), reverse=True)
            write_json(folder.path / CANDIDATES_FILE, rows)
        place.finish(figures)
    if aim is not None:
        _warn_of_a_lucky_choice(session, kept.name, teacher.folder, folder)
    if aim is not None and not kept.reaches(aim):
        session.screen.say(
            f"warning: no cut came within {config.prune.tolerance:g} points of the teacher, chance "
            f"allowed for; kept the best, {kept.name}. Try more --prune.epochs, a smaller --gamma "
            "or more validation images"
        )
    ended = {one.name: one.scores for one in candidates if one.ended}
    scores = {"the student before the cut": before_cut, **ended}
    name, best = max(scores.items(), key=lambda item: item[1].accuracy)
    if work.judge.ahead(best) > 1:
        session.screen.say(
            f"warning: {name} is more accurate than its teacher on validation "
            f"({best.accuracy:.2f} and {work.taught.accuracy:.2f} %), by more than the standard "
            "error: the teacher is under-trained. Give it more --teacher.epochs"
        )
    if kept.lost:
        session.screen.say(
            f"warning: {kept.name} loses {kept.lost_in_words}: more than ten points of recall on "
            "validation, and the standard error. Try --balance loss, a larger budget or "
            "a smaller --gamma"
        )


def _warn_of_a_lucky_choice(
    session: Session, name: str, teacher: RunFolder, folder: RunFolder
) -> None:
    """Say where the test, which is read once and chooses nothing, is beyond the tolerance."""
    before, after = (right_on(run.path, "test") for run in (teacher, folder))
    if not before or len(before) != len(after):
        return
    behind = 100 * (sum(before) - sum(after)) / len(before)
    tolerance = session.config.prune.tolerance
    if behind > tolerance:
        session.screen.say(
            f"warning: on the test {name} is {behind:.2f} points below its teacher (standard "
            f"error {error_of_difference(before, after):.2f}), and not within {tolerance:g} as on "
            f"{len(session.task.val)} validation images: a choice among many cuts and epochs can "
            "be lucky. Validate on more images (--split.val), or keep more (--max-flops)"
        )


def pick_another(session: Session, share: Share) -> RunFolder:
    """Fine-tune another point of a finished run's front; returns the folder that holds it.

    Raises UserError when the run is not finished, has no front, or none of its points is asked for.
    """
    folder = tailored_folder(session)
    if not folder.finished:
        raise UserError(
            f"--pick: {folder.path} holds no finished run; give the settings of one, or tailor "
            "first, without --pick"
        )
    session.open(folder, _settings(session), ignored=TEACHER_KEYS, overwrite=False)
    student, _ = load_network(folder.path / "student")
    assert isinstance(student, Student), "a tailored run keeps its student"
    front = read_front(folder.path, student.wiring)
    point = pick(front, share)
    picked = RunFolder(folder.path / "picked" / share.name)
    if picked.finished:
        return picked
    picked.hold()
    teacher = ready_teacher(session)
    _require_same_teacher(folder, teacher.folder)
    costs = PathCosts(session, folder.path / LATENCY_FILE, fresh=False)
    work = Tailoring(session, picked, teacher.network, costs)
    student = place_on(student, work.device)
    candidate = work.cut_and_finetune(student, point.plan(student.wiring))
    hand_over_alone(work, picked, candidate, teacher, front.seconds.plus(candidate.fitted))
    return picked


def execute(config: RunConfig, flags: CommandFlags) -> None:
    """Run the command with settings and flags that were found good."""
    share: Share | None = flags.own["pick"]
    with Screen() as screen:
        if flags.own["dry_run"]:
            outlook(start_dry(config, screen), overwrite=flags.overwrite)
            return
        session = start_session(config, screen)
        say_task(session)
        if share:
            folder = pick_another(session, share)
        else:
            folder = tailor(session, overwrite=flags.overwrite)
    result = folder.read_summary()
    teacher = result["teacher"]
    if share is None:
        screen.console.print(candidates_table(read_json(folder.path / CANDIDATES_FILE), teacher))
    title = f"{session.task.name}, tailored ({config.prune.finetune} mode) beside its teacher"
    screen.console.print(side_by_side({"teacher": teacher, "tailored": result}, title))
    screen.say(f"run folder: {folder.path}")
