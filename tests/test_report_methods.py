"""Seeds become methods, methods a front, a winner and plain words."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import (
    FULL_FLOPS,
    FULL_PARAMS,
    PATHS,
    accuracy,
    cut,
    knapsack,
    scaled,
    searched,
    summary,
    tailored,
    timings,
    write_run,
)

from nettailor.core.errors import UserError
from nettailor.report.measures import accuracy_test, accuracy_val, flops_ratio, latency_ratio
from nettailor.report.methods import Method, Spread, group, label_of, notes
from nettailor.report.runs import read_runs
from nettailor.report.summary import Summary
from nettailor.report.verdict import judge, pareto_front


def methods_of(task: Path, *contents: dict[str, Any]) -> list[Method]:
    """The methods of runs with these summaries."""
    for content in contents:
        write_run(task, content)
    return group(read_runs([task])[0])


def sized(kind: str, val: float, flops: float, params: float, **changes: Any) -> dict[str, Any]:
    """A summary with a validation accuracy, and FLOPs and parameters over the teacher's."""
    total = int(params * FULL_PARAMS)
    return summary(
        kind,
        accuracy=accuracy(val, val - 1),
        flops=int(flops * FULL_FLOPS),
        params={"total": total, "universal": 0, "task": total},
        **changes,
    )


TEACHER = sized("teacher", 95.0, 1, 1)


def test_networks_of_two_searches_are_not_taken_for_seeds_of_one(tmp_path: Path) -> None:
    contents = [
        summary("searched", seed=seed, searched=searched(trial, network=network))
        for seed, trial, network in ((0, 7, "aaaaaa"), (1, 7, "bbbbbb"), (0, 12, "cccccc"))
    ]
    methods = methods_of(tmp_path, *contents)
    assert [(method.label, method.seeds) for method in methods] == [
        ("searched 7-aaaaaa", (0,)), ("searched 12-cccccc", (0,)), ("searched 7-bbbbbb", (1,)),
    ]  # fmt: skip


def test_spread_worked_out_by_hand() -> None:
    # mean 4, squares of differences 4 + 1 + 9 over n - 1 = 2
    assert Spread.of([2.0, 3.0, 7.0]) == Spread(4.0, 7**0.5, 3)
    assert Spread.of([5.0]) == Spread(5.0, None, 1)
    assert Spread.of([None, 5.0]) == Spread(5.0, None, 1)
    assert Spread.of([None, None]) is None


@pytest.mark.parametrize(
    ("kind", "changes", "label"),
    [
        ("teacher", {}, "teacher"),
        ("head-only", {}, "head only"),
        ("scratch", {}, "from scratch"),
        ("tailored", {}, "tailored task, γ 0.3"),
        (
            "tailored",
            {"tailored": tailored(finetune="all", gamma=1.0, cut="rank")},
            "tailored all, γ 1, by rank",
        ),
        (
            "tailored",
            {"tailored": tailored(budget={"cost": "flops", "most": 0.3, "batch": None})},
            "tailored task, γ 0.3, FLOPs ≤ 0.3",
        ),
        (
            "tailored",
            {"tailored": tailored(budget={"cost": "params", "most": 0.25, "batch": None})},
            "tailored task, γ 0.3, params ≤ 0.25",
        ),
        (
            "tailored",
            {"tailored": tailored(budget={"cost": "latency_ms", "most": 5, "batch": 64})},
            "tailored task, γ 0.3, latency ≤ 5 ms, batch 64",
        ),
        ("eliminated", {"eliminated": cut(2)}, "elim 2"),
        ("searched", {}, "searched 7-0a1b2c"),
        ("eliminated", {"eliminated": cut(3, unit="blocks")}, "elim 3 blocks"),
        (
            "eliminated",
            {"eliminated": cut(1, replacement=True, trainable="head")},
            "elim 1 conv head",
        ),
        ("scaled", {"scaled": scaled(-1.5)}, "scaled φ -1.5, from scratch"),
        ("scaled", {"scaled": scaled(2.0, pretrained=True)}, "scaled φ 2"),
        (
            "scaled",
            {"scaled": scaled(0, pretrained=True, coefficients=[1.2, 1.0, 1.3])},
            "scaled φ 0 by 1.2, 1, 1.3",
        ),
        ("knapsack", {}, "knapsack, FLOPs ≤ 0.5"),
        (
            "knapsack",
            {"knapsack": knapsack(solver="greedy", round_to=4, mimic=5.0)},
            "knapsack, FLOPs ≤ 0.5, greedy, by 4, inner distillation",
        ),
        (
            "knapsack",
            {
                "knapsack": knapsack(
                    of={"kind": "tailored", "name": "all-gamma0.3", "train_seconds": 9.0},
                    paths=PATHS,
                    distill=0.0,
                )
            },
            "knapsack of tailored all-gamma0.3, FLOPs ≤ 0.5, no distillation",
        ),
    ],
)
def test_labels(kind: str, changes: dict[str, Any], label: str) -> None:
    content = json.dumps(summary(kind, **changes))
    assert label_of(Summary.model_validate_json(content)) == label


