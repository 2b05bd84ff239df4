"""Measurements that are interrupted go on with the rounds that are left."""

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from conftest import lively_chain
from torch import Tensor, nn

from nettailor.core.kept_rounds import KeptRounds
from nettailor.core.latency import share_of_time, time_in_turn
from nettailor.prune.fold import fold
from nettailor.student.network import Student
from nettailor.student.wiring import Path as Way
from nettailor.student.wiring import Wiring

CPU = torch.device("cpu")
WARM_UP, LEAST = 3, 5


class Counted(nn.Module):
    """A layer that counts its turns, of some passes each, and is interrupted in one of them."""

    turns = 0

    def __init__(self, before: nn.Module, stop: int | None = None) -> None:
        """before: whose passes come between the turns."""
        super().__init__()
        self._stop, self._new = stop, False
        before.register_forward_hook(self._begin)

    def _begin(self, *_: object) -> None:
        self._new = True

    def forward(self, x: Tensor) -> Tensor:
        self.turns += self._new
        self._new = False
        if self.turns == self._stop:
            raise KeyboardInterrupt
        return x


def two_layers(stop: int | None = None) -> dict[str, nn.Module]:
    one = nn.Conv2d(1, 1, 3)
    return {"one": one, "two": Counted(one, stop)}


def measured(
    folder: Path, stop: int | None = None, *, seconds: float = 0.0, side: int = 4, **how: Any
) -> tuple[int, dict[str, list[float]]]:
    """How often it was the second layer's turn, and the times of both."""
    modules = two_layers(stop)
    inputs = dict.fromkeys(modules, torch.zeros(2, 1, side, side))
    times: dict[str, list[float]] = {}
    try:
        keep = KeptRounds(folder, **how)
        times = time_in_turn(modules, inputs, CPU, seconds=seconds, keep=keep)
    except KeyboardInterrupt:
        assert stop is not None
    return modules["two"].turns, times


def test_an_interrupted_measurement_goes_on(tmp_path):
    # in the third round that counts: two are whole
    assert measured(tmp_path, WARM_UP + 3)[0] == WARM_UP + 3
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text(encoding="utf-8"))["ms"]
    assert {name: len(rounds) for name, rounds in kept.items()} == {"one": 2, "two": 2}
    turns, times = measured(tmp_path)
    assert turns == WARM_UP + LEAST - 2
    assert {name: rounds[:2] for name, rounds in times.items()} == kept
    assert {len(rounds) for rounds in times.values()} == {LEAST}
    # all are there now
    assert measured(tmp_path) == (0, times)


def test_in_the_warm_up_there_is_nothing_to_keep(tmp_path):
    measured(tmp_path, WARM_UP)
    assert list(tmp_path.iterdir()) == []


def test_seconds_count_over_all_sessions(tmp_path):
    measured(tmp_path)
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | {"seconds": 1000.0}), encoding="utf-8")
    assert measured(tmp_path, seconds=999)[0] == 0
    file.write_text(json.dumps(content | {"seconds": 998.9}), encoding="utf-8")
    turns, times = measured(tmp_path, seconds=999)
    assert turns > WARM_UP
    assert len(times["one"]) == LEAST + turns - WARM_UP


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"seconds": 1, "ms": {"one": [1], "two": []}}'])
def test_a_damaged_file_does_not_count(tmp_path, text):
    measured(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(text, encoding="utf-8")
    assert measured(tmp_path)[0] == WARM_UP + LEAST
    assert measured(tmp_path)[0] == 0


def test_what_is_measured_otherwise_is_measured_anew(tmp_path, monkeypatch):
    measured(tmp_path)
    assert measured(tmp_path, side=5)[0] == WARM_UP + LEAST
    assert measured(tmp_path, fresh=True)[0] == WARM_UP + LEAST
    assert measured(tmp_path)[0] == 0
    monkeypatch.setattr("platform.node", lambda: "another machine")
    assert measured(tmp_path)[0] == WARM_UP + LEAST


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_it_is_told_how_far_it_is(seconds):
    modules = two_layers()
    inputs = dict.fromkeys(modules, torch.zeros(2, 1, 4, 4))
    told: list[tuple[int, int]] = []
    times = time_in_turn(
        modules, inputs, CPU, seconds=seconds, tell=lambda *counts: told.append(counts)
    )
    passes = 2 * (WARM_UP + len(times["one"]))
    assert [done for done, _ in told] == list(range(1, passes + 1))
    assert all(done <= of for done, of in told)
    if not seconds:
        assert {of for _, of in told} == {2 * (WARM_UP + LEAST)}


def test_what_a_network_takes_is_kept_by_its_paths(tmp_path):
    """Students of the same modules and other paths are other networks."""
    chain = lively_chain("test_resnet")
    alone = [Way(0, 1, "block"), Way(1, 5, "exit")]
    beside = [*alone, Way(0, 1, "identity")]

    def timed(paths: list[Way]) -> int:
        """How many rounds it took to time a student of these paths."""
        student, told = Student(chain, wiring=Wiring(5, tuple(paths))).eval(), []
        keep = KeptRounds(tmp_path)
        share = share_of_time(
            fold(student), fold(chain), 32, CPU, batch=1, seconds=0.0, keep=keep,
            tell=lambda *counts: told.append(counts),
        )  # fmt: skip
        assert share > 0
        return len(told) // 2

    assert timed(alone) == WARM_UP + LEAST
    assert timed(beside) == WARM_UP + LEAST
    assert timed(alone) == timed(beside) == 0


class Slow(nn.Module):
    """Takes a millisecond in the first pass of each turn, or 10 ms in all."""

    def __init__(self, before: nn.Module, *, always: bool) -> None:
        super().__init__()
        self.always, self._new, self.passes = always, False, list[int]()
        before.register_forward_hook(self._begin)

    def _begin(self, *_: object) -> None:
        if not self._new:
            self.passes.append(0)
        self._new = True

    def forward(self, x: Tensor) -> Tensor:
        self.passes[-1] += 1
        if self._new or self.always:
            time.sleep(0.01 if self.always else 0.001)
        self._new = False
        return x


@pytest.mark.parametrize("always", [False, True])
def test_a_short_module_is_timed_once_the_caches_are_its_own(always):
    """The first of its passes finds in them what the module before has left; a long one is one."""
    one = nn.Conv2d(1, 1, 3)
    two = Slow(one, always=always)
    inputs = dict.fromkeys(("one", "two"), torch.zeros(2, 1, 4, 4))
    times = time_in_turn({"one": one, "two": two}, inputs, CPU, seconds=0.0)["two"]
    if always:
        assert min(times) >= 10
        assert set(two.passes) == {1}
    else:
        assert median(times) < 1
        assert max(two.passes) == 10
