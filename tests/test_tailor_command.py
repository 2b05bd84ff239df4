"""Tailored runs without a budget, and by rank: what trains, what is kept, what is counted."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import front_in
from tailor_runs import Runs, read, rows_of

from nettailor.core.backbone import Backbone
from nettailor.network import load_network
from nettailor.prune.descent import Descent


def test_more_blocks_than_any_student_can_lose(runs: Runs) -> None:
    flags = ["--prune.by", "rank", "--skips", "0", "--identities", "false"]
    assert "at most 3 of the 4 blocks can go" in runs.refused(*flags, "--remove", "[2, 4]")


def test_a_classifier_that_starts_from_the_teachers_trains(runs: Runs) -> None:
    """Before the cut, by rank; the teacher's own must not."""
    folder = runs.tailored("--prune.by", "rank", "--remove", "[1]")
    before, _ = load_network(runs.teacher)
    assert isinstance(before, Backbone)
    after = runs.student(folder / "student")
    (head,) = (after.heads[path.key] for path in after.wiring.of_kind("head"))
    for name, weight in before.classifier.state_dict().items():
        assert not torch.equal(weight, head.classifier.state_dict()[name])


def test_what_a_shrinking_student_spends_counts(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    following, tried = Descent.reach, list[float]()

    def slow(*arguments: Any, **how: Any) -> bool:
        tried.append(1.0)
        time.sleep(tried[-1])
        return following(*arguments, **how)

    monkeypatch.setattr(Descent, "reach", slow)
    seconds = front_in(runs.tailored("--max-flops", "0.6")).seconds
    assert seconds.total >= seconds.train > sum(tried) > 0


def stages(folder: Path) -> list[str]:
    lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split(",")[0] for line in lines]


def test_what_is_kept_is_fine_tuned_to_its_end(runs: Runs) -> None:
    """Anything reaches the target: the leanest stops after an epoch, is kept, and goes on."""
    flags = ["--tolerance", "100", "--student.epochs", "4", "--gamma", "1000000"]
    folder = runs.tailored(*flags, "--prune.epochs", "3")
    front = front_in(folder)
    leanest, *dearer = front.points
    assert dearer
    assert stages(folder) == [*["student"] * 4, *[leanest.name] * 3]
    (row,) = read(folder / "candidates.json")
    assert (row["name"], row["verdict"]) == (leanest.name, "kept")
    assert leanest.finetuned == pytest.approx(row["finetuned"])
    assert leanest.accuracy == pytest.approx(row["before_finetuning"])
    assert all(one.finetuned is None for one in dearer)
    assert front.seconds.total > front.seconds.train > 0
    assert not (folder / "latency_table.json").exists()


@pytest.mark.parametrize(
    ("flags", "lr"),
    [
        ([], 0.0015),
        (["--max-flops", "0.6"], 0.003),
        (["--prune.finetune", "task"], 0.003),
    ],
    ids=["no budget", "budget", "shared blocks"],
)
def test_a_size_goes_on_at_half_of_the_rate_without_a_budget(
    runs: Runs, flags: list[str], lr: float
) -> None:
    more = ["--tolerance", "100", "--student.epochs", "4", "--gamma", "1000000"]
    folder = runs.tailored(*more, "--prune.epochs", "2", *flags)
    passed = {path.name for path in (folder / "sizes").iterdir()}
    # an epoch is a step here
    rates = [float(row["lr"]) for row in rows_of(folder) if row["stage"] in passed]
    assert rates == pytest.approx([lr, lr / 2])
