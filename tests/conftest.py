"""What several test files share: one small real network, one accelerator and one shell."""

import gc
import os
import subprocess
import sys

# A test process a core: with more threads each they would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from kills import Warm
from networks import enliven as enliven
from networks import lively_chain as lively_chain
from predicting import five_photos, random_run
from shell import Shell
from tailor_runs import (
    LEARNT,
    RANK,
    ROUTE,
    SHARED,
    SMALL,
    Runs,
    quick_latency,
    quickly,
)
from tailor_runs import PUBLISHED as PUBLISHED
from tailor_runs import no_training as no_training

from nettailor import finetune
from nettailor.cli import tailor, teach
from nettailor.core import training_state
from nettailor.core.device import start_accelerator
from nettailor.core.latency import measure_latency
from nettailor.core.trainer import fit
from nettailor.core.training_state import Fitted
from nettailor.front import SIZES_FOLDER, Front, read_front
from nettailor.network import load_network
from nettailor.student.network import Student
from nettailor.student.wiring import Wiring, full_wiring


def pytest_collection_finish() -> None:
    """What is imported by now stays: each training collects garbage, and would look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def accelerator() -> Accelerator:
    """The CPU in float32."""
    return start_accelerator("cpu", "float32")


@pytest.fixture(autouse=True)
def _no_long_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency is measured but briefly, everywhere."""
    quick_latency(monkeypatch)


@pytest.fixture
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency is measured but briefly, and nothing is drawn."""
    quickly(monkeypatch)


@pytest.fixture(scope="session")
def warm() -> Warm:
    return Warm()


@pytest.fixture
def _saved_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is saved at the end of each epoch, however short."""
    monkeypatch.setattr(
        training_state.TrainingState, "due", property(lambda stage: not stage.course)
    )


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """A shell with a folder of runs of its own, in which latency is measured but briefly."""
    monkeypatch.setattr(
        finetune, "measure_latency", partial(measure_latency, seconds=0, batches=(1,))
    )
    return Shell(tmp_path / "runs", monkeypatch, capsys)


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a small teacher."""
    out = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch:
        quick_latency(patch)
        teach.main([*SMALL, "--out", str(out)])
    return out


@pytest.fixture
def runs(
    taught: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Runs:
    """A copy of it in which latency is measured but briefly."""
    quickly(monkeypatch)
    return Runs(taught, tmp_path / "runs", monkeypatch, capsys)


@pytest.fixture(scope="session")
def tailored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs by rank, by route, and by route to a budget with shared blocks; not to be changed."""
    folder = tmp_path_factory.mktemp("tailored")
    with pytest.MonkeyPatch.context() as patch:
        quick_latency(patch)
        teach.main([*LEARNT, "--out", str(folder)])
        tailor.main([*LEARNT, *ROUTE, "--out", str(folder)])
        quickly(patch)
        for flags in (RANK, SHARED):
            tailor.main([*LEARNT, *flags, "--out", str(folder)])
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that predicts, of random weights; not to be changed."""
    return random_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images of which two lie deeper."""
    return five_photos(tmp_path / "photos")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def front_in(folder: Path) -> Front:
    """The front of a tailored run, held against the networks of its points."""
    wirings: dict[str, Wiring] = {}
    for size in (folder / SIZES_FOLDER).iterdir():
        network, _ = load_network(size)
        assert isinstance(network, Student)
        wirings[size.name] = network.wiring
    blocks = next(iter(wirings.values())).depth - 1
    nodes = range(1, blocks + 1)
    front = read_front(folder, full_wiring(blocks, 0, identities=nodes, exits=nodes))
    paths = {name: wiring.paths for name, wiring in wirings.items()}
    assert {point.name: point.paths for point in front.points} == paths
    return front


def interrupted_after_one_epoch(*arguments: Any, **settings: Any) -> Fitted:
    """`fit`, but somebody presses Ctrl-C once an epoch is done."""
    watcher = settings["watcher"]
    told = watcher.epoch

    def tell(row: Any, network: Any) -> None:
        told(row, network)
        raise KeyboardInterrupt

    watcher.epoch = tell
    return fit(*arguments, **settings)


def started(program: str, *words: str) -> "subprocess.Popen[str]":
    """A process of a program that says `up` and begins when it is told to."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def release(*processes: "subprocess.Popen[str]") -> None:
    """Wait until all are up, then let them start at once."""
    for one in processes:
        assert one.stdout is not None
        assert one.stdout.readline() == "up\n"
    for one in processes:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
