"""Runs become methods with a mean and a deviation, and methods become tables."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
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
from rich.console import Console

from nettailor.core.printable import printable
from nettailor.report.comparison import Comparison, compare_folders, settings_table
from nettailor.report.formatting import decimals, shortened, times
from nettailor.report.summary import Summary
from nettailor.report.tables import (
    BUDGETS,
    COLUMNS,
    MAIN_COLUMNS,
    TRAINING_COLUMNS,
    best_at_budgets,
    budget_table,
    main_table,
    markdown_table,
    method_table,
    pareto_front,
    terminal_table,
)

COLUMN = {column.name: column for column in COLUMNS}


def compared(task: Path, *contents: dict[str, Any]) -> Comparison:
    """The comparison of runs with these summaries."""
    for content in contents:
        write_run(task, content)
    return compare_folders([task])


def network(kind: str, val: float, share: float, **changes: Any) -> dict[str, Any]:
    """A run of this validation accuracy and share of the teacher's FLOPs."""
    return summary(kind, accuracy=accuracy(val, val - 1), flops=int(share * FULL_FLOPS), **changes)


def trained(seconds: float) -> dict[str, float]:
    return {"train": seconds, "test_inference": 1.0}


@pytest.fixture
def halves(tmp_path: Path) -> Comparison:
    """A teacher and a network of half its size, two seeds each."""
    for seed in (0, 1):
        write_run(tmp_path, summary("teacher", seed=seed))
        half = summary(
            "scratch", seed=seed, accuracy=accuracy(94.0 + seed, 92.0 + 2 * seed),
            flops=FULL_FLOPS // 2, latency_ms={"cpu": timings(1.0 + seed, 30.0)},
            params={"total": FULL_PARAMS // 4, "universal": 0, "task": FULL_PARAMS // 4},
        )  # fmt: skip
        write_run(tmp_path, half)
    return compare_folders([tmp_path])


TAILORED = {"kind": "tailored", "name": "all-gamma0.3", "train_seconds": 200.0}


@pytest.mark.parametrize(
    ("kind", "detail", "label"),
    [
        ("teacher", None, "teacher"),
        ("scratch", None, "from scratch"),
        ("tailored", tailored(), "tailored task, γ 0.3"),
        ("tailored", tailored(budget={"cost": "latency_ms", "most": 5, "batch": 64}, cut="rank"),
         "tailored task, γ 0.3, latency ≤ 5 ms, batch 64, by rank"),
        ("eliminated", cut(2), "elim 2"),
        ("eliminated", cut(3, unit="blocks", replacement=True, trainable="head"),
         "elim 3 blocks conv head"),
        ("searched", searched(7), "searched 7-0a1b2c"),
        ("scaled", scaled(-1.5), "scaled φ -1.5, from scratch"),
        ("scaled", scaled(0, pretrained=True, coefficients=[1.2, 1.0, 1.3]),
         "scaled φ 0 by 1.2, 1, 1.3"),
        ("knapsack", knapsack(round_to=4), "knapsack, FLOPs ≤ 0.5, by 4"),
        ("knapsack", knapsack(of=TAILORED, paths=PATHS),
         "knapsack of tailored all-gamma0.3, FLOPs ≤ 0.5"),
    ],
)  # fmt: skip
def test_labels(kind: str, detail: dict[str, Any] | None, label: str) -> None:
    content = summary(kind, **({kind: detail} if detail else {}))
    assert Summary.model_validate_json(json.dumps(content)).label == label


def test_seeds_are_grouped_in_the_order_of_tables(tmp_path: Path) -> None:
    lean = {"cost": "flops", "most": 0.25, "batch": None}
    contents = [summary("scratch", seed=seed) for seed in (2, 0)]
    contents += [summary("eliminated", eliminated=cut(top, unit="blocks")) for top in (10, 2)]
    contents += [summary("tailored", tailored=tailored(budget=lean)), summary("tailored")]
    contents += [summary("teacher"), summary("head-only", seed=1)]
    contents[2]["eliminated"]["kept_blocks"] = 0
    methods = compared(tmp_path, *contents).methods
    found = [(label, [run.summary.seed for run in runs]) for label, runs in methods.items()]
    assert found == [
        ("teacher", [0]),
        ("tailored task, γ 0.3", [0]),
        ("tailored task, γ 0.3, FLOPs ≤ 0.25", [0]),
        ("elim 2 blocks", [0]),
        ("elim 10 blocks", [0]),
        ("head only", [1]),
        ("from scratch", [0, 2]),
    ]


def test_the_backbone_is_named_where_there_are_several(tmp_path: Path) -> None:
    methods = compared(tmp_path, summary("teacher"), summary("teacher", backbone="other")).methods
    assert [*methods] == ["other teacher", "tiny teacher"]


def test_settings_in_which_networks_differ_are_listed(tmp_path: Path) -> None:
    common = {"batch_size": 64, "augment": {"hflip": 0.5}}
    write_run(tmp_path, summary("teacher"), settings={**common, "teacher": {"lr": 0.5}})
    # other seeds, folders and settings of other kinds' training are no difference
    write_run(tmp_path, summary("head-only"), settings={**common, "teacher": {"lr": 9}, "out": "x"})
    assert settings_table(compare_folders([tmp_path])).empty
    write_run(tmp_path, summary("scratch"), settings={**common, "batch_size": 32})
    again = {**common, "teacher": {"lr": 0.7}}
    write_run(tmp_path, summary("teacher", seed=1), settings=again)
    assert settings_table(compare_folders([tmp_path])).to_numpy().tolist() == [
        ["batch_size", "64", "teacher; head only"],
        ["batch_size", "32", "from scratch"],
        # within one method they count
        ["teacher.lr", "0.5", "teacher"],
        ["teacher.lr", "0.7", "teacher"],
        ["teacher.lr", "9", "head only"],
    ]


def test_every_figure_is_in_the_csv_unrounded(halves: Comparison) -> None:
    text = halves.frame.to_csv(index=False)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {*COLUMN, *(column.name for column in TRAINING_COLUMNS)} <= set(rows[0])
    assert [(row["method"], row["seed"]) for row in rows] == [
        (method, seed) for method in ("teacher", "from scratch") for seed in ("0", "1")
    ]
    last = rows[-1]
    assert last["folder"] == str(halves.runs[-1].folder)
    assert last["accuracy_test"] == "94.0"
    assert (last["flops"], last["flops_ratio"]) == ("500000", "0.5")
    assert (last["params"], last["params_ratio"]) == ("50000", "0.25")
    # each over the teacher measured in turn with it
    assert (last["latency_ms_1"], last["latency_ratio_1"]) == ("2.0", "1.0")
    assert (last["latency_ms_64"], last["latency_ratio_64"]) == ("30.0", "0.75")


def test_seeds_become_mean_and_sample_deviation(halves: Comparison) -> None:
    columns = [COLUMN[name] for name in ("accuracy_test", "flops_ratio", "params", "loss_val")]
    assert markdown_table(method_table(halves.frame, columns)) == (
        "| network | seeds | test accuracy, % | FLOPs, × teacher | parameters, M | "
        "validation loss, nats |\n"
        "| --- | --- | ---: | ---: | ---: | ---: |\n"
        "| teacher | 0 1 | 90.00 ± 0.00 | 1.000 | 0.200 | 0.200 ± 0.000 |\n"
        "| from scratch | 0 1 | 93.00 ± 1.41 | 0.500 | 0.0500 | 0.200 ± 0.000 |"
    )
    assert COLUMN["accuracy_val"].text(pd.Series([98.611])) == "98.61"
    assert COLUMN["accuracy_val"].text(pd.Series([None, 2.0, 3.0, 7.0])) == "4.00 ± 2.65"
    assert COLUMN["accuracy_test"].text(pd.Series([None, None])) == "–"


def test_numbers_and_names_in_few_characters() -> None:
    assert [decimals(value) for value in (1234.5, 31.42, 0.0676, 0.00001, 0)] == [0, 1, 4, 4, 0]
    assert printable("tab\tnew\nline \udcff é 猫") == r"tab\tnew\nline \udcff é 猫"
    assert [shortened("abcdef", most) for most in (4, 6)] == ["abc…", "abcdef"]
    assert [times(ratio) for ratio in (1.0, 0.296, 0.0884)] == ["1.00×", "0.30×", "0.088×"]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_terminal_shows_whole_what_fits(halves: Comparison, width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    table = main_table(halves, console)
    with console.capture() as capture:
        console.print(table)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for part in ("from scratch", "94.50±0.71", "93.00±1.41", "0.500", "0.250"):
        assert part in text
    assert (len(table.columns) == len(MAIN_COLUMNS) + 2) is (width == 200)


def test_markup_and_strange_signs_do_no_harm(tmp_path: Path) -> None:
    backbone = "net[bold]|<b>\x1b[31m"
    comparison = compared(tmp_path, summary("teacher"), summary("teacher", backbone=backbone))
    table = method_table(comparison.frame, MAIN_COLUMNS)
    console = Console(width=250, file=io.StringIO())
    with console.capture() as capture:
        console.print(terminal_table(table, "a [red] task"))
    assert "net[bold]|<b>\\x1b[31m teacher" in capture.get()
    assert "a [red] task" in capture.get()
    assert "| net[bold]\\|&lt;b&gt;\\x1b[31m teacher | 0 |" in markdown_table(table)


def best(comparison: Comparison) -> list[str | None]:
    return [found and found[0] for found in best_at_budgets(comparison.frame).values()]


def test_the_most_accurate_of_those_that_fit(tmp_path: Path) -> None:
    comparison = compared(
        tmp_path,
        network("teacher", 95.0, 1.0),
        network("scratch", 97.0, 1.01),  # over every budget
        network("eliminated", 96.0, 0.6),
        network("tailored", 94.0, 0.25),
        network("knapsack", 94.0, 0.3),  # as accurate, and dearer
        network("scaled", 90.0, 0.2, scaled=scaled(-1)),
    )
    assert BUDGETS == (1.0, 0.6, 0.4, 0.25, 0.15)
    assert best(comparison) == ["elim 1", "elim 1", *["tailored task, γ 0.3"] * 2, None]
    assert budget_table(comparison.frame).to_numpy().tolist()[3:] == [
        ["≤ 0.25", "tailored task, γ 0.3", "0", "94.00", "93.00", "0.250"],
        ["≤ 0.15", "none is that small", "–", "–", "–", "–"],
    ]


def test_means_over_seeds_count_and_rounding_does_not(tmp_path: Path) -> None:
    contents = [network("teacher", 95.0, 1.0, seed=seed) for seed in (0, 1, 2)]
    # 1075 of 1080 images twice: 359, 359 and 357 of 360, and 359, 358 and 358
    for kind, share, accuracies in (
        ("eliminated", 0.5, (99.7222, 99.7222, 99.1667)),
        ("tailored", 0.11, (99.7222, 99.4444, 99.4444)),
    ):
        contents += [network(kind, val, share, seed=seed) for seed, val in enumerate(accuracies)]
    # 0.5 and 0.72 of the FLOPs: 0.61 in the mean
    contents += [network("scratch", 99.9, share, seed=i) for i, share in enumerate((0.5, 0.72))]
    assert best(compared(tmp_path, *contents)) == ["from scratch", *["tailored task, γ 0.3"] * 4]


def test_budgets_are_of_the_best_teacher_for_every_backbone(tmp_path: Path) -> None:
    small = {"backbone": "small", "stages": [0, 1]}
    comparison = compared(
        tmp_path,
        network("teacher", 95.0, 1.0),
        network("teacher", 90.0, 0.3, **small),
        network("eliminated", 93.0, 0.39),
        # all of its own teacher's FLOPs, and 0.3 of the other's
        network("scratch", 94.0, 0.3, **small),
    )
    assert best(comparison) == ["tiny teacher", *["small from scratch"] * 2, None, None]


def test_training_is_told_with_that_of_what_a_network_begins_with(tmp_path: Path) -> None:
    teacher = summary("teacher", seconds=trained(100.0))
    own = {"teacher": teacher, "seconds": trained(30.0)}
    comparison = compared(
        tmp_path,
        teacher,
        summary("tailored", **own),
        summary("eliminated", **own),
        summary("knapsack", **own, knapsack=knapsack(of=TAILORED, paths=PATHS)),
        summary("searched", **own),
    )
    table = method_table(comparison.frame, TRAINING_COLUMNS)
    assert [*table.columns[2:]] == [
        "teacher's", "tailored network's", "other trials'", "own", "in all",
    ]  # fmt: skip
    assert table.iloc[:, 2:].to_numpy().tolist() == [
        ["–", "–", "–", "100", "100"],
        ["100", "–", "–", "30", "130"],
        ["–", "–", "–", "30", "30"],
        ["100", "200", "–", "30", "330"],
        ["–", "–", "120", "30", "150"],
    ]


def test_pareto_front_worked_out_by_hand() -> None:
    def front(*points: tuple[float, float]) -> list[int]:
        return pareto_front(pd.DataFrame(points, columns=["cost", "accuracy"])).index.tolist()

    assert front((3, 90), (1, 80), (2, 80), (2, 85), (3, 90), (4, 90), (5, 70)) == [1, 3, 0]
    # 1075 of 1080 images twice, as the means of rounded accuracies have it: the dearer is beaten
    assert front((0.5, 99.53703), (0.11, 99.53700)) == [1]
