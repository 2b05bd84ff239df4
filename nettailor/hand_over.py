"""Finished candidates on disk: their weights, their evidence, their figures."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from nettailor.candidate import Candidate
from nettailor.core.files import write_json
from nettailor.core.latency import measure_latency
from nettailor.core.ranks import from_main
from nettailor.core.run_folder import RunFolder
from nettailor.core.scores import Scores
from nettailor.evidence import gather
from nettailor.figures import budget_row, summary
from nettailor.finetune import Teacher
from nettailor.front import Seconds
from nettailor.network import save_network
from nettailor.tailoring import Tailoring

CANDIDATES_FILE = "candidates.json"


def _hand_over(
    work: Tailoring,
    folder: Path,
    candidate: Candidate,
    *,
    kind: Literal["tailored", "candidate", "picked"],
    latency: Mapping[str, Mapping[str, float]],
    teacher: Mapping[str, Any],
    spent: Seconds,
    since: float,
) -> dict[str, Any]:
    """Write a candidate into a folder; returns its summary, not yet written.

    Args:
        kind: the test split is read for all but a candidate that was not kept.
        latency: of the network, measured in turn with the teacher's.
        teacher: the teacher's summary.
        spent: on training all that led to it.
        since: when the measuring began, by `time.perf_counter`.
    """
    session, config, network = work.session, work.config, candidate.network
    weights = save_network(folder, network, session.architecture(work.source))
    evidence = from_main(
        lambda: gather(session, folder, network, latency, read_test=kind != "candidate")
    )
    return summary(
        kind,
        session,
        network=network,
        evidence=evidence,
        size=weights.stat().st_size,
        train_seconds=spent.train,
        total_seconds=spent.total + time.perf_counter() - since,
        teacher=teacher,
        tailored={
            "finetune": config.prune.finetune,
            "cut": config.prune.by,
            "gamma": config.student.gamma,
            "budget": budget_row(config.prune),
            "depth": candidate.name,
            "paths": [
                [path.source, path.target, path.kind, round(weight, 4)]
                for path, weight in zip(
                    network.wiring.paths, network.path_weights().tolist(), strict=True
                )
            ],
        },
    )


def hand_over_all(
    work: Tailoring,
    candidates: Sequence[Candidate],
    aim: float | None,
    *,
    before_cut: Scores,
    teacher: Teacher,
    spent: Seconds,
) -> None:
    """Measure, read the test split for the first candidate, which is kept, write every summary.

    Args:
        aim: what a cut has to reach on validation, in %; None: they raced, tolerance has no say.
        before_cut: of the student, on validation.
        spent: before the candidates were fine-tuned.
    """
    started = time.perf_counter()
    latency, beside = _measured(work, candidates, teacher)
    all_spent = spent.plus(*(candidate.fitted for candidate in candidates))
    rows = []
    kept, *others = candidates
    for candidate in (*others, kept):
        tailored = candidate is kept
        place = work.folder
        if not tailored:
            place = RunFolder(place.path / "candidates" / candidate.name)
        figures = _hand_over(
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
            write_json(place.path / CANDIDATES_FILE, rows)
        place.finish(figures)


def hand_over_alone(
    work: Tailoring, candidate: Candidate, teacher: Teacher, spent: Seconds
) -> None:
    """Measure one candidate beside its teacher, write it into the run's folder, and finish that.

    Args:
        spent: on training all that led to it.
    """
    started = time.perf_counter()
    latency, beside = _measured(work, [candidate], teacher)
    figures = _hand_over(
        work,
        work.folder.path,
        candidate,
        kind="picked",
        latency=latency[candidate.name],
        teacher=beside,
        spent=spent,
        since=started,
    )
    work.folder.finish(figures)


def _measured(
    work: Tailoring, candidates: Sequence[Candidate], teacher: Teacher
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, Any]]:
    """The latency of each candidate by name, and the teacher's figures, all measured in turn."""
    networks: dict[str, nn.Module] = {"teacher": work.teacher}
    networks |= {candidate.name: candidate.network for candidate in candidates}
    with work.session.screen.counting("timing") as tell:
        latency = measure_latency(networks, work.config.image_size, work.device, tell=tell)
    return latency, teacher.measured(latency["teacher"], work.device)