def test_seeds_are_grouped_in_the_order_of_tables(tmp_path: Path) -> None:
    contents = [summary("scratch", seed=seed) for seed in (2, 0)]
    contents += [summary("eliminated", eliminated=cut(top)) for top in (3, 1)]
    contents += [summary("tailored"), summary("teacher"), summary("head-only", seed=1)]
    methods = methods_of(tmp_path, *contents)
    assert [(method.label, method.seeds) for method in methods] == [
        ("teacher", (0,)),
        ("tailored task, γ 0.3", (0,)),
        ("elim 1", (0,)),
        ("elim 3", (0,)),
        ("head only", (1,)),
        ("from scratch", (0, 2)),
    ]
    (note,) = notes(methods)
    assert "Most have seed 0; head only: seed 1; from scratch: seeds 0, 2." in note
    assert "head only: seed 1" in note


def test_cuts_of_one_gamma_are_methods_of_their_own(tmp_path: Path) -> None:
    lean, rich, small = (
        {"cost": cost, "most": most, "batch": None}
        for cost, most in (("flops", 0.25), ("flops", 0.5), ("params", 0.25))
    )
    changes = [{"cut": "rank"}, {"budget": small}, {"budget": rich}, {"budget": lean}, {}]
    contents = [summary("tailored", tailored=tailored(**how)) for how in changes]
    assert [method.label for method in methods_of(tmp_path, *contents)] == [
        "tailored task, γ 0.3",
        "tailored task, γ 0.3, FLOPs ≤ 0.25",
        "tailored task, γ 0.3, FLOPs ≤ 0.5",
        "tailored task, γ 0.3, params ≤ 0.25",
        "tailored task, γ 0.3, by rank",
    ]


def test_mean_and_ratios_over_seeds(tmp_path: Path) -> None:
    runs = []
    for seed, single, teachers in ((0, 1.0, 2.0), (1, 3.0, 4.0)):
        teacher = summary("teacher", seed=seed, latency_ms={"cpu": timings(teachers, 40)})
        runs.append(
            sized(
                "scratch", 90 + 2 * seed, 0.5, 1, seed=seed, teacher=teacher,
                latency_ms={"cpu": timings(single, 10)},
            )
        )  # fmt: skip
    (method,) = methods_of(tmp_path, *runs)
    assert method.spread(accuracy_val) == Spread(91.0, 2**0.5, 2)
    assert method.spread(flops_ratio) == Spread(0.5, 0.0, 2)
    # each over the teacher measured in turn with it: 1 / 2 and 3 / 4
    assert method.mean(latency_ratio) == 0.625


def test_the_backbone_is_named_where_there_are_several(tmp_path: Path) -> None:
    one, other = summary("teacher"), summary("teacher", backbone="other")
    assert [m.label for m in methods_of(tmp_path, one, other)] == ["other teacher", "tiny teacher"]


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    for out in ("one", "two"):
        write_run(tmp_path / out, summary("teacher"))
    with pytest.raises(UserError, match="are both 'teacher' of seed 0"):
        group(read_runs([tmp_path])[0])


