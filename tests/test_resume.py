"""A stage that was stopped, at whatever step, goes on to the very bits of one never stopped."""

import random
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from kills import curves
from small_stages import (
    COSINE,
    PLAIN,
    PREPROCESSING,
    Log,
    Patches,
    batches,
    fit_tiny,
    student_and_objective,
)
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from nettailor.core import training_state
from nettailor.core.console import Screen
from nettailor.core.errors import UserError
from nettailor.core.loader import EvalLoader
from nettailor.core.preprocessing import eval_transform
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import Schedule, parameter_groups
from nettailor.core.scores import Scores, classify
from nettailor.core.state import read_state, write_state
from nettailor.core.trainer import fit
from nettailor.core.training_state import Fitted
from nettailor.core.watch import StageWatcher
from nettailor.student.network import Student


def fit_student(
    path: Path,
    accelerator: Accelerator,
    *,
    schedule: Schedule,
    watcher: Log | None = None,
) -> tuple[Student, Fitted]:
    student, objective = student_and_objective(1)
    own = [(n, p) for n, p in student.named_parameters() if not n.startswith("path_weights.")]
    groups = parameter_groups(own, schedule)
    groups.append({"params": [student.path_weights.logits], "weight_decay": 0.0, "lr": 0.2})
    evaluation = EvalLoader(Patches(12), eval_transform(PREPROCESSING), batch_size=8, workers=0)
    fitted = fit(
        student,
        objective,
        batches(),
        groups=groups,
        schedule=schedule,
        accelerator=accelerator,
        validate=lambda network: classify(network, evaluation, accelerator).scores(),
        state_path=path,
        watcher=watcher or Log(),
    )
    return student, fitted


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in history]


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


class CutAtTheSecondStep(Log):
    """The power goes before the second step of a session is saved: each gets one step further."""

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        super().step(epoch, step, loss)
        if len(self.steps) == 2:
            raise KeyboardInterrupt


def save_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_state, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(training_state, "_LEAST_RATIO", 0.0)


def cut_short(path: Path, accelerator: Accelerator, schedule: Schedule, *, sessions: int) -> None:
    """Sessions of one step each."""
    for _ in range(sessions):
        with pytest.raises(KeyboardInterrupt):
            fit_student(path, accelerator, schedule=schedule, watcher=CutAtTheSecondStep())


@pytest.mark.parametrize(
    "schedule",
    [
        replace(COSINE, epochs=2),
        replace(COSINE, epochs=2, optimizer="adamw", lr=0.003),
        replace(COSINE, epochs=2, shape="step-1", warmup_epochs=0),
    ],
    ids=["momentum", "adamw", "steps"],
)
def test_cut_at_every_step_is_as_never_cut(
    tmp_path: Path,
    accelerator: Accelerator,
    monkeypatch: pytest.MonkeyPatch,
    schedule: Schedule,
) -> None:
    """Bit for bit, though every session begins with other generators and other weights."""
    straight, course = fit_student(tmp_path / "straight.pt", accelerator, schedule=schedule)
    save_at_every_step(monkeypatch)
    path = tmp_path / "cut.pt"
    began, places = [], []
    while True:
        seed = 100 + len(began)
        random.seed(seed)
        np.random.seed(seed)
        log = CutAtTheSecondStep()
        try:
            cut, rest = fit_student(path, accelerator, schedule=schedule, watcher=log)
            break
        except KeyboardInterrupt:
            began.append(log.steps[0])
            state = read_state(path)
            places.append((len(state["history"]), len(state["course"])))
            assert log.within == (began[-1][1] > 1)
    steps = batches().steps_per_epoch
    every = [(epoch, step) for epoch in range(schedule.epochs) for step in range(steps)]
    # no session began with the last step of all: its one step is not the second
    assert began == [(epoch + 1, step + 1) for epoch, step in every[:-1]]
    assert [place for place in places if place[1]] == [place for place in every if place[1]]
    assert same(cut, straight)
    assert timeless(rest.history) == timeless(course.history)
    assert rest.scores == course.scores
    assert [row["epoch"] for row in rest.history] == list(range(1, schedule.epochs + 1))
    mine, theirs = read_state(path), read_state(tmp_path / "straight.pt")
    assert torch.equal(mine["random"]["torch"], theirs["random"]["torch"])

    # another call finds nothing to do
    log = Log()
    again, rest = fit_student(path, accelerator, schedule=schedule, watcher=log)
    assert log.rows == []
    assert same(again, straight)
    assert timeless(rest.history) == timeless(course.history)


