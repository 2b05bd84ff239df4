"""Measurements that are interrupted go on with the rounds that are left."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import lively_chain
from torch import Tensor, nn

from nettailor.core.kept_rounds import KeptRounds
from nettailor.core.latency import share_of_time, time_in_turn
from nettailor.student.network import Student
from nettailor.student.wiring import Path as Way
from nettailor.student.wiring import Wiring

CPU = torch.device("cpu")
WARM_UP, LEAST = 3, 5


class Counted(nn.Module):
    """A layer that counts its passes, and is interrupted in one of them."""

    passes = 0

    def __init__(self, stop: int | None = None) -> None:
        super().__init__()
        self._stop = stop

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == self._stop:
            raise KeyboardInterrupt
        return x


def measured(
    folder: Path, stop: int | None = None, *, seconds: float = 0.0, side: int = 4, **how: Any
) -> tuple[int, dict[str, list[float]]]:
    """How often the second of two layers was passed, and the times of both."""
    modules = {"one": nn.Conv2d(1, 1, 3), "two": Counted(stop)}
    inputs = dict.fromkeys(modules, torch.zeros(2, 1, side, side))
    times: dict[str, list[float]] = {}
    try:
        keep = KeptRounds(folder, **how)
        times = time_in_turn(modules, inputs, CPU, seconds=seconds, keep=keep)
    except KeyboardInterrupt:
        assert stop is not None
    return modules["two"].passes, times


def test_an_interrupted_measurement_goes_on(tmp_path):
    # in the third round that counts: two are whole
    assert measured(tmp_path, WARM_UP + 3)[0] == WARM_UP + 3
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text(encoding="utf-8"))["ms"]
    assert {name: len(rounds) for name, rounds in kept.items()} == {"one": 2, "two": 2}
    passes, times = measured(tmp_path)
    assert passes == WARM_UP + LEAST - 2
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
    passes, times = measured(tmp_path, seconds=999)
    assert passes > WARM_UP
    assert len(times["one"]) == LEAST + passes - WARM_UP


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
    modules = {"one": nn.Conv2d(1, 1, 3), "two": Counted()}
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
    passes = []

    def timed(paths):
        """How many passes it took to time a student of these paths."""
        student = Student(chain, wiring=Wiring(5, tuple(paths))).eval()
        student.stem.register_forward_hook(lambda *_: passes.append(paths))
        before = len(passes)
        keep = KeptRounds(tmp_path)
        assert share_of_time(student, chain, 32, CPU, batch=1, seconds=0.0, keep=keep) > 0
        return len(passes) - before

    assert timed(alone) == WARM_UP + LEAST
    assert timed(beside) == WARM_UP + LEAST
    assert timed(alone) == timed(beside) == 0
