"""Which cuts are tried and when it is enough; budgets met, or refused before anything is done."""

import json
import re
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PUBLISHED, front_in, lively_chain, quick_latency
from hypothesis import given
from hypothesis import strategies as st
from nettailor.cuts import check_depths
from nettailor.prune.ladder import ladder, route_name

from nettailor import candidates, path_shares, stage, tailoring
from nettailor.candidate import Candidate
from nettailor.cli import tailor, teach
from nettailor.core.backbone import Backbone
from nettailor.core.cost import module_flops, parameters
from nettailor.core.errors import UserError
from nettailor.core.flags import run_command
from nettailor.core.scores import Scores
from nettailor.core.training_state import Fitted
from nettailor.network import load_network
from nettailor.prune.depths import decided
from nettailor.prune.plan import PrunePlan
from nettailor.prune.routes import Route, Routes
from nettailor.student.costs import shares_of
from nettailor.student.latency_table import LatencyTable
from nettailor.student.network import Student
from nettailor.student.wiring import Path as Way
from nettailor.tailoring import Tailoring

NAME = "test_resnet-32px"
SMALL = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "1",
    "--limit.train", "120", "--limit.test", "40", "--device", "cpu", "--workers", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a teacher."""
    out = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch:
        quick_latency(patch)
        teach.main([*SMALL, "--out", str(out)])
    return out


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_latency(monkeypatch)
    monkeypatch.setattr(tailoring, "StudentPictures", lambda *_: None)


@pytest.fixture
def out(taught: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(taught, tmp_path / "runs")


def tailored(out: Path, *flags: str) -> Path:
    """The run that a command leaves."""
    tailor.main([*SMALL, *flags, "--out", str(out)])
    (folder,) = (out / "digits" / "tailored").iterdir()
    return folder


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


# When a candidate is decided


def candidate(*accuracies: float, epochs: int = 6) -> Candidate:
    """One whose epochs had these accuracies, and of which the best weights are kept."""
    history = [
        {"epoch": float(i), "val_accuracy": a, "val_loss": 1.0} for i, a in enumerate(accuracies, 1)
    ]
    best = Scores(max(accuracies), 0.5, 1.0)
    nothing: Any = None
    return Candidate(nothing, nothing, Scores(0.0, 0.0, 1.0), Fitted(history, best), epochs)


def test_a_candidate_that_was_ruled_out_stays_so() -> None:
    """Kept all the same and fine-tuned to its end, it came to 93 %."""
    for accuracies in ((50, 60, 80), (50, 60, 80, 85, 92, 93), (50, 60, 86.9, 90, 90, 90)):
        assert not candidate(*accuracies).reached(90.0)
    late = candidate(50, 60, 80, 85, 92, 93)
    assert late.reaches(90.0)
    assert late.ended
    # later than half of the epochs
    late = candidate(50, 88, 70, 70, 70, 99)
    assert late.reached(90.0)
    assert not candidate(50, 60, 86, 99, epochs=4).reached(99.5)
    assert not candidate(50, 80, 99, 99, epochs=4).reached(90.0)


def test_a_candidate_that_reached_stays_so() -> None:
    assert candidate(90).reached(90.0)
    assert candidate(50, 60, 87, 70, 70, 90).reached(90.0)  # 3 points short are still hope
    assert candidate(91, 20, 20, 20, 20, 20).reached(90.0)
    assert not candidate(50, 60, 88, 88, 88, 89.9).reached(90.0)


def test_chance_rules_nobody_out() -> None:
    """86 % of which 2 points may be chance: judged by 84, and 4 short all the same."""
    found = candidate(50, 60, 84, 84, 84, 90)
    for row in found.fitted.history:
        row["val_error"] = 2.0
    assert found.reached(89.0)
    assert not candidate(50, 60, 84, 84, 84, 90).reached(89.0)


@given(st.lists(st.floats(0, 100), min_size=8, max_size=8), st.floats(1, 100))
def test_what_was_decided_is_not_changed_by_later_epochs(
    accuracies: list[float], target: float
) -> None:
    """Cut short where fine-tuning stops, the two questions have one answer."""
    best = [max(accuracies[:epoch]) for epoch in range(1, 9)]
    stops = next((e for e in range(1, 9) if decided(e, 8, best[e - 1], target)), 8)
    stopped = candidate(*accuracies[:stops], epochs=8)
    assert stopped.reached(target) == stopped.reaches(target)
    for epochs in range(stops, 9):
        assert candidate(*accuracies[:epochs], epochs=8).reached(target) == stopped.reached(target)


def test_a_candidate_that_loses_a_class_says_which() -> None:
    """However accurate it is: it stands below the target, and no later epoch counts instead."""
    judged = [{"epoch": 1.0, "val_accuracy": 99.0, "val_judged": 40.0, "val_loss": 0.3}]
    nothing: Any = None
    scores = Scores(99.0, 0.5, 1.0, judged=40.0)
    lost = Candidate(nothing, nothing, scores, Fitted(judged, scores), 1, ("defect", "a\nb"))
    assert not lost.reaches(90.0)
    assert not lost.reached(90.0)
    assert lost.standing(1) == (40.0, -0.3)
    assert lost.verdict(90.0) == "not surely within tolerance, loses classes 'defect', 'a\\nb'"
    assert lost.verdict(30.0) == "within tolerance"
    assert lost.verdict(None) == "dropped out"


# The ladder


# three digits that count
COSTS = st.builds(
    lambda digits, power: digits * 10.0**power, st.integers(100, 999), st.sampled_from([-5, -4, -3])
)


@given(st.lists(COSTS, min_size=1, max_size=40, unique=True))
def test_rungs_are_eight_per_cent_apart(costs: list[float]) -> None:
    frontier = [Route((), float(rank), cost) for rank, cost in enumerate(sorted(costs))]
    rungs = ladder(frontier)
    assert len({route_name(rung) for rung in rungs}) == len(rungs)
    assert rungs[0] is frontier[0]
    assert rungs[-1] is frontier[-1]
    assert all(later.cost >= 1.08 * rung.cost for rung, later in pairwise(rungs[:-1]))
    kept = set(rungs)
    for route in frontier:
        below = max(rung.cost for rung in rungs if rung.cost <= route.cost)
        assert route in kept or route.cost < 1.08 * below


@pytest.mark.parametrize("costs", [(0.3, 0.3001), (0.1, 0.3, 0.3001)])
def test_of_two_rungs_of_one_name_the_dearer_stays(costs: tuple[float, ...]) -> None:
    frontier = [Route((), float(rank), cost) for rank, cost in enumerate(costs)]
    assert [rung.cost for rung in ladder(frontier)] == [*costs[:-2], costs[-1]]


@pytest.mark.parametrize("asked", [(), (5,), (1, 9)])
def test_depths_out_of_range(asked: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"give numbers from 0 to the backbone's 4 blocks"):
        check_depths(asked, 4)


class Known:
    """A bench on which every cut has one accuracy after its one epoch; notes what is said."""

    epochs = 1

    def __init__(self, student: Student, accuracy: float) -> None:
        self.student, self.scores = student, Scores(accuracy, 0.5, 1.0)
        self.said: list[str] = []
        self.say = self.said.append

    def cut(self, plan: PrunePlan) -> tuple[Student, Scores]:
        return self.student, self.scores

    def finetune(self, plan: PrunePlan, stop: Any = None) -> Candidate:
        rows = [{"epoch": 1.0, "val_accuracy": self.scores.accuracy, "val_loss": 1.0}]
        return Candidate(plan, self.student, self.scores, Fitted(rows, self.scores), self.epochs)


def test_kept_is_the_leanest_in_what_the_run_goes_by() -> None:
    """The one with fewer parameters has more multiply-adds; both are as accurate as asked."""
    chain = lively_chain("test_resnet", 10)
    student = Student(
        lively_chain("test_resnet", 10),
        skips=0,
        identities=True,
        exits=True,
        batch_norm="train",
        shared=True,
    )
    params = shares_of(student, chain, 32, "params")
    flops = shares_of(student, chain, 32, "flops")
    early, late = (
        [Way(node - 1, node, kinds[node - 1]) for node in range(1, 4)]
        + [Way(3, student.wiring.depth, "exit")]
        for kinds in (("block", "identity", "identity"), ("identity", "identity", "block"))
    )
    assert params.of(student, early) < params.of(student, late)
    assert flops.of(student, early) > flops.of(student, late)
    plans = [
        PrunePlan.keeping(name, student.wiring, route)
        for name, route in (("early", early), ("late", late))
    ]
    for shares, expected in ((params, "early"), (flops, "late")):
        # of a ladder that was begun at its end, both were tried
        kept, *others = candidates.keep_leanest(
            Known(student, 95.0), plans, shares, 90.0, straight_after=[0.0, 0.0]
        )
        assert kept.name == expected
        assert len(others) == 1


def test_a_rank_that_leaves_no_path_is_left_out() -> None:
    """Without identities the first block must stay; it is the least."""
    student = Student(
        lively_chain("test_resnet", 10),
        skips=0,
        identities=False,
        exits=True,
        batch_norm="train",
        shared=True,
    )
    with torch.no_grad():
        student.path_weights.logits.zero_()
    bench = Known(student, 95.0)
    weights = [0.1 if path.key == "block-0-1" else 0.9 for path in student.wiring.paths]
    student.path_weights.forward = lambda: torch.tensor(weights)  # type: ignore[method-assign]
    (plan,) = candidates.by_rank(bench, [0, 1], threshold=0.0)
    assert plan.name == "remove-00"
    assert bench.said == ["no path is left without the 1 least blocks"]
    with pytest.raises(UserError, match=r"remove = \[1, 2\]: no such cut of this student leaves"):
        candidates.by_rank(bench, [2, 1], threshold=0.0)


def test_depths_in_range() -> None:
    check_depths(None, 4)
    check_depths((0, 4), 4)


# Budgets


def nothing_trains(*_: object, **__: object) -> None:
    raise AssertionError("something was trained")


@pytest.fixture
def refused(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """The one line of a refusal, before anything is trained or written but measured times."""

    def contents() -> dict[str, bytes]:
        files = (path for path in out.rglob("*") if path.is_file() and path.parent.name != "times")
        return {str(path): path.read_bytes() for path in files}

    def run(*flags: str) -> str:
        before = contents()
        with monkeypatch.context() as patch:
            patch.setattr(stage, "fit", nothing_trains)
            patch.setattr("sys.argv", ["tailor", *SMALL, *flags, "--out", str(out)])
            with pytest.raises(SystemExit) as left:
                run_command(tailor.main)
        err = capsys.readouterr().err
        assert left.value.code == 2, err
        assert contents() == before
        assert re.fullmatch(r"error: [^\n]+\n", err), err
        return err

    return run


def routes_by(unit: Any) -> Routes:
    """Those of a student without proxies."""
    chain = lively_chain("test_resnet", 10)
    student = Student(
        lively_chain("test_resnet", 10),
        skips=0,
        identities=True,
        exits=True,
        batch_norm="train",
        shared=True,
    )
    shares = shares_of(student, chain, 32, unit)
    return Routes(student.wiring, [0.0] * len(shares.paths), shares.paths, fixed=shares.fixed)


@pytest.mark.parametrize(
    ("flags", "unit"),
    [
        (["--max-flops", "0.3"], "flops"),
        (["--max-flops", "1.5"], "flops"),
        (["--max-params", "0.001"], "params"),
    ],
)
def test_a_budget_out_of_reach(refused: Callable[..., str], flags: list[str], unit: str) -> None:
    leanest, dearest = routes_by(unit).reach()
    most = float(flags[1])
    assert refused(*flags) == (
        f"error: no network of this backbone costs {0.98 * most:.4g} to {most:.4g} of the "
        f"backbone's: give a budget from {leanest * 1.005:.3g} to "
        f"{dearest * 1.005:.3g} of the backbone's\n"
    )


@pytest.mark.parametrize(("unit", "most"), [("flops", 0.7), ("params", 0.5)])
def test_a_budget_in_a_gap(refused: Callable[..., str], unit: str, most: float) -> None:
    below, above = routes_by(unit).nearest(most)
    assert below < 0.98 * most < most < above
    assert refused(f"--max-{unit}", str(most), "--skips", "0") == (
        f"error: no network of this backbone costs {0.98 * most:.4g} to {most:.4g} of the "
        f"backbone's: the nearest cost {below:.4g} and {above:.4g} of the backbone's\n"
    )


@pytest.mark.parametrize("most", ["0.0001", "100000"])
def test_a_budget_of_time_out_of_reach(refused: Callable[..., str], most: str) -> None:
    assert re.search(
        r" to [\de+.]+ ms: give a budget from [\d.]+ to [\d.]+ ms$",
        refused("--max-latency-ms", most).strip(),
    )


@pytest.mark.parametrize("flag", ["--max-flops", "--max-latency-ms"])
def test_a_budget_out_of_reach_where_there_is_no_teacher(tmp_path: Path, flag: str) -> None:
    with pytest.raises(UserError, match="give a budget from"):
        tailor.main([*SMALL, flag, "0.003", "--out", str(tmp_path)])
    # what was measured is kept: the next budget is checked at once
    assert {path.parent.name for path in tmp_path.rglob("*") if path.is_file()} <= {"times"}


@pytest.mark.parametrize(
    "budget",
    [
        ["--max-flops", "0.4588"],
        ["--max-flops", "1"],
        ["--max-params", "1"],
        ["--max-params", "0.02089"],
        ["--backbone", "test_efficientnet", "--max-params", "1"],
    ],
)
def test_the_ends_of_the_range_that_is_told_are_budgets(
    budget: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are taken, and the teacher is next."""

    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nettailor.commands.tailor.ready_teacher", pressed)
    with pytest.raises(KeyboardInterrupt):
        tailor.main([*SMALL, *budget, "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-flops", "0.6", "--max-params", "0.5"], "give one of max_flops, max_params and"),
        (["--max-flops", "0.6", "--max-latency-ms", "4"], "give one of max_flops, max_params and"),
        ([*PUBLISHED, "--max-flops", "0.6"], r"a budget needs prune\.by: route"),
        (["--max-latency-ms", "0"], r"max_latency_ms = 0: must be a number > 0"),
        (["--max-flops", "0.6", "--batch", "0"], r"budget\.batch = 0: must be a whole number ≥ 1"),
    ],
)
def test_budgets_that_make_no_sense(
    refused: Callable[..., str], flags: list[str], words: str
) -> None:
    assert re.search(words, refused(*flags))


