"""The tables of a comparison: in the terminal, as CSV and as Markdown."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from report_runs import FULL_FLOPS, FULL_PARAMS, accuracy, summary, timings, write_run
from rich.console import Console

from nettailor.core.printable import printable
from nettailor.report.brief import decimals, shortened, times
from nettailor.report.methods import Method, Spread, group
from nettailor.report.roads import road_columns
from nettailor.report.runs import read_runs
from nettailor.report.tables import COLUMNS, MAIN_COLUMNS, Column, csv_text, markdown_table
from nettailor.report.tables import terminal_table as make_terminal_table

COLUMN = {column.name: column for column in COLUMNS}


@pytest.fixture
def methods(tmp_path: Path) -> list[Method]:
    """A teacher and a network of half its size, two seeds each."""
    for seed in (0, 1):
        teacher = summary("teacher", seed=seed)
        write_run(tmp_path, teacher)
        write_run(
            tmp_path,
            summary(
                "scratch",
                seed=seed,
                teacher=teacher,
                accuracy=accuracy(94.0 + seed, 92.0 + 2 * seed),
                flops=FULL_FLOPS // 2,
                params={"total": FULL_PARAMS // 4, "universal": 0, "task": FULL_PARAMS // 4},
                latency_ms={"cpu": timings(1.0 + seed, 30.0)},
                bytes=12345,
            ),
        )
    return group(read_runs([tmp_path])[0])


def every_figure_of_a_summary() -> set[str]:
    """What the issue asks of a comparison, by the names of the CSV."""
    by_split = {
        f"{name}_{split}"
        for name in ("accuracy", "macro_f1", "loss")
        for split in ("train", "val", "test")
    }
    return by_split | {
        "accuracy_error_val", "accuracy_error_test",
        "flops", "flops_ratio", "params", "params_ratio", "params_task", "input_px",
        "layers", "blocks_universal", "blocks_proxy", "latency_ms_1", "latency_iqr_ms_1",
        "latency_ratio_1",
        "latency_ms_64", "latency_iqr_ms_64", "latency_ratio_64", "cpu_ms",
        "test_inference_s", "peak_memory_1", "peak_memory_64", "bytes", "bytes_ratio", "train_s",
    }  # fmt: skip


def test_no_figure_is_missing() -> None:
    assert set(COLUMN) == every_figure_of_a_summary()
    assert set(MAIN_COLUMNS) <= set(COLUMNS)


def test_csv_has_a_row_for_each_run_with_figures_as_they_are(methods: list[Method]) -> None:
    text = csv_text(methods, road_columns(methods))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert text.splitlines()[0].endswith(",train_s,road_own_s,road_s")
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("teacher", "0"),
        ("teacher", "1"),
        ("from scratch", "0"),
        ("from scratch", "1"),
    ]
    last = rows[-1]
    assert last["folder"] == str(methods[1].runs[1].folder)
    assert last["accuracy_test"] == "94.0"
    assert (last["flops"], last["flops_ratio"]) == ("500000", "0.5")
    assert (last["params"], last["params_ratio"]) == ("50000", "0.25")
    assert (last["latency_ms_1"], last["latency_ratio_1"]) == ("2.0", "1.0")
    assert (last["latency_ms_64"], last["latency_ratio_64"]) == ("30.0", "0.75")
    assert (last["peak_memory_64"], last["cpu_ms"]) == ("9000000", "1.8")
    assert rows[0]["flops_ratio"] == rows[0]["latency_ratio_64"] == "1.0"


def test_markdown_has_a_row_for_each_method(methods: list[Method]) -> None:
    columns = [COLUMN[name] for name in ("accuracy_test", "flops_ratio", "params", "cpu_ms")]
    assert markdown_table(methods, columns) == (
        "| network | seeds | test accuracy, % | FLOPs × teacher | parameters M | "
        "processor, ms CPU |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| teacher | 2 | 90.00 ± 0.00 | 1.000 | 0.200 | 1.80 ± 0.00 |\n"
        "| from scratch | 2 | 93.00 ± 1.41 | 0.500 | 0.0500 | 1.80 ± 0.00 |\n"
    )


def test_one_seed_has_no_spread() -> None:
    column = COLUMN["accuracy_val"]
    assert column.text(Spread(98.611, None, 1)) == "98.61"
    assert column.text(Spread(98.611, 0.166, 3)) == "98.61 ± 0.17"
    assert column.text(None) == "–"


def test_a_structure_that_never_varies_shows_no_spread_of_zero() -> None:
    column = COLUMN["flops"]
    assert column.text(Spread(13_470_000, 0.0, 3)) == "13.5"
    assert column.text(Spread(13_470_000, 400_000, 3)) == "13.5 ± 0.4"


@pytest.mark.parametrize(
    ("value", "text"),
    [(31.42, "31.4"), (3.384, "3.38"), (0.0676, "0.0676"), (1234.5, "1,234"), (0.0, "0")],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert Column("x", "x", "x", lambda _: None, None).text(Spread(value, None, 1)) == text
    assert decimals(0.00001) == 4


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_the_terminal_table_shows_whole_what_it_shows(methods: list[Method], width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    table = make_terminal_table(methods, "shapes", console)
    with console.capture() as capture:
        console.print(table)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for part in ("from scratch", "94.50±0.71", "93.00±1.41", "0.500", "0.250"):
        assert part in text


def test_a_wider_terminal_shows_more(methods: list[Method]) -> None:
    def columns(width: int) -> int:
        return len(make_terminal_table(methods, "x", Console(width=width)).columns)

    assert columns(80) < columns(120) < columns(200) == len(MAIN_COLUMNS) + 2


def test_markup_and_strange_signs_do_no_harm(tmp_path: Path) -> None:
    backbone = "net[bold]|\x1b[31m"
    content: dict[str, Any] = summary("teacher", backbone=backbone)
    write_run(tmp_path / "a", summary("teacher"))
    write_run(tmp_path / "b", content)
    methods = group(read_runs([tmp_path])[0])
    console = Console(width=200, file=io.StringIO())
    with console.capture() as capture:
        console.print(make_terminal_table(methods, "a [red] task", console))
    assert "net[bold]|\\x1b[31m teacher" in capture.get()
    assert "a [red] task" in capture.get()
    assert "| net[bold]\\|\\x1b[31m teacher | 1 |" in markdown_table(methods, [])


def test_printable() -> None:
    assert printable("tab\tnew\nline \udcff é 猫") == r"tab\tnew\nline \udcff é 猫"
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcd", 4) == "abcd"
    assert [times(ratio) for ratio in (1.0, 0.296, 0.0884)] == ["1.00×", "0.30×", "0.088×"]
