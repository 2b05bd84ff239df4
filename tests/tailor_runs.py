"""Small tailored runs of one teacher: real commands on real images, in a second or two each."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from nettailor import stage, tailoring
from nettailor.cli import tailor
from nettailor.core.backbone import create_backbone
from nettailor.core.cost import module_flops, parameters
from nettailor.core.flags import run_command
from nettailor.network import load_network
from nettailor.prune.routes import Routes
from nettailor.student.costs import shares_of
from nettailor.student.network import Student

NAME = "test_resnet-32px"
SMALL = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "1",
    "--limit.train", "120", "--limit.test", "40", "--device", "cpu", "--workers", "0",
]  # fmt: skip


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    """Of every file but measured times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "times")
    return {str(path): path.read_bytes() for path in files}


def routes_by(unit: Any) -> Routes:
    """Of the student that the commands grow, whose paths are worth nothing."""
    chain = create_backbone("test_resnet", 10)
    student = Student(chain)
    shares = shares_of(student, chain, 32, unit)
    return Routes(student.wiring, [0.0] * len(shares.paths), shares.paths, fixed=shares.fixed)


class Runs:
    """A folder of runs with a teacher, and the command that tailors.

    Attributes:
        out: the folder.
    """

    def __init__(
        self,
        taught: Path,
        out: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.out, self._patch, self._capsys = out, monkeypatch, capsys
        shutil.copytree(taught, out)
        monkeypatch.setattr(tailoring, "StudentPictures", lambda *_: None)

    @property
    def teacher(self) -> Path:
        return self.out / "digits" / "teacher" / f"{NAME}-seed0"

    def start(self, *flags: str) -> None:
        tailor.main([*SMALL, *flags, "--out", str(self.out)])

    def tailored(self, *flags: str) -> Path:
        """The one run that a command leaves."""
        self.start(*flags)
        return self.only()

    def only(self) -> Path:
        (folder,) = (self.out / "digits" / "tailored").iterdir()
        return folder

    def refused(self, *flags: str) -> str:
        """The one line of a refusal, before anything is trained or written but measured times."""

        def trained(*_: object, **__: object) -> None:
            raise AssertionError("something was trained")

        before = contents(self.out)
        with self._patch.context() as patch:
            patch.setattr(stage, "fit", trained)
            patch.setattr("sys.argv", ["tailor", *SMALL, *flags, "--out", str(self.out)])
            with pytest.raises(SystemExit) as left:
                run_command(tailor.main)
        err = self._capsys.readouterr().err
        assert left.value.code == 2, err
        assert contents(self.out) == before
        assert re.fullmatch(r"error: [^\n]+\n", err), err
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
