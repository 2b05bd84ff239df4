"""What `predict` says as CSV, JSON and table, whatever images and classes are called."""

import csv
import io
from pathlib import Path

import pytest
from predicting import CLASSES, as_json, picture, run_it
from rich.console import Console

from nettailor import answering
from nettailor.answer_formats import as_table

# the one that ends in "[/].png" is a file called "].png" in a folder
WEIRD = [
    "new\nline.png", "carriage\rreturn.png", "two  spaces .png", "comma, quote\".png",
    "[bold]no markup[/].png", "日本 ü.png", "-dash.png", "\x1b[31mred.png", "bytes\udcff.png",
    "x" * 240 + ".png",
]  # fmt: skip


@pytest.fixture
def weird(tmp_path):
    folder = tmp_path / "weird"
    for seed, name in enumerate(WEIRD):
        picture(folder / name, seed)
    return folder


def test_csv_brings_every_name_through(run, weird, tmp_path, capsys):
    expected = as_json(capsys, weird, "--run", run)["images"]
    assert {str(Path(image["path"]).relative_to(weird)) for image in expected} == set(WEIRD)
    output = tmp_path / "out" / "table.csv"
    assert run_it(weird, "--run", run, "--format", "csv", "--output", output) == 0
    assert capsys.readouterr() == ("", "")
    assert [path.name for path in output.parent.iterdir()] == ["table.csv"]
    with output.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "rank", "label", "probability", "ms"]
    assert [(r["path"], int(r["rank"]), r["label"], float(r["probability"])) for r in rows] == [
        (image["path"], rank, said["label"], said["probability"])
        for image in expected
        for rank, said in enumerate(image["predictions"], 1)
    ]
    assert all(float(row["ms"]) > 0 for row in rows)


@pytest.mark.parametrize("form", ["csv", "json", "table"])
def test_standard_output_and_file_hold_the_same(
    run, weird, tmp_path, capfdbinary, monkeypatch, form
):
    monkeypatch.setattr(answering, "perf_counter", iter(range(10**6)).__next__)
    argv = (weird, "--run", run, "--format", form)
    assert run_it(*argv, "--output", tmp_path / "file") == 0
    assert capfdbinary.readouterr().out == b""
    monkeypatch.setattr(answering, "perf_counter", iter(range(10**6)).__next__)
    assert run_it(*argv) == 0
    assert capfdbinary.readouterr().out == (tmp_path / "file").read_bytes()


def test_table_in_a_file(run, weird, tmp_path):
    output = tmp_path / "table.txt"
    run_it(weird, "--run", run, "--top-k", 2, "--output", output)
    lines = output.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("│")]
    assert len(rows) == 2 * len(WEIRD), "neither names nor paths may break a line"
    cells = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]
    shown = {row[0] for row in cells[::2]}
    assert {str(Path(name).relative_to(weird)) for name in shown} == {
        "new\\nline.png", "carriage\\rreturn.png", "two  spaces .png", 'comma, quote".png',
        "[bold]no markup[/].png", "日本 ü.png", "-dash.png", "\\x1b[31mred.png",
        "bytes\\udcff.png", "x" * 240 + ".png",
    }  # fmt: skip
    assert all(row[0] == row[3] == "" for row in cells[1::2])
    assert {row[1] for row in cells} <= {name.replace("\n", "\\n") for name in CLASSES}
    for first, second in zip(cells[::2], cells[1::2], strict=True):
        assert 100 >= float(first[2]) >= float(second[2]) >= 0


def test_table_on_a_narrow_terminal_loses_nothing():
    console = Console(file=io.StringIO(), force_terminal=True, width=40, color_system=None)
    said = answering.Predicted(Path("abcdefghij" * 10), 1.5, (("class", 0.25),))
    lines = as_table([said], console).splitlines()
    assert all(len(line) <= 40 for line in lines)
    cells = [line.split("│")[1:] for line in lines if line.startswith("│")]
    assert "".join(row[0].strip() for row in cells) == "abcdefghij" * 10
    assert "".join(row[1].strip() for row in cells) == "class"
    assert [cell.strip() for cell in cells[0][2:4]] == ["25.00", "1.5"]
