"""A teacher and networks tailored from it, made once for several test files."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import PUBLISHED, quick_latency

from nettailor import tailoring
from nettailor.cli import tailor, teach
from nettailor.core.console import Screen
from nettailor.core.flags import parse, run_command
from nettailor.front import Front, read_front
from nettailor.session import Session, start_session
from nettailor.student.wiring import Wiring
from nettailor.tailoring import wiring_of

NAME = "test_resnet-32px"
# a teacher that learns its task, so that students of few epochs are told apart from it
SMALL = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "1",
    "--limit.train", "300", "--limit.test", "100", "--device", "cpu", "--workers", "0",
    "--teacher.epochs", "6", "--teacher.lr", "0.1", "--prune.threshold", "0",
]  # fmt: skip
# as published; out of reach, so that both depths are tried
RANK = [*PUBLISHED, "--prune.remove", "[3, 1]", "--prune.tolerance", "0"]
# everything may go, and the leanest size is within reach
ROUTE = [
    "--gamma", "100", "--prune.tolerance", "100", "--student.epochs", "4", "--prune.epochs", "2",
]  # fmt: skip
SHARED = ["--prune.finetune", "task", "--max-flops", "0.58", "--student.epochs", "4"]


_made: list[Path] = []


def tailored_once(factory: pytest.TempPathFactory) -> Path:
    """By rank, by route, and by route to a budget with shared blocks; nobody may change them."""
    if _made:
        return _made[0]
    folder = factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        quick_latency(patch)
        teach.main([*SMALL, "--out", str(folder)])
        tailor.main([*SMALL, *RANK, "--out", str(folder)])
        tailor.main([*SMALL, *ROUTE, "--out", str(folder)])
        # drawing takes most of a small run's time and changes no weight
        patch.setattr(tailoring, "StudentPictures", lambda *_: None)
        tailor.main([*SMALL, *SHARED, "--out", str(folder)])
    _made.append(folder)
    return folder


def teacher_of(out: Path) -> Path:
    return out / "digits" / "teacher" / f"{NAME}-seed0"


def by_rank(out: Path) -> Path:
    return out / "digits" / "tailored" / f"{NAME}-task-rank-gamma0.3-seed0"


def by_route(out: Path) -> Path:
    return out / "digits" / "tailored" / f"{NAME}-all-gamma100-seed0"


def with_shared_blocks(out: Path) -> Path:
    return out / "digits" / "tailored" / f"{NAME}-task-gamma0.3-flops0.58-seed0"


def summary_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return content


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def session_of(*flags: str) -> Session:
    config, _ = parse("test", "", [*SMALL, *flags])
    return start_session(config, Screen())


def wiring() -> Wiring:
    """What there is of a student by route before anything is taken out."""
    config, _ = parse("test", "", [*SMALL, *ROUTE])
    return wiring_of(config, classes=10)


def front_of(folder: Path) -> Front:
    """Of a run by route."""
    return read_front(folder, wiring())


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line with which `tailor` ends, as a shell would see it."""
    monkeypatch.setattr("sys.argv", ["tailor", *argv])
    with pytest.raises(SystemExit) as left:
        run_command(tailor.main)
    shown = capsys.readouterr().err
    assert left.value.code == 2, shown
    assert re.fullmatch(r"error: [^\n]+\n", shown), shown
    return shown


def files_in(out: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(out)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }
