"""A teacher that trains until it has learnt its own training images, or is said to have not."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from shell import DIGITS, Shell

from nettailor import finetune
from nettailor.cli import teach

AUTO = [*DIGITS, "--teacher.epochs", "auto"]


def trained(shell: Shell, *flags: str) -> Path:
    teach.main([*flags, "--overwrite", "--out", str(shell.out)])
    (folder,) = shell.out.glob("digits/teacher/*")
    return folder


def epochs(folder: Path) -> dict[str, int]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return dict(Counter(row["stage"] for row in csv.DictReader(file)))


def test_few_steps_that_were_not_enough_are_told(
    shell: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """45 digits, 2 steps; not where it has learnt what is asked for, or had more steps than few."""
    for learnt, few, told in ((90.0, 2000, True), (0.0, 2000, False), (90.0, 1, False)):
        monkeypatch.setattr(finetune, "_LEARNT", learnt)
        monkeypatch.setattr(finetune, "_FEW_STEPS", few)
        folder = trained(shell, *DIGITS)
        percent = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["accuracy"]
        said = f"it takes {percent['train']:.0f} % of its own training images for what they are"
        assert (said in " ".join(capsys.readouterr().out.split())) == told
        assert epochs(folder) == {"teacher": 1}


def test_it_goes_on_for_twice_as_many_epochs_and_again_where_that_helped(
    shell: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 steps, then 40; the third time only where the second gained."""
    stages = epochs(trained(shell, *AUTO))
    said = " ".join(capsys.readouterr().out.split())
    assert stages.pop("teacher") == 10
    assert stages.pop("teacher-2") == 20
    assert stages in ({}, {"teacher-3": 40})
    assert "teacher: after 20 steps it takes" in said
    assert "of its own training images for what they are: 20 epochs more" in said
    monkeypatch.setattr(finetune, "_FEW_STEPS", 20)
    assert epochs(trained(shell, *AUTO)) == {"teacher": 10}
    monkeypatch.setattr(finetune, "_FEW_STEPS", 2000)
    monkeypatch.setattr(finetune, "_LEARNT", 0.0)
    assert epochs(trained(shell, *AUTO)) == {"teacher": 10}


def test_the_best_of_all_its_epochs_is_kept(shell: Shell) -> None:
    folder = trained(shell, *AUTO)
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = [float(row["val_accuracy"]) for row in csv.DictReader(file)]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["accuracy"]["val"] == pytest.approx(max(rows))