def test_a_state_within_an_epoch_that_forgets_gives_others(
    tmp_path: Path, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = replace(COSINE, epochs=1, warmup_epochs=0)
    straight, _ = fit_student(tmp_path / "straight.pt", accelerator, schedule=schedule)
    save_at_every_step(monkeypatch)
    path = tmp_path / "cut.pt"
    cut_short(path, accelerator, schedule, sessions=2)

    def position(state: dict[str, Any]) -> None:
        state["course"] = state["course"][:1]

    def generator(state: dict[str, Any]) -> None:
        state["random"]["torch"] = torch.Generator().manual_seed(123).get_state()

    def momentum(state: dict[str, Any]) -> None:
        for slots in state["optimizer"]["state"].values():
            slots["momentum_buffer"].zero_()

    def one_bit(state: dict[str, Any]) -> None:
        state["network"]["path_weights.logits"].view(torch.int32)[0] ^= 1 << 22

    for forget in (position, generator, momentum, one_bit):
        state = read_state(path)
        assert len(state["course"]) == 2
        forget(state)
        write_state(tmp_path / "other.pt", state)
        resumed, _ = fit_student(tmp_path / "other.pt", accelerator, schedule=schedule)
        assert not same(straight, resumed), forget.__name__
    resumed, _ = fit_student(path, accelerator, schedule=schedule)
    assert same(straight, resumed)


def test_a_damaged_state_goes_on_from_the_one_before(
    tmp_path: Path, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the same bits, and says so; a state of another network is refused."""
    schedule = replace(COSINE, epochs=2)
    straight, course = fit_student(tmp_path / "straight.pt", accelerator, schedule=schedule)
    save_at_every_step(monkeypatch)
    path = tmp_path / "cut.pt"
    cut_short(path, accelerator, schedule, sessions=4)
    path.write_bytes(path.read_bytes()[:-1])
    log = Log()
    resumed, rest = fit_student(path, accelerator, schedule=schedule, watcher=log)
    assert log.warnings == [
        f"warning: {path} is damaged; training goes on from the state before it"
    ]
    assert same(straight, resumed)
    assert timeless(rest.history) == timeless(course.history)
    with pytest.raises(UserError, match=r"cut\.pt: the state of another network .*delete it"):
        fit_tiny(path, accelerator)


def test_stopped_and_gone_on_is_as_never_stopped(tmp_path: Path, accelerator: Accelerator) -> None:
    path, asked = tmp_path / "state.pt", []

    def stop(epoch: int, last: Scores) -> bool:
        asked.append((epoch, last.accuracy))
        return epoch == 2

    scores = [Scores(40, 0, 1), Scores(30, 0, 1), Scores(99, 0, 1), Scores(98, 0, 1)]
    network, fitted = fit_tiny(path, accelerator, scores=scores, stop=stop)
    assert len(fitted.history) == 2
    assert asked == [(1, 40), (2, 30)]
    log = Log()
    again, resumed = fit_tiny(path, accelerator, stop=stop, watcher=log)
    assert log.rows == []
    assert resumed.scores == fitted.scores
    assert same(again, network)
    ended, whole = fit_tiny(path, accelerator, scores=scores[2:])
    assert whole.scores == Scores(98, 0, 1)
    straight, _ = fit_tiny(tmp_path / "other.pt", accelerator, scores=scores)
    assert same(ended, straight)


class Power(StageWatcher):
    """A real watcher that loses power at one moment of one epoch."""

    def __init__(self, folder: Path, epochs: int, moment: tuple[str, int] | None) -> None:
        def pictures(writer: SummaryWriter, epoch: int, network: nn.Module) -> None:
            if (moment := self.moment) == ("half of the events", epoch):
                writer.flush()
                raise KeyboardInterrupt
            writer.add_scalar("picture", next(network.parameters()).sum().item(), epoch)
            if moment == ("the events not flushed", epoch):
                # what is still queued goes with the process
                self._writer = None
                raise KeyboardInterrupt

        run = RunFolder(folder)
        super().__init__("stage", run, Screen(), epochs=epochs, steps_per_epoch=3)
        self._pictures, self.moment = pictures, moment

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        super().step(epoch, step, loss)
        if self.moment == (f"step {step}", epoch):
            raise KeyboardInterrupt

    def epoch(self, row: Mapping[str, float], network: nn.Module) -> None:
        if self.moment == ("before the events", row["epoch"]):
            raise KeyboardInterrupt
        super().epoch(row, network)
        if self.moment == ("after the events", row["epoch"]):
            raise KeyboardInterrupt


def test_events_and_rows_have_no_gap_and_none_twice(
    tmp_path: Path, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_at_every_step(monkeypatch)
    schedule = replace(PLAIN, epochs=4)
    moments = [
        *(("half of the events", 0), ("the events not flushed", 0), ("step 1", 1), ("step 3", 1)),
        *(("before the events", 1), ("half of the events", 2), ("the events not flushed", 2)),
        *(("step 2", 3), ("after the events", 3), ("before the events", 4), None),
    ]
    clock = count(int(time.time()))
    for moment in moments:
        # files of one second are read in the order of their processes' numbers, not of their times
        with monkeypatch.context() as patch, closing(Power(tmp_path, 4, moment)) as watcher:
            second = float(next(clock))
            patch.setattr("time.time", lambda second=second: second)
            if moment is not None:
                with pytest.raises(KeyboardInterrupt):
                    fit_tiny(tmp_path / "s.pt", accelerator, schedule=schedule, watcher=watcher)
            else:
                fit_tiny(tmp_path / "s.pt", accelerator, schedule=schedule, watcher=watcher)
    straight = Power(tmp_path / "straight", 4, None)
    with closing(straight):
        fit_tiny(tmp_path / "t.pt", accelerator, schedule=schedule, watcher=straight)
    mine = curves(tmp_path / "events" / "stage")
    assert mine == curves(tmp_path / "straight" / "events" / "stage")
    assert [step for step, _ in mine["picture"]] == [0, 1, 2, 3, 4]
    assert [step for step, _ in mine["loss/total"]] == [1, 2, 3, 4]
    rows = [line.split(",")[:5] for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    other = (tmp_path / "straight" / "metrics.csv").read_text().splitlines()
    assert rows == [line.split(",")[:5] for line in other]
    assert [row[1] for row in rows] == ["epoch", "1", "2", "3", "4"]
