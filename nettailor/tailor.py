"""`python -m nettailor.tailor`: grow a student, train it, cut it, keep the leanest that holds."""

import hashlib
import time
from collections.abc import Sequence

from torch import nn

from nettailor.core.architecture import WEIGHTS_FILE
from nettailor.core.config import as_settings
from nettailor.core.console import Screen
from nettailor.core.cost import module_flops
from nettailor.core.errors import UserError
from nettailor.core.files import read_json, write_json
from nettailor.core.flags import parse, run_command
from nettailor.core.latency import measure_latency
from nettailor.core.run_folder import RunFolder
from nettailor.core.scores import Scores
from nettailor.core.trainer import Fitted
from nettailor.evidence import gather
from nettailor.figures import candidates_table, side_by_side, summary
from nettailor.finetune import Teacher
from nettailor.network import save_network
from nettailor.session import Session, start_session
from nettailor.tailoring import Candidate, Tailoring
from nettailor.teach import ready_teacher
from prune.depths import choose, default_depths
from prune.plan import PrunePlan, decide
from student.network import Student

DESCRIPTION = (
    "Tailor a pretrained network to a task: train a student of frozen blocks, proxies and path "
    "weights, cut it at several depths, and keep the leanest within tolerance of the teacher."
)
CANDIDATES_FILE = "candidates.json"


def _plans(student: Student, depths: Sequence[int], threshold: float) -> list[PrunePlan]:
    """A plan per depth that differs from the others, the deepest first."""
    alpha = student.path_weights().tolist()
    plans: dict[object, PrunePlan] = {}
    for depth in sorted(set(depths), reverse=True):
        plan = decide(student.wiring, alpha, threshold=threshold, remove=depth)
        plans.setdefault(plan.kept.paths, plan)
    return list(plans.values())


def tailor(session: Session, *, overwrite: bool) -> RunFolder:
    """The whole procedure, or what is left of it; returns the finished run's folder."""
    config, screen = session.config, session.screen
    depths = _depths(config.prune.remove, len(session.stages))
    folder = RunFolder(
        session.folder("tailored", config.prune.finetune, f"gamma{config.student.gamma:g}"),
        "python -m nettailor.tailor",
    )
    settings = {key: value for key, value in as_settings(config).items() if key != "eliminate"}
    # the teacher that is there counts, not the settings with which one would be trained
    ignored = [f"teacher.{key}" for key in settings["teacher"]]
    if folder.finished and not overwrite:
        folder.open(settings, ignored=ignored, overwrite=False)
        return folder
    teacher = ready_teacher(session)
    # whatever can be wrong with settings and images shows before anything is discarded
    work = Tailoring(session, folder, teacher.network)
    if work.source.digest != teacher.architecture.weights_digest:
        raise UserError(
            f"{teacher.folder.path} was fine-tuned from other weights "
            f"({teacher.architecture.weights_origin}) than are there now ({work.source.origin}); "
            "train it again: python -m nettailor.teach --overwrite"
        )
    if overwrite or not folder.begun:
        session.check_images()
    folder.open(settings, ignored=ignored, overwrite=overwrite)
    _same_teacher(folder, teacher.folder)

    student, grown, before = work.train_student()
    aim: float = teacher.figures["accuracy"]["val"]
    target = aim - config.prune.tolerance - 1e-6
    screen.say(f"student before the cut: validation {before.accuracy:.2f} %; teacher {aim:.2f} %")
    candidates: list[Candidate] = []
    plans = _plans(student, depths, config.prune.threshold)
    for plan in plans:
        screen.say(f"remove-{plan.removed:02d}: {plan.describe()}")
        # the last one runs to its end, so that there is one to keep
        hoped_for = None if plan is plans[-1] else target
        candidate = work.cut_and_finetune(student, plan, hoped_for)
        candidates.append(candidate)
        screen.say(
            f"{candidate.name}: straight after the cut {candidate.straight_after.accuracy:.2f} %, "
            f"fine-tuned {candidate.scores.accuracy:.2f} %: {candidate.verdict(target)}"
        )
        if candidate.reaches(target):
            break
    _finish(work, grown, before, candidates, target, teacher)
    return folder


def _depths(asked: tuple[int, ...] | None, blocks: int) -> tuple[int, ...]:
    """The depths to try; the default ends with none, where only proxies are cut."""
    if asked is None:
        return (*default_depths(blocks), 0)
    too_deep = [depth for depth in asked if depth > blocks]
    if too_deep or not asked:
        raise UserError(
            f"prune.remove = {list(asked)}: give numbers from 0 to the backbone's {blocks} blocks"
        )
    return asked


