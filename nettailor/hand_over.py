"""Finished candidates on disk: their weights, their evidence, their figures."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from nettailor.candidate import Candidate
from nettailor.core.files import write_json
from nettailor.core.latency import measure_latency
from nettailor.core.ranks import from_main
from nettailor.core.run_folder import RunFolder
from nettailor.evidence import gather
from nettailor.figures import budget_row, summary
from nettailor.finetune import Teacher
from nettailor.front import Seconds
from nettailor.network import save_network
from nettailor.prune.fold import fold
from nettailor.prune.narrow import channels_left
from nettailor.student.network import Student
from nettailor.tailoring import Tailoring

CANDIDATES_FILE = "candidates.json"


def hand_over(
    work: Tailoring,
    candidates: Sequence[Candidate],
    teacher: Teacher,
    spent: Seconds,
    *,
    kind: Literal["tailored", "picked"],
    target: float | None = None,
) -> None:
    """Measure candidates beside their teacher and write them, the first, which is kept, last.

    It goes into the run's folder, and the test split is read for it alone: the test judges what the
    user gets. The others go into `candidates/`; a tailored run has a table of all.

    Args:
        spent: before the candidates were fine-tuned.
        target: what a cut has to reach on validation, in %; None where it is the best of some.
    """
    started, own = time.perf_counter(), work.config.image_size
    networks = {"teacher": fold(work.teacher)}
    networks |= {one.name: fold(one.network) for one in candidates}
    sides = {"teacher": own} | {one.name: one.plan.side or own for one in candidates}
    with work.session.screen.counting("timing") as tell:
        latency = measure_latency(networks, sides, work.device, tell=tell)
    beside = teacher.measured(latency["teacher"], work.device)
    rows = []
    kept, *others = candidates
    for candidate in (*others, kept):
        alone, place, session = candidate is kept, work.folder, work.at(candidate.plan.side)
        if not alone:
            place = RunFolder(work.folder.path / "candidates" / candidate.name)
        took = spent.plus(*(one.fitted for one in (candidates if alone else [candidate])))
        network, measured = candidate.network, latency[candidate.name]
        weights = save_network(place.path, network, work.architecture(candidate.plan))
        figures = summary(
            kind if alone else "candidate",
            session,
            network=network,
            evidence=from_main(
                partial(gather, session.loaders, place.path, network, measured, read_test=alone)
            ),
            size=weights.stat().st_size,
            train_seconds=took.train,
            total_seconds=took.total + time.perf_counter() - started,
            teacher=beside,
            tailored=_how(work, candidate.name, network),
        )
        rows.append(
            {
                "name": candidate.name,
                "verdict": "kept" if alone else _verdict(candidate, target),
                "blocks": figures["blocks"],
                "flops": figures["flops"],
                "params": figures["params"]["total"],
                "before_finetuning": candidate.before.accuracy,
                "finetuned": candidate.scores.accuracy,
                "judged": candidate.scores.standing,
                "lost_classes": list(candidate.lost),
            }
        )
        if alone and kind == "tailored":
            rows.sort(key=lambda row: str(row["name"]), reverse=True)
            write_json(place.path / CANDIDATES_FILE, rows)
        session.finish(place, figures)


def _verdict(candidate: Candidate, target: float | None) -> str:
    return "behind after half of its epochs" if target is None else candidate.verdict(target)


def _how(work: Tailoring, name: str, network: Student) -> dict[str, Any]:
    prune, alpha = work.config.prune, network.path_weights().tolist()
    return {
        "finetune": prune.finetune,
        "cut": prune.by,
        "gamma": work.config.student.gamma,
        "budget": budget_row(work.config.budget),
        "depth": name,
        "image_size": network.side or work.config.image_size,
        "channels": sorted(channels_left(network, work.teacher).items()),
        "paths": [
            [*path, round(weight, 4)]
            for path, weight in zip(network.wiring.paths, alpha, strict=True)
        ],
    }
