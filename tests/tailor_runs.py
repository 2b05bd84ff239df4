"""Small tailored runs of one teacher: real commands on real images, in a second or two each."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from shell import Shell, contents

from nettailor import stage, tailoring
from nettailor.cli import tailor
from nettailor.core.backbone import create_backbone
from nettailor.core.console import Screen
from nettailor.core.cost import module_flops, parameters
from nettailor.core.flags import parse
from nettailor.core.latency import measure_latency, share_of_time
from nettailor.front import Front, read_front
from nettailor.network import load_network
from nettailor.prune.layer_times import measure_times
from nettailor.prune.routes import Routes
from nettailor.session import Session, start_session
from nettailor.student.costs import shares_of
from nettailor.student.latency_table import measure_paths
from nettailor.student.network import Student
from nettailor.student.wiring import Wiring
from nettailor.tailoring import wiring_of

NAME = "test_resnet-32px"
SMALL = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "1",
    "--limit.train", "120", "--limit.test", "40", "--device", "cpu", "--workers", "0",
    "--levers", "[blocks]",
]  # fmt: skip
# a teacher that learns its task, so that students of few epochs are told apart from it
LEARNT = [
    *SMALL, "--limit.train", "300", "--limit.test", "100", "--teacher.epochs", "6",
    "--teacher.lr", "0.02", "--prune.threshold", "0",
]  # fmt: skip
# the paper's method; `tailor` does better without any flag
PUBLISHED = (
    "--prune.by", "rank", "--prune.finetune", "task", "--skips", "3", "--identities", "false",
    "--exits", "false", "--student.distill", "0",
    "--batch-norm", "follow", "--adapters", "false",
)  # fmt: skip
# as published; out of reach, so that both depths are tried
RANK = [*PUBLISHED, "--prune.remove", "[3, 1]", "--prune.tolerance", "0"]
# everything may go, and the leanest size is within reach
ROUTE = [
    "--gamma", "100", "--prune.tolerance", "100", "--student.epochs", "4", "--prune.epochs", "2",
]  # fmt: skip
SHARED = ["--prune.finetune", "task", "--max-flops", "0.58", "--student.epochs", "4"]


def quick_latency(patch: pytest.MonkeyPatch, seconds: float = 0.05) -> None:
    """Latency is measured for real, but not for the seconds that a figure worth quoting takes."""
    for measure in (measure_latency, share_of_time, measure_paths, measure_times):
        patch.setitem(measure.__kwdefaults__, "seconds", seconds)
    patch.setattr("nettailor.commands.export._SECONDS", seconds / 5)


def quickly(patch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn either, which takes most of a small run's time and changes no weight."""
    quick_latency(patch)
    patch.setattr(tailoring, "StudentPictures", lambda *_: None)


def no_training(*_: object, **__: object) -> None:
    raise AssertionError("something was trained")


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def summary_of(folder: Path) -> Any:
    return read(folder / "summary.json")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def teacher_of(out: Path) -> Path:
    return out / "digits" / "teacher" / f"{NAME}-seed0"


def by_rank(out: Path) -> Path:
    return out / "digits" / "tailored" / f"{NAME}-task-rank-gamma0.3-seed0"


def by_route(out: Path) -> Path:
    return out / "digits" / "tailored" / f"{NAME}-all-blocks-gamma100-seed0"


def with_shared_blocks(out: Path) -> Path:
    return out / "digits" / "tailored" / f"{NAME}-task-blocks-gamma0.3-flops0.58-seed0"


def session_of(*flags: str) -> Session:
    return start_session(parse("test", "", [*LEARNT, *flags])[0], Screen())


def wiring() -> Wiring:
    """What there is of a student by route before anything is taken out."""
    return wiring_of(parse("test", "", [*LEARNT, *ROUTE])[0], classes=10)


def front_of(folder: Path) -> Front:
    """Of a run by route."""
    return read_front(folder, wiring())


def files_in(out: Path) -> dict[str, tuple[int, bytes]]:
    """Times and contents."""
    return {name: ((out / name).stat().st_mtime_ns, held) for name, held in contents(out).items()}


def routes_by(unit: Any) -> Routes:
    """Of the student that the commands grow, whose paths are worth what they cost."""
    chain = create_backbone("test_resnet", 10)
    student = Student(chain)
    shares = shares_of(student, chain, 32, unit)
    return Routes(student.wiring, shares.paths, shares.paths, fixed=shares.fixed)


class Runs(Shell):
    """A folder of runs with a teacher, and the command that tailors."""

    def __init__(
        self,
        taught: Path,
        out: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        super().__init__(out, monkeypatch, capsys)
        shutil.copytree(taught, out)

    @property
    def teacher(self) -> Path:
        return teacher_of(self.out)

    def tailored(self, *flags: str) -> Path:
        """The one run that a command leaves."""
        tailor.main([*SMALL, *flags, "--out", str(self.out)])
        return self.only()

    def only(self) -> Path:
        (folder,) = (self.out / "digits" / "tailored").iterdir()
        return folder

    def refused(self, *flags: str) -> str:
        """The one line of a refusal, before anything is trained or written but measured times."""
        before = contents(self.out).keys()
        with self._monkeypatch.context() as patch:
            patch.setattr(stage, "fit", no_training)
            err = self.refusal(*SMALL, *flags, main=tailor.main)
        new = contents(self.out).keys() - before
        assert {Path(name).parent.name for name in new} <= {"times"}
        return err

    def student(self, folder: Path) -> Student:
        """The network of a run."""
        network, _ = load_network(folder)
        assert isinstance(network, Student)
        return network

    def share_of(self, network: Student, unit: str) -> float:
        """What a route costs over its teacher."""
        whole, _ = load_network(self.teacher)
        if unit == "flops":
            return module_flops(network, (3, 32, 32)) / module_flops(whole, (3, 32, 32))
        # a route's path weights are no part of what it computes
        return (parameters(network) - len(network.wiring.paths)) / parameters(whole)