def test_unequal_settings_and_versions_are_noted(tmp_path: Path) -> None:
    write_run(tmp_path, summary("scratch"), settings={"teacher": {"epochs": 4}})
    other = summary("scratch", seed=1, versions={"python": "3.11.7", "torch": "2.16.0"})
    write_run(tmp_path, other, settings={"teacher": {"epochs": 9}, "out": "elsewhere"})
    settings, versions = notes(group(read_runs([tmp_path])[0]))
    assert settings == "The runs of from scratch differ in teacher.epochs."
    assert "torch 2.15.0, 2.16.0" in versions
    assert "python" not in versions


def test_settings_that_all_kinds_share_are_noted_where_methods_differ(tmp_path: Path) -> None:
    common = {"batch_size": 64, "weights": "package", "augment": {"hflip": 0.5, "scale": [0.3, 1]}}
    own = {"teacher": {"lr": 0.1}, "prune": {"lr": 0.2}, "eliminate": {"lr": 0.3}}
    write_run(tmp_path, summary("teacher"), settings={**common, "teacher": {"lr": 0.5}})
    write_run(tmp_path, summary("head-only"), settings={**common, **own, "out": "elsewhere"})
    write_run(tmp_path, summary("scratch"), settings={**common, "weights": "none"})
    assert notes(group(read_runs([tmp_path])[0])) == []
    other = {**common, "batch_size": 32, "augment": {"hflip": 0.0, "scale": [0.3, 1]}}
    write_run(tmp_path, summary("tailored"), settings={**other, "precision": "bf16"})
    write_run(tmp_path, summary("eliminated"), settings={**common, "weights": "hub"})
    # precision stands in one run only
    assert notes(group(read_runs([tmp_path])[0])) == [
        "The methods differ in settings: augment.hflip is 0.0 (tailored task, γ 0.3), 0.5 in the "
        "others; batch_size is 32 (tailored task, γ 0.3), 64 in the others; weights is 'hub' "
        "(elim 1), 'package' in the others."
    ]


def test_runs_made_beside_another_teacher_are_noted(tmp_path: Path) -> None:
    again = sized("teacher", 95.0, 1, 1, seed=1)
    contents = [TEACHER, again, sized("scratch", 95.0, 1, 1, teacher=TEACHER)]
    slower = TEACHER | {"latency_ms": {"cpu": timings(9.0, 90.0)}, "bytes": 7}
    contents.append(sized("head-only", 95.0, 1, 1, teacher=slower))
    # without a teacher's run of seed 2 there is nothing to differ from
    contents.append(sized("scratch", 95.0, 1, 1, seed=2, teacher=TEACHER | {"seed": 2}))
    for content in contents:
        write_run(tmp_path, content)
    assert not any("another teacher" in note for note in notes(group(read_runs([tmp_path])[0])))
    stale = [
        again | {"accuracy": accuracy(94.0, 94.0)},
        again | {"accuracy": accuracy(95.0, 93.0)},
        again | {"flops": 999},
        again | {"params": again["params"] | {"total": 999}},
    ]
    folders = [
        write_run(tmp_path, summary("eliminated", seed=1, eliminated=cut(top), teacher=teacher))
        for top, teacher in enumerate(stale, start=1)
    ]
    (note,) = (note for note in notes(group(read_runs([tmp_path])[0])) if "another teacher" in note)
    assert note.endswith(f"train them again with --overwrite: {', '.join(map(str, folders))}.")


@pytest.mark.parametrize(
    ("own", "teachers", "noted"), [(0.6, 0.6, 0), (0.61, 0.1, 1), (0.1, 0.61, 1)]
)
def test_latency_on_a_busy_machine_is_noted(
    own: float, teachers: float, noted: int, tmp_path: Path
) -> None:
    def latency(iqr: float) -> dict[str, Any]:
        # at batch 64 the middle half may be as wide as it likes
        return {"cpu": {"1": {"median": 2.0, "iqr": iqr}, "64": {"median": 1.0, "iqr": 9.0}}}

    teacher = TEACHER | {"latency_ms": latency(teachers)}
    methods = methods_of(
        tmp_path, TEACHER, summary("scratch", latency_ms=latency(own), teacher=teacher)
    )
    found = [note for note in notes(methods) if "busy" in note]
    assert [note.partition(" the middle half")[0] for note in found] == ["In 1 of 2 runs"] * noted


