"""Small searches: the command in this process and in another one, and what it leaves."""

import csv
import subprocess
from pathlib import Path

import optuna
import pytest
from conftest import started
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from nettailor import search_space
from nettailor.commands.search import Search
from nettailor.core import run_lock
from nettailor.core.architecture import SearchedStructure
from nettailor.core.config import RunConfig
from nettailor.core.console import Screen
from nettailor.core.flags import parse
from nettailor.core.latency import measure_latency
from nettailor.session import start_session

NAME = "test_resnet-32px"
SMALL = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "4",
    "--limit.train", "100", "--limit.test", "50", "--device", "cpu", "--workers", "0",
    "--batch-size", "16", "--trials", "5",
]  # fmt: skip
# says that it is up, and starts when it is told to
PROCESS = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pytest
import search_runs

search_runs.quickly(pytest.MonkeyPatch())
print("up", flush=True)
sys.stdin.readline()
search_runs.start(*sys.argv[1:])
"""


def quickly(patch: pytest.MonkeyPatch) -> None:
    """Few networks to choose from, each measured but briefly."""
    patch.setitem(measure_latency.__kwdefaults__, "seconds", 0.02)
    patch.setattr(search_space, "_RANDOM_TRIALS", 3)  # the sampler has its say in the others
    patch.setattr(search_space, "_MOST_STAGES", 2)
    patch.setattr(search_space, "_MOST_REPEATS", 1)
    patch.setattr(search_space, "_CHANNELS", (8, 16, 8))
    patch.setattr(run_lock, "_LOOK_EVERY", 0.1)


def config_of(out: Path | str, *flags: str) -> RunConfig:
    return parse("python -m nettailor.search", "", [*SMALL, "--out", str(out), *flags])[0]


def start(out: Path | str, *flags: str, overwrite: bool = False) -> Search:
    with Screen() as screen:
        begun = Search(start_session(config_of(out, *flags), screen))
        begun.run(overwrite=overwrite)
    return begun


def process(out: Path, *flags: str) -> "subprocess.Popen[str]":
    """The same in another process."""
    return started(PROCESS, str(out), *flags)


def study_folder(out: Path) -> Path:
    return out / "digits" / "search" / f"{NAME}-seed0"


def journal(out: Path) -> Path:
    return study_folder(out) / "study.journal"


def run_folder(out: Path) -> Path:
    """The only network that goes all the way: of five, two, then one."""
    (folder,) = (out / "digits" / "searched").iterdir()
    return folder


def trials(out: Path) -> list[FrozenTrial]:
    """What optuna itself finds in the journal, by number."""
    study = optuna.load_study(
        study_name="search", storage=JournalStorage(JournalFileBackend(str(journal(out))))
    )
    return sorted(study.get_trials(), key=lambda trial: int(trial.user_attrs["number"]))


def metrics(folder: Path) -> list[dict[str, str]]:
    """The epochs of a trial, clocks apart."""
    if not (folder / "metrics.csv").exists():
        return []
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


def require_proposals_follow(found: list[FrozenTrial], begun: Search) -> None:
    """Each network is the one that the values in the journal lead to."""
    tried: list[SearchedStructure] = []
    for number, trial in enumerate(found):
        made = begun._propose(number, found[:number], tried)
        assert made.params == trial.params
        assert made.structure not in tried
        tried.append(made.structure)
