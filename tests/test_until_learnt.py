"""A teacher that trains until it has learnt its own training images, or is said to have not."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from shell import DIGITS, Shell

from nettailor import finetune
from nettailor.cli import teach
from nettailor.core import training_state
from nettailor.core.files import read_weights
from nettailor.core.watch import StageWatcher
from nettailor.resolve import auto_epochs

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
        monkeypatch.setattr(finetune, "MANY_STEPS", few)
        folder = trained(shell, *DIGITS)
        percent = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["accuracy"]
        said = f"it takes {percent['train']:.0f} % of its own training images for what they are"
        assert (said in " ".join(capsys.readouterr().out.split())) == told
        assert epochs(folder) == {"teacher": 1}


def test_it_goes_on_for_twice_as_many_epochs_where_it_has_not_learnt(
    shell: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 steps, then 80; not where there were many, or it knows its own training images."""
    monkeypatch.setattr(finetune, "_LEARNT", 101.0)
    folder = trained(shell, *AUTO)
    said = " ".join(capsys.readouterr().out.split())
    assert "(accuracy) on its own training images after 40 steps: 40 epochs more" in said
    assert epochs(folder) == {"teacher": 20, "teacher-2": 40}
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["accuracy"]["val"] > 50, "it learns"
    monkeypatch.setattr(finetune, "MANY_STEPS", 40)
    assert epochs(trained(shell, *AUTO)) == {"teacher": 20}
    monkeypatch.setattr(finetune, "MANY_STEPS", 2000)
    monkeypatch.setattr(finetune, "_LEARNT", 0.0)
    assert epochs(trained(shell, *AUTO)) == {"teacher": 20}


def test_a_teacher_that_knows_its_own_images_alone_is_told(
    shell: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for gap, told in ((-100.0, True), (100.0, False)):
        monkeypatch.setattr(finetune, "_GAP", gap)
        folder = trained(shell, *DIGITS)
        percent = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["accuracy"]
        said = f"{percent['train']:.0f} % of its own training images for what they are, and "
        said += f"{percent['val']:.0f} % of those of validation: it is not trained for images"
        assert (said in " ".join(capsys.readouterr().out.split())) == told


def test_large_sets_begin_with_half_of_the_epochs() -> None:
    """2 000 steps are many: of 199 an epoch there are 1 990 in ten."""
    assert [auto_epochs(steps) for steps in (1, 199, 200, 10_000)] == [20, 20, 10, 10]


def test_a_restart_that_is_stopped_goes_on_to_the_same_bits(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = read_weights(trained(shell, *AUTO) / "model.safetensors")
    epoch = StageWatcher.epoch

    def stopped(watcher: StageWatcher, row: Any, network: Any) -> None:
        epoch(watcher, row, network)
        if watcher._stage == "teacher-2" and row["epoch"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StageWatcher, "epoch", stopped)
        patched.setattr(training_state, "_LEAST_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            trained(shell, *AUTO)
    teach.main([*AUTO, "--out", str(shell.out)])
    (folder,) = shell.out.glob("digits/teacher/*")
    again = read_weights(folder / "model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in straight.items())


def test_it_ends_with_its_last_epoch(shell: Shell) -> None:
    folder = trained(shell, *AUTO)
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = [float(row["val_accuracy"]) for row in csv.DictReader(file)]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["accuracy"]["val"] == pytest.approx(rows[-1])
