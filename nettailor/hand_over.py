"""A finished candidate on disk: its weights, its evidence, its figures."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from nettailor.candidate import Candidate
from nettailor.core.latency import measure_latency
from nettailor.core.ranks import from_main
from nettailor.core.run_folder import RunFolder
from nettailor.evidence import gather
from nettailor.figures import budget_row, summary
from nettailor.finetune import Teacher
from nettailor.front import Seconds
from nettailor.network import save_network
from nettailor.tailoring import Tailoring


def hand_over(
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
            "budget": budget_row(config.budget),
            "depth": candidate.name,
            "paths": [
                [path.source, path.target, path.kind, round(weight, 4)]
                for path, weight in zip(
                    network.wiring.paths, network.path_weights().tolist(), strict=True
                )
            ],
        },
    )


def hand_over_alone(
    work: Tailoring, folder: RunFolder, candidate: Candidate, teacher: Teacher, spent: Seconds
) -> None:
    """Measure one candidate beside its teacher, write it into a folder, and finish that.

    Args:
        spent: on training all that led to it.
    """
    started = time.perf_counter()
    networks = {"teacher": work.teacher, "cut": candidate.network}
    with work.session.screen.counting("timing") as tell:
        latency = measure_latency(networks, work.config.image_size, work.device, tell=tell)
    figures = hand_over(
        work,
        folder.path,
        candidate,
        kind="picked",
        latency=latency["cut"],
        teacher=teacher.measured(latency["teacher"], work.device),
        spent=spent,
        since=started,
    )
    folder.finish(figures)