def test_pareto_front_worked_out_by_hand() -> None:
    points = [(3, 90), (1, 80), (2, 80), (2, 85), (3, 90), (4, 90), (5, 70)]
    assert pareto_front(points) == [1, 3, 0, 4]
    assert pareto_front([]) == []
    # 1075 of 1080 images twice, as the means of rounded accuracies have it: the dearer is beaten
    assert pareto_front([(0.5, 99.53703), (0.11, 99.53700)]) == [1]


def test_devices_of_a_budget_of_time_are_apart(tmp_path: Path) -> None:
    budget = {"cost": "latency_ms", "most": 4.0, "batch": 1}
    found = []
    for device in ("cpu", "cuda"):
        there: dict[str, Any] = {
            "latency_ms": {device: timings(2.0, 40.0)},
            "profile": {"device": device, "cpu_ms": 1.8},
        }
        there["teacher"] = summary("teacher", **there)
        for kind, how in (("tailored", tailored), ("knapsack", knapsack)):
            content = summary(kind, **{kind: how(budget=budget)}, **there)
            (run,), _ = read_runs([write_run(tmp_path / device, content)])
            found.append(label_of(run.summary))
    assert found == [
        "tailored task, γ 0.3, latency ≤ 4 ms",
        "knapsack, latency ≤ 4 ms",
        "tailored task, γ 0.3, latency ≤ 4 ms, cuda",
        "knapsack, latency ≤ 4 ms, cuda",
    ]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12))
def test_the_front_holds_the_best_and_is_beaten_by_nothing(points: list[tuple[int, int]]) -> None:
    front = [points[position] for position in pareto_front(points)]
    assert front == sorted(front)
    assert max(point[1] for point in front) == max(point[1] for point in points)
    assert min(point[0] for point in front) == min(point[0] for point in points)
    for cost, value in points:
        assert any(other[0] <= cost and other[1] >= value for other in front)


def test_the_leanest_within_tolerance_wins_and_fixed_removal_may(tmp_path: Path) -> None:
    methods = methods_of(
        tmp_path,
        TEACHER,
        sized("tailored", 95.5, 0.6, 0.5),
        sized("eliminated", 95.0, 0.7, 0.3, eliminated=cut(1)),
        sized("eliminated", 94.5, 0.4, 0.1, eliminated=cut(2)),
        sized("eliminated", 94.49, 0.2, 0.05, eliminated=cut(3)),
    )
    verdict = judge(methods)
    assert verdict.within == {"tailored task, γ 0.3", "elim 1", "elim 2"}
    assert verdict.winner is verdict.fixed
    assert verdict.winner is not None
    assert verdict.winner.label == "elim 2"
    assert verdict.tailored is not None
    assert verdict.tailored.label == "tailored task, γ 0.3"
    assert verdict.sentences == (
        "elim 2 is the leanest network within 0.5 points of the teacher on validation (94.50 % "
        "against 95.00 %): 0.400 M FLOPs (0.40× the teacher's) and 0.0200 M parameters (0.10×). On "
        "the test images it reaches 93.50 %, the teacher 94.00 %.",
        "Fixed removal needs fewer FLOPs (0.400 M against 0.600 M) and fewer parameters (0.0200 M "
        "against 0.100 M): tailored task, γ 0.3 beside elim 2.",
    )


def test_each_family_may_lead_in_one_count(tmp_path: Path) -> None:
    methods = methods_of(
        tmp_path,
        TEACHER,
        sized("tailored", 95.0, 0.3, 0.5),
        sized("eliminated", 95.0, 0.4, 0.1),
    )
    assert judge(methods).sentences[1] == (
        "Tailoring needs fewer FLOPs (0.300 M against 0.400 M), fixed removal needs fewer "
        "parameters (0.0200 M against 0.100 M): tailored task, γ 0.3 beside elim 1."
    )


def test_equal_sizes_are_called_equal(tmp_path: Path) -> None:
    methods = methods_of(
        tmp_path,
        TEACHER,
        sized("tailored", 95.0, 0.4, 0.5),
        sized("eliminated", 95.0, 0.4, 0.1),
    )
    assert (
        judge(methods)
        .sentences[1]
        .startswith("Both need the same FLOPs (0.400 M), fixed removal needs fewer parameters")
    )


