"""All roads in one comparison: the best at each budget, and what each of them cost."""

from pathlib import Path
from typing import Any

import pytest
from report_runs import (
    FULL_FLOPS,
    PATHS,
    accuracy,
    knapsack,
    scaled,
    summary,
    tailored,
    write_run,
)

from nettailor.report.budgets import BUDGETS, best_at_budgets
from nettailor.report.methods import Method, group
from nettailor.report.roads import road_columns, steps
from nettailor.report.runs import read_runs
from nettailor.report.tables import BUDGET_HEADINGS, budget_rows, markdown_rows, markdown_table


def methods_of(task: Path, *contents: dict[str, Any]) -> list[Method]:
    for content in contents:
        write_run(task, content)
    return group(read_runs([task])[0])


def network(kind: str, val: float, share: float, **changes: Any) -> dict[str, Any]:
    """A run of this validation accuracy and share of the teacher's FLOPs."""
    return summary(kind, accuracy=accuracy(val, val - 1), flops=int(share * FULL_FLOPS), **changes)


def trained(seconds: float) -> dict[str, float]:
    return {"train": seconds, "total": 2 * seconds, "test_inference": 1.0}


def labels(methods: list[Method]) -> dict[float, str | None]:
    return {
        best.budget: None if best.method is None else best.method.label
        for best in best_at_budgets(methods)
    }


def test_of_equals_the_leanest_whatever_was_rounded(tmp_path: Path) -> None:
    """1075 of 1080 images twice: 359, 359 and 357 of 360, and 359, 358 and 358."""
    dear = [
        network("eliminated", val, 0.5, seed=i) for i, val in enumerate((99.7222, 99.7222, 99.1667))
    ]
    lean = [
        network("tailored", val, 0.11, seed=i) for i, val in enumerate((99.7222, 99.4444, 99.4444))
    ]
    found = labels(methods_of(tmp_path, network("teacher", 95.0, 1.0), *dear, *lean))
    assert set(found.values()) == {"tailored task, γ 0.3"}


def test_the_most_accurate_of_those_that_fit_by_hand(tmp_path: Path) -> None:
    methods = methods_of(
        tmp_path,
        network("teacher", 95.0, 1.0),
        network("scratch", 97.0, 1.01),  # over every budget
        network("eliminated", 96.0, 0.6),
        network("tailored", 94.0, 0.25),
        network("scaled", 90.0, 0.2, scaled=scaled(-1)),
    )
    assert labels(methods) == {
        1.0: "elim 1",
        0.6: "elim 1",
        0.4: "tailored task, γ 0.3",
        0.25: "tailored task, γ 0.3",
        0.15: None,
    }
    assert budget_rows(methods)[3:] == [
        ("≤ 0.25", "tailored task, γ 0.3", "1", "94.00", "93.00", "0.250"),
        ("≤ 0.15", "none is that small", "–", "–", "–", "–"),
    ]


def test_of_equals_the_leanest_and_the_teacher_may_be_the_best(tmp_path: Path) -> None:
    methods = methods_of(
        tmp_path,
        network("teacher", 95.0, 1.0),
        network("eliminated", 94.0, 0.5),
        network("tailored", 94.0, 0.4),
        network("scaled", 94.0, 0.3, scaled=scaled(-1)),
    )
    found = labels(methods)
    assert found[1.0] == "teacher"
    assert found[0.6] == found[0.4] == "scaled φ -1, from scratch"


def test_means_over_seeds_count(tmp_path: Path) -> None:
    contents = [network("teacher", 95.0, 1.0, seed=seed) for seed in (0, 1)]
    # 0.55 and 0.7 of the FLOPs: 0.625 in the mean
    contents += [network("eliminated", 96.0, 0.55 + 0.15 * seed, seed=seed) for seed in (0, 1)]
    # 99 and 91 are 95 in the mean
    contents += [network("tailored", 99.0 - 8 * seed, 0.5, seed=seed) for seed in (0, 1)]
    contents += [network("scratch", 95.5, 0.6, seed=seed) for seed in (0, 1)]
    found = labels(methods_of(tmp_path, *contents))
    assert found[1.0] == "elim 1"
    assert found[0.6] == "from scratch"


