"""Warnings about what a user would find out too late: lost classes, and choices that were lucky."""

import csv
from pathlib import Path

import pytest
from shell import DIGITS, Shell

from nettailor.choice_warnings import warn_of_a_lucky_choice
from nettailor.cli import tailor, teach
from nettailor.core.console import Screen
from nettailor.core.flags import parse
from nettailor.core.run_folder import RunFolder
from nettailor.evidence import right_on
from nettailor.session import start_session


def predictions(folder: Path, right: int, of: int = 100) -> RunFolder:
    """A run that takes the first so many test images right, and none on validation."""
    folder.mkdir()
    rows = [["split", "label", "predicted"], ["val", 1, 0]]
    rows += [["test", 1, int(index < right)] for index in range(of)]
    with (folder / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return RunFolder(folder)


def test_names_of_images_may_hold_any_bytes(tmp_path: Path) -> None:
    rows = b"split,file,label,predicted\ntest,caf\xe9.png,1,1\ntest,th\xe9.png,1,0\n"
    (tmp_path / "predictions.csv").write_bytes(rows)
    assert right_on(tmp_path, "test") == b"\1\0"


@pytest.mark.parametrize(
    ("teacher", "kept", "said"),
    [
        # 10 images lost and none won: (10.5 + 0.5 - 10² / 102) of 102 images, its root in %
        (90, 80, "route is 10.00 points below its teacher (standard error 3.10)"),
        (90, 90, ""),
        (90, 95, ""),
    ],
)
def test_a_test_beyond_the_tolerance_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], teacher: int, kept: int, said: str
) -> None:
    config, _ = parse("test", "", [*DIGITS, "--out", str(tmp_path / "runs")])
    session = start_session(config, Screen())
    before, after = predictions(tmp_path / "one", teacher), predictions(tmp_path / "two", kept)
    assert sum(right_on(before.path, "test")) == teacher
    assert right_on(before.path, "val") == b"\0"
    assert right_on(tmp_path, "test") == b""
    capsys.readouterr()
    warn_of_a_lucky_choice(session, "route", before, after)
    out = capsys.readouterr().out
    assert said in out
    assert bool(out) == bool(said)


def test_a_class_that_nobody_finds_is_named(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    """A teacher of one epoch on 45 digits finds few of the ten classes."""
    teach.main([*DIGITS, "--out", str(shell.out)])
    out = capsys.readouterr().out
    (table,) = shell.out.glob("digits/teacher/*/predictions.csv")
    with table.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    found = {row["class"] for row in rows if row["label"] == row["predicted"]}
    missed = [name for name in sorted({row["class"] for row in rows}) if name not in found]
    assert missed
    shown = ", ".join(map(repr, missed[:5]))
    assert f"no validation image of class{'es' * (len(missed) > 1)} {shown}" in out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--balance", "loss"], True),
        (["--balance", "sampling"], True),
        (["--balance", "loss", "--metric", "macro-f1"], False),
        ([], False),
    ],
)
def test_balanced_classes_chosen_by_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: bool
) -> None:
    tailor.main([*DIGITS, *flags, "--dry-run", "--out", str(tmp_path)])
    assert ("give --metric macro-f1" in capsys.readouterr().out) == said