def test_the_choice_is_made_on_validation_over_seeds(tmp_path: Path) -> None:
    # elim 1 holds with its first seed only; on the test it would be the best
    methods = methods_of(
        tmp_path,
        TEACHER,
        sized("teacher", 95.0, 1, 1, seed=1),
        sized("tailored", 95.0, 0.8, 0.8),
        sized("eliminated", 95.0, 0.5, 0.5),
        summary("eliminated", seed=1, flops=500_000, accuracy=accuracy(93.9, 99.9)),
    )
    verdict = judge(methods)
    assert verdict.winner is verdict.tailored
    assert verdict.sentences[1].startswith("No network of fixed removal is within 0.5 points")


def with_teachers(*vals: float) -> list[dict[str, Any]]:
    """A teacher for each seed, with these validation accuracies."""
    return [sized("teacher", val, 1, 1, seed=seed) for seed, val in enumerate(vals)]


def test_a_lucky_seed_is_judged_by_the_teacher_of_that_seed(tmp_path: Path) -> None:
    # 96 is above all teachers' mean of 94, but its own teacher has 98
    first, lucky = with_teachers(90.0, 98.0)
    methods = methods_of(
        tmp_path, first, lucky,
        sized("tailored", 90.0, 0.8, 0.8, teacher=first),
        sized("tailored", 97.5, 0.8, 0.8, seed=1, teacher=lucky),
        sized("eliminated", 96.0, 0.3, 0.3, seed=1, teacher=lucky),
    )  # fmt: skip
    verdict = judge(methods)
    assert verdict.within == {"tailored task, γ 0.3"}
    # 90 and 97.5 beside 90 and 98, on the test one less each: deviations 7.5 / √2 and 8 / √2
    assert verdict.sentences == (
        "tailored task, γ 0.3 is the leanest network within 0.5 points of the teacher on "
        "validation (93.75 ± 5.30 % against 94.00 ± 5.66 %): 0.800 M FLOPs (0.80× the "
        "teacher's) and 0.160 M parameters (0.80×). On the test images it reaches 92.75 ± 5.30 %, "
        "the teacher 93.00 ± 5.66 %.",
        "No network of fixed removal is within 0.5 points (the nearest is elim 1, 96.00 % against "
        "98.00 %); tailored task, γ 0.3 is: 0.800 M FLOPs (0.80× the teacher's) and 0.160 M "
        "parameters (0.80×).",
    )


def test_an_unlucky_seed_is_judged_by_the_teacher_of_that_seed(tmp_path: Path) -> None:
    first, second = with_teachers(90.0, 98.0)
    unlucky = sized("scratch", 90.0, 0.5, 0.5, teacher=first)
    verdict = judge(methods_of(tmp_path, first, second, unlucky))
    assert verdict.within == {"from scratch"}
    assert "(90.00 % against 90.00 %)" in verdict.sentences[0]


def test_the_nearest_to_its_teachers_stands_in_where_none_holds(tmp_path: Path) -> None:
    first, second = with_teachers(90.0, 98.0)
    methods = methods_of(
        tmp_path, first, second,
        sized("eliminated", 89.0, 0.5, 0.5, teacher=first),
        sized("scratch", 96.0, 0.5, 0.5, seed=1, teacher=second),
    )  # fmt: skip
    verdict = judge(methods)
    assert verdict.winner is verdict.fixed is not None
    assert verdict.sentences[0].startswith(
        "No network is within 0.5 points of the teacher on validation. The nearest one is elim 1 "
        "(89.00 % against 90.00 %): 0.500 M FLOPs"
    )


def test_a_teachers_own_run_counts_before_what_others_keep_of_it(tmp_path: Path) -> None:
    stale = sized("teacher", 80.0, 1, 1)
    methods = methods_of(tmp_path, TEACHER, sized("scratch", 90.0, 0.5, 0.5, teacher=stale))
    assert judge(methods[::-1]).within == frozenset()