def test_more_blocks_than_any_student_can_lose(refused: Callable[..., str]) -> None:
    flags = ["--prune.by", "rank", "--skips", "0", "--identities", "false"]
    assert "at most 3 of the 4 blocks can go" in refused(*flags, "--remove", "[2, 4]")


def test_a_classifier_that_starts_from_the_teachers_trains(out: Path) -> None:
    """Before the cut, by rank; the teacher's own must not."""
    folder = tailored(out, "--prune.by", "rank", "--remove", "[1]")
    before = load_network(out / "digits" / "teacher" / f"{NAME}-seed0")[0]
    after = load_network(folder / "student")[0]
    assert isinstance(before, Backbone)
    assert isinstance(after, Student)
    (head,) = (after.heads[path.key] for path in after.wiring.of_kind("head"))
    for name, weight in before.classifier.state_dict().items():
        assert not torch.equal(weight, head.classifier.state_dict()[name])


def test_the_weighing_of_paths_counts(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routes = Tailoring.routes

    def slow(work: Tailoring, student: Student) -> Routes:
        time.sleep(3)
        return routes(work, student)

    monkeypatch.setattr(Tailoring, "routes", slow)
    seconds = front_in(tailored(out, "--max-flops", "0.6", "--skips", "1")).seconds
    assert seconds.total > seconds.train + 3


@pytest.mark.parametrize(("unit", "most"), [("flops", 0.6), ("params", 0.19)])
def test_a_budget_is_met_within_two_per_cent(out: Path, unit: str, most: float) -> None:
    folder = tailored(out, f"--max-{unit}", str(most), "--skips", "1")
    assert folder.name == f"{NAME}-all-gamma0.3-{unit}{most}-seed0"
    network, _ = load_network(folder)
    assert isinstance(network, Student)
    whole, _ = load_network(out / "digits" / "teacher" / f"{NAME}-seed0")
    shape = (3, 32, 32)
    share = (
        module_flops(network, shape) / module_flops(whole, shape)
        if unit == "flops"
        # a route's path weights are no part of what it computes
        else (parameters(network) - len(network.wiring.paths)) / parameters(whole)
    )
    assert 0.98 * most <= share <= most
    summary = read(folder / "summary.json")
    assert summary["tailored"]["budget"] == {"cost": unit, "most": most, "batch": None}
    assert summary["tailored"]["cut"] == "route"
    # the best route of each end was fine-tuned; what is kept is a point of the front
    rows = read(folder / "candidates.json")
    (best,) = (row for row in rows if row["verdict"] == "kept")
    kept = best["name"]
    assert kept == summary["tailored"]["depth"]
    front = front_in(folder)
    assert {row["name"] for row in rows} == set(front.contenders)
    assert len(rows) > 1
    assert len(
        {point.paths[-1] for point in front.points if point.name in front.contenders}
    ) == len(rows)
    (point,) = (point for point in front.points if point.name == kept)
    assert point.paths == network.wiring.paths
    assert point.finetuned == best["finetuned"]
    assert best["judged"] == max(row["judged"] for row in rows)
    costs = [getattr(point, unit) for point in front.points]
    assert costs == sorted(costs)
    assert len(costs) > 3


# Budgets of time


def by_flops(asked: list[int]) -> Callable[..., LatencyTable]:
    """A table as of a device of a million multiply-adds a millisecond, on which no other process
    runs; notes the batch of each measurement."""

    def measure(
        student: Student, chain: Any, size: int, _: object, *, batch: int, **__: object
    ) -> LatencyTable:
        asked.append(batch)
        shares = shares_of(student, chain, size, "flops")
        whole = shares.whole / 1e6
        return LatencyTable(
            {p.key: s * whole for p, s in zip(student.wiring.paths, shares.paths, strict=True)},
            shares.fixed * whole,
            whole,
        )

    return measure


def test_a_budget_of_time(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole takes 4.1 ms by the table; the networks themselves are timed for real."""
    asked: list[int] = []
    monkeypatch.setattr(path_shares, "measure_paths", by_flops(asked))
    folder = tailored(out, "--max-latency-ms", "2.8", "--batch", "3", "--skips", "1")
    assert asked == [3]
    assert folder.name == f"{NAME}-all-gamma0.3-2.8ms-batch3-seed0"
    table = read(folder / "latency_table.json")
    assert table["whole"] == pytest.approx(4.099, abs=0.001)
    summary = read(folder / "summary.json")
    assert summary["tailored"]["budget"] == {"cost": "latency_ms", "most": 2.8, "batch": 3}
    assert front_in(folder).points


@pytest.mark.parametrize(
    "flags",
    [
        ["--max-latency-ms", "2.8"],
        ["--student.cost", "latency", "--tolerance", "100"],
    ],
)
def test_a_resumed_run_reads_the_same_table(
    out: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(path_shares, "measure_paths", by_flops(asked))
    argv = [*SMALL, "--skips", "1", *flags, "--out", str(out)]

    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tailoring, "finetune", pressed)
        with pytest.raises(KeyboardInterrupt):
            tailor.main(argv)
    (folder,) = (out / "digits" / "tailored").iterdir()
    before = (folder / "latency_table.json").read_bytes()
    front = front_in(folder)
    assert bool(front.contenders) == ("--tolerance" not in flags)
    with monkeypatch.context() as patch:
        # neither is worked out anew: times, and what a student is worth, need not come out alike
        patch.setattr(Tailoring, "routes", pressed)
        patch.setattr("nettailor.commands.tailor.check_budget", pressed)
        tailor.main(argv)
    assert asked == [1]
    assert (folder / "latency_table.json").read_bytes() == before
    summary = read(folder / "summary.json")
    after = front_in(folder)
    assert [one._replace(finetuned=None) for one in after.points] == front.points
    assert (after.contenders, after.seconds) == (front.contenders, front.seconds)
    if front.contenders:
        assert summary["tailored"]["depth"] in front.contenders
        # whatever they reached, tolerance has no say in a race
        verdicts = [row["verdict"] for row in read(folder / "candidates.json")]
        assert sorted(verdicts) == ["dropped out"] * (len(front.contenders) - 1) + ["kept"]


def test_overwriting_measures_anew_and_a_refusal_keeps_what_is_there(
    out: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    """The second time the device is ten times slower, and the budget out of reach."""
    flags = ["--max-latency-ms", "2.8", "--skips", "1"]
    asked: list[int] = []
    table = by_flops(asked)
    monkeypatch.setattr(path_shares, "measure_paths", table)
    folder = tailored(out, *flags)

    def slow(*arguments: Any, **settings: Any) -> LatencyTable:
        paths, stem, whole = table(*arguments, **settings)
        return LatencyTable({key: 10 * ms for key, ms in paths.items()}, 10 * stem, 10 * whole)

    monkeypatch.setattr(path_shares, "measure_paths", slow)
    assert "ms: give a budget from" in refused(*flags, "--overwrite")
    assert asked == [1, 1]
    assert (folder / "summary.json").exists()


# The search on real runs


def stages(folder: Path) -> list[str]:
    lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split(",")[0] for line in lines]


def test_what_is_kept_is_fine_tuned_to_its_end(out: Path) -> None:
    """Anything reaches the target: the leanest stops after an epoch, is kept, and goes on."""
    folder = tailored(out, "--tolerance", "100", "--prune.epochs", "3")
    front = front_in(folder)
    leanest = front.points[0]
    assert stages(folder) == ["student", *[leanest.name] * 3]
    (row,) = read(folder / "candidates.json")
    assert (row["name"], row["verdict"]) == (leanest.name, "kept")
    assert [point.finetuned is not None for point in front.points] == [
        True, *[False] * (len(front.points) - 1),
    ]  # fmt: skip
    assert leanest.finetuned == pytest.approx(row["finetuned"])
    assert all(
        dearer.flops >= 1.08 * leaner.flops for leaner, dearer in pairwise(front.points[:-1])
    )
    assert front.seconds.total > front.seconds.train > 0
    assert not (folder / "latency_table.json").exists()