def test_budgets_are_of_the_best_teacher_for_every_backbone(tmp_path: Path) -> None:
    small = {"backbone": "small", "stages": [0, 1]}
    methods = methods_of(
        tmp_path,
        network("teacher", 95.0, 1.0),
        network("teacher", 90.0, 0.3, **small),
        network("eliminated", 93.0, 0.39),
        # all of its own teacher's FLOPs, and 0.3 of the other's
        network("scratch", 94.0, 0.3, **small),
    )
    found = labels(methods)
    assert found[1.0] == "tiny teacher"
    assert found[0.6] == found[0.4] == "small from scratch"
    assert found[0.25] is None


def test_every_budget_has_a_row_of_whole_cells(tmp_path: Path) -> None:
    methods = methods_of(tmp_path, network("teacher", 95.0, 1.0))
    rows = budget_rows(methods)
    assert len(rows) == len(BUDGETS)
    assert {len(row) for row in rows} == {len(BUDGET_HEADINGS)}
    text = markdown_rows(BUDGET_HEADINGS, [("a|b", *rows[0][1:])])
    assert text == (
        "| FLOPs, × teacher | network | seeds | validation, % | test, % | needs |\n"
        "| ---: | --- | ---: | ---: | ---: | ---: |\n"
        "| a\\|b | teacher | 1 | 95.00 | 94.00 | 1.000 |\n"
    )


@pytest.mark.parametrize("kind", ["eliminated", "head-only", "scratch", "scaled"])
def test_a_road_of_its_own_costs_its_own_training(tmp_path: Path, kind: str) -> None:
    own = {"scaled": scaled(0)} if kind == "scaled" else {}
    (method,) = methods_of(tmp_path, summary(kind, seconds=trained(30.0), **own))
    assert steps(method.runs[0]) == {"own": 30.0}


def test_a_road_from_the_teacher_costs_the_teachers_training_too(tmp_path: Path) -> None:
    contents = []
    for seed in (0, 1):
        teacher = summary("teacher", seed=seed, seconds=trained(100.0 + 20 * seed))
        contents += [
            teacher,
            summary("tailored", seed=seed, teacher=teacher, seconds=trained(200.0),
                    tailored=tailored(finetune="all")),
            summary("scaled", seed=seed, teacher=teacher, seconds=trained(50.0),
                    scaled=scaled(-1)),
        ]  # fmt: skip
    methods = methods_of(tmp_path, *contents)
    # the mean of 100 and 120 is 110, and their deviation the root of 200
    assert markdown_table(methods, road_columns(methods)) == (
        "| network | seeds | training, s teacher's | training, s own | training, s in all |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| teacher | 2 | – | 110 ± 14 | 110 ± 14 |\n"
        "| tailored all, γ 0.3 | 2 | 110 ± 14 | 200 ± 0 | 310 ± 14 |\n"
        "| scaled φ -1, from scratch | 2 | – | 50 ± 0 | 50 ± 0 |\n"
    )


def test_a_road_costs_what_it_begins_with(tmp_path: Path) -> None:
    teacher = summary("teacher", seconds=trained(100.0))
    of = {"kind": "tailored", "name": "all-gamma0.3", "train_seconds": 200.0}
    contents = [
        summary("knapsack", teacher=teacher, seconds=trained(30.0)),
        summary("knapsack", teacher=teacher, seconds=trained(30.0),
                knapsack=knapsack(of=of, paths=PATHS)),
        summary("searched", teacher=teacher, seconds=trained(30.0)),
    ]  # fmt: skip
    methods = methods_of(tmp_path, *contents)
    assert {method.label: steps(method.runs[0]) for method in methods} == {
        "knapsack, FLOPs ≤ 0.5": {"teacher's": 100.0, "own": 30.0},
        "knapsack of tailored all-gamma0.3, FLOPs ≤ 0.5": {
            "teacher's": 100.0, "tailored network's": 200.0, "own": 30.0,
        },
        "searched 7-0a1b2c": {"other trials'": 120.0, "own": 30.0},
    }  # fmt: skip


def test_without_a_road_from_the_teacher_there_is_no_column_for_it(tmp_path: Path) -> None:
    methods = methods_of(tmp_path, summary("teacher"), summary("scratch"))
    assert [column.title for column in road_columns(methods)] == ["own", "in all"]