def test_the_other_roads_have_a_sentence_each_unless_they_win(tmp_path: Path) -> None:
    methods = methods_of(
        tmp_path,
        TEACHER,
        sized("tailored", 95.0, 0.3, 0.2),
        sized("eliminated", 95.0, 0.4, 0.1),
        sized("knapsack", 94.5, 0.5, 0.4, knapsack=knapsack()),
        sized("scaled", 93.0, 0.5, 0.6, scaled=scaled(-2.0)),
        sized("searched", 95.5, 0.1, 0.01, searched=searched(7, network="aaaaaa")),
    )
    verdict = judge(methods)
    assert verdict.winner is not None
    assert verdict.winner.label == "searched 7-aaaaaa"
    assert verdict.sentences[2:] == (
        "The leanest network of a knapsack within 0.5 points needs 0.500 M FLOPs (0.50× the "
        "teacher's) and 0.0800 M parameters (0.40×): knapsack, FLOPs ≤ 0.5.",
        "No scaled network is within 0.5 points (the nearest is scaled φ -2, from scratch, "
        "93.00 % against 95.00 %).",
    )


def test_without_any_within_tolerance_the_most_accurate_is_shown(tmp_path: Path) -> None:
    methods = methods_of(
        tmp_path,
        TEACHER,
        sized("tailored", 93.0, 0.5, 0.5),
        sized("eliminated", 90.0, 0.1, 0.1),
        sized("scratch", 94.0, 1, 1),
    )
    verdict = judge(methods)
    assert verdict.winner is not None
    assert verdict.winner.label == "from scratch"
    assert verdict.within == frozenset()
    assert verdict.sentences[0].startswith("No network is within 0.5 points of the teacher")
    assert verdict.sentences[1].startswith("Neither tailoring nor fixed removal")


def test_the_teacher_alone_leaves_nothing_to_choose(tmp_path: Path) -> None:
    verdict = judge(methods_of(tmp_path, TEACHER))
    assert verdict.winner is None
    assert verdict.sentences == ("There is nothing beside the teacher yet.",)


def test_a_teacher_whose_run_is_not_there_still_sets_the_mark(tmp_path: Path) -> None:
    methods = methods_of(tmp_path, sized("tailored", 94.4, 0.5, 0.5, teacher=TEACHER))
    verdict = judge(methods)
    assert verdict.within == frozenset()
    assert "(94.40 % against 95.00 %)" in verdict.sentences[0]


def test_of_several_backbones_the_best_teacher_sets_the_mark(tmp_path: Path) -> None:
    better = sized("teacher", 97.0, 2, 2, backbone="other")
    methods = methods_of(tmp_path, TEACHER, better, sized("tailored", 95.5, 0.5, 0.5))
    verdict = judge(methods)
    assert verdict.within == frozenset()
    assert "within 0.5 points of the other teacher" in verdict.sentences[0]
    assert "(95.50 % against 97.00 %)" in verdict.sentences[0]
    # half of its own teacher, a quarter of the best one
    assert "0.500 M FLOPs (0.50× its own teacher's)" in verdict.sentences[0]


def test_the_best_teacher_of_a_seed_may_be_of_any_backbone(tmp_path: Path) -> None:
    contents = with_teachers(95.0, 98.0)
    contents += [sized("teacher", val, 2, 2, seed=seed, backbone="other")
                 for seed, val in enumerate((97.0, 96.0))]  # fmt: skip
    contents += [sized("scratch", val, 0.5, 0.5, seed=seed, teacher=contents[seed])
                 for seed, val in enumerate((96.9, 97.1))]  # fmt: skip
    # 0.1 and 0.9 points behind 97 and 98
    verdict = judge(methods_of(tmp_path, *contents))
    assert verdict.within == {"tiny from scratch"}
    assert (
        "points of the best teacher on validation (97.00 ± 0.14 % against 97.50 ± 0.71 %)"
        in (verdict.sentences[0])
    )


def test_an_unread_test_split_is_no_number(tmp_path: Path) -> None:
    (method,) = methods_of(tmp_path, summary("scratch", accuracy=accuracy(95.0, None)))
    assert method.spread(accuracy_test) is None
    assert "an unknown share" in judge([method]).sentences[0]
