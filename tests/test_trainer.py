"""The training loop: resume, best epoch, stops, numbers that are not finite."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count
from math import cos, log, pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import enliven, lively_chain
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from nettailor.core import trainer
from nettailor.core.backbone import NetOutput
from nettailor.core.console import Screen
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.loader import EvalLoader, TrainLoader
from nettailor.core.objective import Objective
from nettailor.core.preprocessing import (
    Augmentation,
    Preprocessing,
    eval_transform,
    train_transform,
)
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import Schedule, make_optimizer, make_scheduler, parameter_groups
from nettailor.core.scores import Scores, classify
from nettailor.core.state import read_state, write_state
from nettailor.core.trainer import Fitted, NotFiniteError, Watcher, fit
from nettailor.core.watch import StageWatcher
from student.complexity import reachability
from student.grow import grow, path_costs
from student.mimicry import node_scales
from student.network import Student
from student.objective import TailorObjective
from teacher.objective import CrossEntropy
from teacher.target import as_target

CLASSES = 4
SIDE = 32
PREPROCESSING = Preprocessing(SIDE, (0.5,) * 3, (0.25,) * 3, "bilinear", 1.0)
AUGMENTATION = Augmentation((0.5, 1.0), (0.8, 1.25), 0.5, 0.2, None, 0.0)
COSINE = Schedule(
    epochs=4, optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=1e-3, shape="cosine",
    step_epochs=2, step_factor=0.1, warmup_epochs=1, clip_norm=None, ema=None,
)  # fmt: skip
GOOD = Scores(50.0, 50.0, 1.0)


class Patches:
    """Noise around a colour a class."""

    def __init__(self, count: int) -> None:
        random = np.random.RandomState(0)
        self.labels = tuple(index % CLASSES for index in range(count))
        colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [120, 120, 120]])
        noise = random.randint(-40, 40, (count, SIDE, SIDE, 3))
        self.pixels = (colours[list(self.labels)][:, None, None] + noise).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), self.labels[index]


def batches(count: int = 24, batch_size: int = 8, seed: int = 1) -> TrainLoader:
    return TrainLoader(
        Patches(count),
        train_transform(PREPROCESSING, AUGMENTATION),
        batch_size=batch_size,
        seed=seed,
        workers=0,
        pin_memory=False,
    )


class Log:
    """A watcher that remembers, and that may cut the power."""

    def __init__(
        self,
        *,
        after_epoch: int | None = None,
        in_epoch: int | None = None,
        look: Callable[[int], None] | None = None,
    ) -> None:
        self.after_epoch, self.in_epoch, self.look = after_epoch, in_epoch, look
        self.rows: list[Mapping[str, float]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.steps: list[tuple[int, int]] = []
        self.warnings: list[str] = []

    def begin(
        self, history: Sequence[Mapping[str, float]], network: nn.Module, *, within: bool
    ) -> None:
        self.found, self.within = len(history), within

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.steps.append((epoch, step))
        if epoch == self.in_epoch:
            raise KeyboardInterrupt

    def epoch(self, row: Mapping[str, float], network: nn.Module) -> None:
        self.rows.append(row)
        self.weights.append({name: t.clone() for name, t in network.state_dict().items()})
        if self.look is not None:
            self.look(int(row["epoch"]))
        if row["epoch"] == self.after_epoch:
            raise KeyboardInterrupt


def student_and_objective(seed: int) -> tuple[Student, TailorObjective]:
    """Dropout before the classifier makes every step draw from torch's own generator."""
    torch.manual_seed(seed)
    teacher = place(lively_chain("test_resnet", CLASSES), torch.device("cpu"))
    target = as_target(teacher)
    chain = lively_chain("test_resnet", CLASSES)
    chain.classifier = nn.Sequential(nn.Dropout(0.3), chain.classifier)
    student = place(
        grow(chain, skips=3, identities=True, exits=False, batch_norm="follow"),
        torch.device("cpu"),
    )
    enliven(student.proxies, seed)
    images = next(batches().epoch(0))[0]
    costs, total = path_costs(student, teacher, SIDE)
    objective = TailorObjective(
        target,
        distill=0.5,
        gamma=0.3,
        complexity=reachability,
        cost=torch.tensor([cost.flops / total.flops for cost in costs]),
        mimic=1.0,
        mimic_scales=node_scales("normalized", target(images)),
        label_smoothing=0.1,
    )
    return student, objective