def _same_teacher(folder: RunFolder, teacher: RunFolder) -> None:
    """Hold the run to the teacher it began with."""
    digest = hashlib.sha256((teacher.path / WEIGHTS_FILE).read_bytes()).hexdigest()
    note = folder.path / "teacher.json"
    if not note.exists():
        write_json(note, {"folder": str(teacher.path), "sha256": digest})
    elif read_json(note).get("sha256") != digest:
        raise UserError(
            f"{folder.path} was begun with another teacher than {teacher.path} holds now; "
            "give --overwrite to tailor again"
        )


def _finish(
    work: Tailoring,
    grown: Fitted,
    before: Scores,
    candidates: Sequence[Candidate],
    target: float,
    teacher: Teacher,
) -> None:
    """Choose on validation, then read the test split, measure, and write every summary."""
    session, config, folder = work.session, work.config, work.folder
    started = time.perf_counter()
    shape = (3, config.image_size, config.image_size)
    # one that was given up half-trained is no network to hand over
    whole = [i for i, one in enumerate(candidates) if not one.fitted.stopped_early]
    chosen = whole[
        choose(
            [candidates[i].scores.accuracy for i in whole],
            [module_flops(candidates[i].network, shape) for i in whole],
            target,
        )
    ]
    networks: dict[str, nn.Module] = {"teacher": work.teacher}
    networks |= {candidate.name: candidate.network for candidate in candidates}
    latency = measure_latency(networks, config.image_size, work.device)
    beside = teacher.measured(latency["teacher"], work.device)
    trained = grown.seconds + sum(candidate.fitted.seconds for candidate in candidates)
    spent = grown.total_seconds + sum(candidate.fitted.total_seconds for candidate in candidates)
    rows = []
    order = [i for i in range(len(candidates)) if i != chosen] + [chosen]
    for position in order:
        candidate = candidates[position]
        tailored = position == chosen
        place = RunFolder(folder.path if tailored else folder.path / "candidates" / candidate.name)
        network = candidate.network
        weights = save_network(place.path, network, session.architecture(work.source))
        figures = summary(
            "tailored" if tailored else "candidate",
            session,
            network=network,
            evidence=gather(
                session,
                place.path,
                network,
                latency[candidate.name],
                # the test judges what the user gets, and nothing else
                read_test=tailored,
            ),
            size=weights.stat().st_size,
            train_seconds=trained if tailored else grown.seconds + candidate.fitted.seconds,
            total_seconds=spent + time.perf_counter() - started,
            teacher=beside,
            tailored={
                "finetune": config.prune.finetune,
                "gamma": config.student.gamma,
                "depth": candidate.name,
                "paths": [
                    [path.source, path.target, path.kind, round(weight, 4)]
                    for path, weight in zip(
                        network.wiring.paths, network.path_weights().tolist(), strict=True
                    )
                ],
            },
        )
        rows.append(
            {
                "name": candidate.name,
                "verdict": "kept" if tailored else candidate.verdict(target),
                "blocks": figures["blocks"],
                "flops": figures["flops"],
                "params": figures["params"]["total"],
                "before_cut": before.accuracy,
                "straight_after_cut": candidate.straight_after.accuracy,
                "finetuned": candidate.scores.accuracy,
            }
        )
        if tailored:
            rows.sort(key=lambda row: str(row["name"]), reverse=True)
            write_json(folder.path / CANDIDATES_FILE, rows)
            reached = candidate.reaches(target)
        place.finish(figures)
    if not reached:
        session.screen.say(
            f"warning: no depth came within {config.prune.tolerance:g} points of the teacher; "
            f"kept the most accurate, {candidates[chosen].name}. Try more --prune.epochs, fewer "
            "blocks in --prune.remove, or a smaller --gamma"
        )


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    config, flags = parse("python -m nettailor.tailor", DESCRIPTION, argv)
    with Screen() as screen:
        session = start_session(config, screen)
        folder = tailor(session, overwrite=flags.overwrite)
    result = folder.read_summary()
    teacher = result["teacher"]
    screen.console.print(candidates_table(read_json(folder.path / CANDIDATES_FILE), teacher))
    title = f"{session.task.name}, tailored ({config.prune.finetune} mode) beside its teacher"
    screen.console.print(side_by_side({"teacher": teacher, "tailored": result}, title))
    screen.say(f"run folder: {folder.path}")


if __name__ == "__main__":
    run_command(main)