def fit_student(
    path: Path,
    accelerator: Accelerator,
    *,
    schedule: Schedule = COSINE,
    seed: int = 1,
    keep: str = "last",
    watcher: Log | None = None,
) -> tuple[Student, Fitted]:
    student, objective = student_and_objective(seed)
    own = [(n, p) for n, p in student.named_parameters() if not n.startswith("path_weights.")]
    groups = parameter_groups(own, schedule)
    groups.append({"params": [student.path_weights.logits], "weight_decay": 0.0, "lr": 0.2})
    evaluation = EvalLoader(
        Patches(12), eval_transform(PREPROCESSING), batch_size=8, workers=0, pin_memory=False
    )
    fitted = fit(
        student,
        objective,
        batches(),
        groups=groups,
        schedule=schedule,
        accelerator=accelerator,
        validate=lambda network: classify(network, evaluation, accelerator).scores(),
        keep="best" if keep == "best" else "last",
        state_path=path,
        watcher=watcher or Log(),
    )
    return student, fitted


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in history]


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


@pytest.mark.usefixtures("_saved_every_epoch")
@pytest.mark.parametrize(
    ("schedule", "keep", "power_cut"),
    [
        (COSINE, "last", {"after_epoch": 2}),
        (COSINE, "best", {"in_epoch": 3}),
        (replace(COSINE, ema=0.8), "last", {"after_epoch": 2}),
        (replace(COSINE, ema=0.8, optimizer="adamw", lr=0.003), "best", {"after_epoch": 2}),
        (replace(COSINE, shape="step", warmup_epochs=0, clip_norm=1.0), "last", {"in_epoch": 3}),
    ],
)
def test_two_and_two_epochs_are_four(
    tmp_path: Path,
    accelerator: Accelerator,
    schedule: Schedule,
    keep: str,
    power_cut: dict[str, int],
) -> None:
    """Bit for bit, after an end at an epoch or in the midst of one, in a fresh process's state."""
    straight, course = fit_student(
        tmp_path / "straight.pt", accelerator, schedule=schedule, keep=keep
    )
    path = tmp_path / "halves.pt"
    with pytest.raises(KeyboardInterrupt):
        fit_student(path, accelerator, schedule=schedule, keep=keep, watcher=Log(**power_cut))
    assert len(read_state(path)["history"]) == 2
    log = Log()
    # another random state and another start: everything has to come from the file
    torch.manual_seed(99)
    resumed, rest = fit_student(path, accelerator, schedule=schedule, keep=keep, watcher=log)
    assert [row["epoch"] for row in log.rows] == [3, 4]
    assert same(resumed, straight)
    assert timeless(rest.history) == timeless(course.history)
    assert [row["epoch"] for row in rest.history] == [1, 2, 3, 4]
    assert rest.best == course.best
    mine, theirs = read_state(path), read_state(tmp_path / "straight.pt")
    assert torch.equal(mine["random"]["torch"], theirs["random"]["torch"])

    # a third call finds nothing to do
    log = Log()
    again, rest = fit_student(path, accelerator, schedule=schedule, keep=keep, watcher=log)
    assert log.rows == []
    assert same(again, straight)
    assert timeless(rest.history) == timeless(course.history)


@pytest.mark.usefixtures("_saved_every_epoch")
def test_the_comparison_can_fail(tmp_path: Path, accelerator: Accelerator) -> None:
    """Another seed, and a resume that forgets the random state or the optimizer's, give others."""
    one, _ = fit_student(tmp_path / "one.pt", accelerator)
    other, _ = fit_student(tmp_path / "other.pt", accelerator, seed=2)
    assert not same(one, other)
    for forgotten in ("rng", "momentum"):
        path = tmp_path / f"{forgotten}.pt"
        with pytest.raises(KeyboardInterrupt):
            fit_student(path, accelerator, watcher=Log(after_epoch=2))
        state = read_state(path)
        if forgotten == "rng":
            state["random"]["torch"] = torch.Generator().manual_seed(123).get_state()
        else:
            for slots in state["optimizer"]["state"].values():
                slots["momentum_buffer"].zero_()
        write_state(path, state)
        resumed, _ = fit_student(path, accelerator)
        assert not same(one, resumed), forgotten


class CutAtTheSecondStep(Log):
    """The power goes before the second step of a session is saved: each gets one step further."""

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        super().step(epoch, step, loss)
        if len(self.steps) == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("schedule", "keep"),
    [
        (replace(COSINE, epochs=2, ema=0.8), "last"),
        (replace(COSINE, epochs=2, ema=0.8, optimizer="adamw", lr=0.003, clip_norm=1.0), "best"),
        (replace(COSINE, epochs=2, shape="step", step_epochs=1, warmup_epochs=0), "best"),
    ],
    ids=["momentum and average", "adamw, average and clipping", "momentum, best epoch"],
)
def test_cut_at_every_step_is_as_never_cut(
    tmp_path: Path,
    accelerator: Accelerator,
    monkeypatch: pytest.MonkeyPatch,
    schedule: Schedule,
    keep: str,
) -> None:
    """Bit for bit, though every session begins with other generators and other weights."""
    straight, course = fit_student(
        tmp_path / "straight.pt", accelerator, schedule=schedule, keep=keep
    )
    monkeypatch.setattr(trainer, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(trainer, "_LEAST_RATIO", 0.0)
    path = tmp_path / "cut.pt"
    began, places = [], []
    while True:
        seed = 100 + len(began)
        random.seed(seed)
        np.random.seed(seed)
        log = CutAtTheSecondStep()
        try:
            cut, rest = fit_student(path, accelerator, schedule=schedule, keep=keep, watcher=log)
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
    assert rest.best == course.best
    mine, theirs = read_state(path), read_state(tmp_path / "straight.pt")
    assert torch.equal(mine["random"]["torch"], theirs["random"]["torch"])


def test_a_state_within_an_epoch_that_forgets_gives_others(
    tmp_path: Path, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = replace(COSINE, epochs=1, warmup_epochs=0, ema=0.8)
    straight, _ = fit_student(tmp_path / "straight.pt", accelerator, schedule=schedule)
    monkeypatch.setattr(trainer, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(trainer, "_LEAST_RATIO", 0.0)
    path = tmp_path / "cut.pt"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit_student(path, accelerator, schedule=schedule, watcher=CutAtTheSecondStep())

    def position(state: dict[str, Any]) -> None:
        state["course"] = state["course"][:1]

    def generator(state: dict[str, Any]) -> None:
        state["random"]["torch"] = torch.Generator().manual_seed(123).get_state()

    def momentum(state: dict[str, Any]) -> None:
        for slots in state["optimizer"]["state"].values():
            slots["momentum_buffer"].zero_()

    def average(state: dict[str, Any]) -> None:
        state["average"] = state["network"]

    def one_bit(state: dict[str, Any]) -> None:
        state["average"]["path_weights.logits"].view(torch.int32)[0] ^= 1 << 22

    for forget in (position, generator, momentum, average, one_bit):
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
    schedule = replace(COSINE, epochs=2, ema=0.8)
    straight, course = fit_student(tmp_path / "straight.pt", accelerator, schedule=schedule)
    monkeypatch.setattr(trainer, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(trainer, "_LEAST_RATIO", 0.0)
    path = tmp_path / "cut.pt"
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            fit_student(path, accelerator, schedule=schedule, watcher=CutAtTheSecondStep())
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
    monkeypatch.setattr(trainer, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(trainer, "_LEAST_RATIO", 0.0)
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
    assert curves(tmp_path) == curves(tmp_path / "straight")
    assert [step for step, _ in curves(tmp_path)["picture"]] == [0, 1, 2, 3, 4]
    assert [step for step, _ in curves(tmp_path)["loss/total"]] == [1, 2, 3, 4]
    rows = [line.split(",")[:5] for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    other = (tmp_path / "straight" / "metrics.csv").read_text().splitlines()
    assert rows == [line.split(",")[:5] for line in other]
    assert [row[1] for row in rows] == ["epoch", "1", "2", "3", "4"]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "events" / "stage"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if not tag.startswith("seconds/")
    }


class Tiny(nn.Module):
    """A linear classifier of an image's mean colour, with a dead weight."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, CLASSES)

    def forward(self, images: Tensor) -> NetOutput:
        return NetOutput(self.classifier(images.mean(dim=(2, 3))), [images])


PLAIN = replace(COSINE, shape="constant", warmup_epochs=0)


def fit_tiny(
    path: Path,
    accelerator: Accelerator,
    *,
    scores: list[Scores] | None = None,
    schedule: Schedule = PLAIN,
    watcher: Watcher | None = None,
    objective: Objective | None = None,
    loader: TrainLoader | None = None,
    stop: Callable[[int, Scores], bool] | None = None,
    keep: str = "best",
) -> tuple[Tiny, Fitted]:
    torch.manual_seed(3)
    network = Tiny()
    script = iter(scores or [GOOD] * schedule.epochs)
    fitted = fit(
        network,
        objective or CrossEntropy(),
        loader or batches(),
        groups=parameter_groups(network.named_parameters(), schedule),
        schedule=schedule,
        accelerator=accelerator,
        validate=lambda _: next(script),
        keep="best" if keep == "best" else "last",
        state_path=path,
        watcher=watcher or Log(),
        stop=stop,
    )
    return network, fitted


def is_state(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_best_and_last(tmp_path: Path, accelerator: Accelerator) -> None:
    scores = [Scores(10, 0, 1), Scores(60, 0, 1), Scores(60, 0, 2), Scores(30, 0, 1)]
    log = Log()
    network, fitted = fit_tiny(
        tmp_path / "best.pt", accelerator, scores=scores, watcher=log
    )  # fmt: skip
    assert [is_state(network, state) for state in log.weights] == [False, True, False, False]
    assert fitted.best == scores[1]
    log = Log()
    network, fitted = fit_tiny(
        tmp_path / "last.pt", accelerator, scores=scores, watcher=log, keep="last"
    )
    assert [is_state(network, state) for state in log.weights] == [False, False, False, True]
    assert fitted.best == scores[3]


def test_at_the_same_accuracy_the_lower_loss_is_best(
    tmp_path: Path, accelerator: Accelerator
) -> None:
    scores = [Scores(60, 0, 1.0), Scores(60, 0, 0.5), Scores(60, 0, 0.5), Scores(60, 0, 0.7)]
    log = Log()
    network, _ = fit_tiny(tmp_path / "state.pt", accelerator, scores=scores, watcher=log)
    assert [is_state(network, state) for state in log.weights] == [False, True, False, False]


def test_moving_average_by_hand(tmp_path: Path, accelerator: Accelerator) -> None:
    """One step: 0.75 of the start and 0.25 of the trained weights; validated and kept is that."""
    torch.manual_seed(3)
    start = Tiny().state_dict()
    log = Log()
    network, _ = fit_tiny(
        tmp_path / "state.pt",
        accelerator,
        schedule=replace(PLAIN, epochs=1, ema=0.75),
        loader=batches(8, 8),
        watcher=log,
    )
    trained = read_state(tmp_path / "state.pt")["network"]
    for name, tensor in network.state_dict().items():
        by_hand = 0.75 * start[name] + 0.25 * trained[name]
        assert not torch.equal(start[name], trained[name])
        torch.testing.assert_close(tensor, by_hand, rtol=0, atol=1e-7)
        # what a watcher sees is what is judged and kept
        assert torch.equal(log.weights[0][name], tensor)


def test_stopped_and_gone_on_is_as_never_stopped(tmp_path: Path, accelerator: Accelerator) -> None:
    path, asked = tmp_path / "state.pt", []

    def stop(epoch: int, best: Scores) -> bool:
        asked.append((epoch, best.accuracy))
        return epoch == 2

    scores = [Scores(40, 0, 1), Scores(30, 0, 1), Scores(99, 0, 1), Scores(98, 0, 1)]
    network, fitted = fit_tiny(path, accelerator, scores=scores, stop=stop)
    assert len(fitted.history) == 2
    assert asked == [(1, 40), (2, 40)]  # judged by the best so far
    log = Log()
    again, resumed = fit_tiny(path, accelerator, stop=stop, watcher=log)
    assert log.rows == []
    assert resumed.best == fitted.best
    assert same(again, network)
    ended, whole = fit_tiny(path, accelerator, scores=scores[2:])
    assert whole.best == Scores(99, 0, 1)
    straight, _ = fit_tiny(tmp_path / "other.pt", accelerator, scores=scores)
    assert same(ended, straight)


def test_history_rows(tmp_path: Path, accelerator: Accelerator) -> None:
    """The mean of each term over the epoch; the loss is their sum."""
    values = iter([1.0, 2.0, 3.0, 4.0, 5.0, 9.0])

    def objective(network: nn.Module, images: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        zero = 0 * network(images).logits.sum()
        return zero + next(values), zero + 0.5

    objective.terms = ("first", "second")  # type: ignore[attr-defined]
    _, fitted = fit_tiny(
        tmp_path / "state.pt",
        accelerator,
        objective=objective,  # type: ignore[arg-type]
        schedule=replace(PLAIN, epochs=2),
    )
    assert [row["first"] for row in fitted.history] == [2.0, 6.0]
    assert [row["second"] for row in fitted.history] == [0.5, 0.5]
    assert [row["loss"] for row in fitted.history] == [2.5, 6.5]
    assert [row["val_accuracy"] for row in fitted.history] == [50.0, 50.0]
    assert fitted.seconds == sum(row["seconds"] for row in fitted.history) > 0
    assert fitted.total_seconds >= fitted.seconds


def test_the_learning_rate_goes_on_over_the_epochs(
    tmp_path: Path, accelerator: Accelerator
) -> None:
    """A drop to a tenth after two epochs; a constant rate beside it does not drop."""
    schedule = replace(PLAIN, shape="step", step_epochs=2)
    _, fitted = fit_tiny(tmp_path / "step.pt", accelerator, schedule=schedule)
    assert [row["lr"] for row in fitted.history] == pytest.approx([0.05, 0.05, 0.005, 0.005])
    _, fitted = fit_tiny(tmp_path / "constant.pt", accelerator)
    assert [row["lr"] for row in fitted.history] == pytest.approx([0.05] * 4)


class Spoilt:
    """Cross-entropy, and a second term that breaks at one step of one epoch."""

    terms = ("cross_entropy", "mimicry")

    def __init__(self, at: int, value: float) -> None:
        self.at, self.value, self.calls = at, value, 0

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        (plain,) = CrossEntropy()(network, images, labels)
        factor = self.value if self.calls == self.at else 0.1
        return plain, plain.detach() * factor


@pytest.mark.usefixtures("_saved_every_epoch")
@pytest.mark.parametrize(
    ("steps", "at", "value", "words"),
    [
        # 3 steps an epoch: call 5 is epoch 2, step 2
        (3, 5, float("nan"), "'mimicry' became nan at epoch 2, step 2;"),
        (3, 6, float("inf"), "'mimicry' became inf at epoch 2, step 3;"),
        # looked at every 32 steps: step 34 of 35 is in the second look of its epoch
        (35, 35 + 34, float("nan"), "'mimicry' became nan at epoch 2, step 34;"),
    ],
)
def test_not_finite(
    tmp_path: Path,
    accelerator: Accelerator,
    steps: int,
    at: int,
    value: float,
    words: str,
) -> None:
    """Names term, epoch and step; the state of epoch 1 stays on disk and can be gone on from."""
    path = tmp_path / "state.pt"
    kept: dict[int, bytes] = {}
    log = Log(look=lambda epoch: kept.update({epoch: path.read_bytes()}))
    loader = batches(2 * steps, 2)
    assert loader.steps_per_epoch == steps
    with pytest.raises(NotFiniteError) as caught:
        fit_tiny(path, accelerator, objective=Spoilt(at, value), loader=loader, watcher=log)
    assert words in str(caught.value)
    assert "lower learning rate" in str(caught.value)
    assert set(kept) == {1}
    assert path.read_bytes() == kept[1]
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
    _, fitted = fit_tiny(path, accelerator, objective=Spoilt(-1, 0.0), loader=loader)
    assert len(fitted.history) == 4


def test_a_learning_rate_that_explodes_is_told(tmp_path: Path, accelerator: Accelerator) -> None:
    with pytest.raises(NotFiniteError, match="'cross_entropy' became nan at epoch 1"):
        fit_tiny(
            tmp_path / "state.pt", accelerator, schedule=replace(PLAIN, lr=1e30), loader=batches(64)
        )
    assert not (tmp_path / "state.pt").exists()


def test_label_smoothing_by_hand() -> None:
    """ε = 0.2 of the target is spread over both classes: 0.9 and 0.1. p = (3/4, 1/4)."""

    class Fixed(nn.Module):
        def forward(self, images: Tensor) -> NetOutput:
            return NetOutput(torch.tensor([[log(3.0), 0.0]]), [images])

    images, labels = torch.zeros(1, 3, 2, 2), torch.tensor([0])
    (plain,) = CrossEntropy()(Fixed(), images, labels)
    (smooth,) = CrossEntropy(0.2)(Fixed(), images, labels)
    assert plain.item() == pytest.approx(log(4 / 3))
    assert smooth.item() == pytest.approx(0.9 * log(4 / 3) + 0.1 * log(4))


def test_label_smoothing_of_the_student_is_the_teachers() -> None:
    student, objective = student_and_objective(1)
    student.eval()
    images, labels = next(batches().epoch(1))
    smooth = objective(student, images, labels)[0]
    (expected,) = CrossEntropy(0.1)(student, images, labels)
    (plain,) = CrossEntropy()(student, images, labels)
    assert smooth.item() == pytest.approx(expected.item())
    assert abs(smooth.item() - plain.item()) > 1e-4


def test_biases_norms_and_path_weights_are_not_decayed() -> None:
    """A step at a gradient of zero shrinks what is decayed by 1 - lr · decay and nothing else."""
    student, _ = student_and_objective(1)
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    schedule = replace(PLAIN, optimizer="momentum", lr=0.5, weight_decay=0.1)
    groups = parameter_groups(student.named_parameters(), schedule)
    listed = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(n for n, p in student.named_parameters() if p.requires_grad)
    decayed = {names[id(parameter)] for parameter in groups[0]["params"]}
    convolutions = {
        f"proxies.{name}.weight"
        for name, module in student.proxies.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    assert decayed == convolutions | {"heads.head-4-5.classifier.1.weight"}
    assert len(convolutions) >= len(student.proxies)

    optimizer = make_optimizer(groups, schedule)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    for parameter in student.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    for name, parameter in student.named_parameters():
        factor = 1 - 0.5 * 0.1 if name in decayed else 1
        torch.testing.assert_close(parameter.detach(), factor * before[name])


def rates(schedule: Schedule, steps: int) -> list[list[float]]:
    """The learning rate of both groups before each step."""
    groups = [
        {"params": [nn.Parameter(torch.zeros(2, 2))]},
        {"params": [nn.Parameter(torch.zeros(1))], "lr": 2 * schedule.lr},
    ]
    optimizer = make_optimizer(groups, schedule)
    scheduler = make_scheduler(optimizer, schedule, steps)
    seen = []
    for step in range(schedule.epochs * steps):
        scheduler.step_update(step)
        seen.append([group["lr"] for group in optimizer.param_groups])
    return seen


def test_learning_rates_by_hand() -> None:
    """4 epochs of 3 steps; every group keeps its own highest rate."""
    cosine = [0.05 * 0.5 * (1 + cos(pi * step / 12)) for step in range(12)]
    found = rates(replace(COSINE, warmup_epochs=0), 3)
    assert [row[0] for row in found] == pytest.approx(cosine)
    assert [row[1] for row in found] == pytest.approx([2 * rate for rate in cosine])

    drops = [0.05] * 6 + [0.005] * 6
    found = rates(replace(COSINE, shape="step", warmup_epochs=0), 3)
    assert [row[0] for row in found] == pytest.approx(drops)

    found = rates(replace(COSINE, shape="constant", warmup_epochs=0), 3)
    assert [row[0] for row in found] == pytest.approx([0.05] * 12)

    # warm-up climbs in equal parts from a hundredth of the rate, then joins the cosine
    found = rates(COSINE, 3)
    climb = [0.0005 + step * (0.05 - 0.0005) / 3 for step in range(3)]
    assert [row[0] for row in found] == pytest.approx(climb + cosine[3:])
