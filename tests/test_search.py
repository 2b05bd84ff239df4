"""`search` whole: its trials and runs, who takes over from whom, and what it refuses."""

import csv
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from conftest import no_training, release, started
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from nettailor import search_space
from nettailor.cli import compare, export, predict, search
from nettailor.commands import search as commands
from nettailor.commands.search import Search
from nettailor.core import run_lock
from nettailor.core.architecture import SearchedStructure
from nettailor.core.backbone import Backbone
from nettailor.core.config import RunConfig
from nettailor.core.console import Screen
from nettailor.core.cost import parameters
from nettailor.core.errors import NotFiniteError, UserError
from nettailor.core.flags import parse
from nettailor.core.latency import measure_latency
from nettailor.network import load_network
from nettailor.session import start_session

NAME = "test_resnet-32px"
SMALL = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "4",
    "--limit.train", "100", "--limit.test", "50", "--device", "cpu", "--workers", "0",
    "--batch-size", "16", "--trials", "5",
]  # fmt: skip
RANDOM_TRIALS = 3  # so that the sampler has its say in the others
FIGURE_SECONDS = 0.02

# says that it is up, and starts when it is told to
PROCESS = f"""
import sys
from nettailor import search_space
from nettailor.commands import search
from nettailor.core import run_lock
from nettailor.core.console import Screen
from nettailor.core.flags import parse
from nettailor.core.latency import measure_latency
from nettailor.session import start_session

measure_latency.__kwdefaults__["seconds"] = {FIGURE_SECONDS}
search_space._RANDOM_TRIALS = {RANDOM_TRIALS}
search_space._MOST_STAGES, search_space._MOST_REPEATS = 2, 1
search_space._CHANNELS = (8, 16, 8)
run_lock._LOOK_EVERY = 0.1
config, _ = parse("python -m nettailor.search", "", sys.argv[1:])
print("up", flush=True)
sys.stdin.readline()
with Screen() as screen:
    search.Search(start_session(config, screen)).run(overwrite=False)
"""


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(measure_latency.__kwdefaults__, "seconds", FIGURE_SECONDS)
        patch.setattr(search_space, "_RANDOM_TRIALS", RANDOM_TRIALS)
        patch.setattr(search_space, "_MOST_STAGES", 2)
        patch.setattr(search_space, "_MOST_REPEATS", 1)
        patch.setattr(search_space, "_CHANNELS", (8, 16, 8))
        patch.setattr(run_lock, "_LOOK_EVERY", 0.1)
        yield


def config_of(out: Path, *flags: str) -> RunConfig:
    return parse("python -m nettailor.search", "", [*SMALL, "--out", str(out), *flags])[0]


def start(out: Path, *flags: str, overwrite: bool = False) -> Search:
    with Screen() as screen:
        started = Search(start_session(config_of(out, *flags), screen))
        started.run(overwrite=overwrite)
    return started


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves."""
    out = tmp_path_factory.mktemp("search")
    search.main([*SMALL, "--out", str(out)])
    return out


@pytest.fixture
def runs(done: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(done, tmp_path / "runs")


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


def test_five_are_tried_two_go_on_and_one_all_the_way(done: Path) -> None:
    assert [(trial.user_attrs["number"], trial.state.name) for trial in trials(done)] == [
        (number, "COMPLETE") for number in range(5)
    ]
    left = {len(metrics(folder)): folder for folder in (study_folder(done) / "trials").iterdir()}
    assert left.keys() == {1, 2}  # the third rung's has moved
    assert len(metrics(run_folder(done))) == 4
    for trial in trials(done):
        macro_f1, count, latency = trial.values
        assert 0 < macro_f1 <= 100
        assert count == int(count)
        assert 0 < latency < 20


def test_the_summary_of_a_run(done: Path) -> None:
    folder = run_folder(done)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    network, architecture = load_network(folder)
    assert isinstance(network, Backbone)
    assert summary["kind"] == "searched"
    searched = summary["searched"]
    assert folder.name == f"{NAME}-trial{searched['trial']}-{searched['network']}-seed0"
    assert searched["study"] == study_folder(done).name
    assert searched["other_trials_seconds"] > 0
    assert architecture.searched is not None
    assert architecture.searched.model_dump(mode="json")["blocks"] == searched["blocks"]
    assert architecture.weights_origin == "random initialisation"
    assert summary["stages"] == list(network.stages)
    assert summary["params"] == {
        "total": parameters(network), "universal": 0, "task": parameters(network),
    }  # fmt: skip
    (trial,) = (one for one in trials(done) if one.user_attrs["number"] == searched["trial"])
    assert trial.values[1] == parameters(network)
    # it is the one that was judged
    scores = start_session(config_of(done), Screen()).loaders.validate(network)
    assert round(scores.accuracy, 4) == summary["accuracy"]["val"]
    assert round(scores.loss, 4) == summary["loss"]["val"]
    settings = (folder / "config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^(\w+):$", settings, re.M) == [
        "split", "limit", "augment", "teacher", "search",
    ]  # fmt: skip


def require_proposals_follow(found: list[FrozenTrial], started: Search) -> None:
    """Each network is the one that the values in the journal lead to."""
    tried: list[SearchedStructure] = []
    for number, trial in enumerate(found):
        made = started._propose(number, found[:number], tried)
        assert made.params == trial.params
        assert made.structure not in tried
        tried.append(made.structure)


def test_again_it_trains_nothing(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that a search does not use may differ."""
    monkeypatch.setattr("nettailor.stage.fit", no_training)
    content = (run_folder(runs) / "summary.json").read_bytes()
    again = start(runs, "--student.gamma", "9", "--teacher.lr", "0.5", "--prune.tolerance", "3")
    assert (run_folder(runs) / "summary.json").read_bytes() == content
    require_proposals_follow(trials(runs), again)


def test_trained_on_is_as_trained_in_one_go(runs: Path) -> None:
    """A run that is deleted is trained from its first step, and ends in the same bits."""
    before = (run_folder(runs) / "model.safetensors").read_bytes()
    epochs = metrics(run_folder(runs))
    shutil.rmtree(run_folder(runs))
    start(runs)
    assert (run_folder(runs) / "model.safetensors").read_bytes() == before
    assert metrics(run_folder(runs)) == epochs


def test_more_trials_go_on_from_those_that_are_there(runs: Path) -> None:
    """Half a record, which a full disk leaves of a line, is left out."""
    before = [trial.params for trial in trials(runs)]
    with journal(runs).open("ab") as file:
        file.write(b'{"op_code": 8, "wor')
    again = start(runs, "--trials", "6")
    after = trials(runs)
    assert [trial.params for trial in after[:5]] == before
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 6
    require_proposals_follow(after, again)


def test_others_work_on_a_searched_network(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(runs)
    export.main([
        "--run", str(folder), "--to", str(tmp_path / "export"), "--format", "safetensors", "pt2",
    ])  # fmt: skip
    card = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    assert "# Network searched from scratch for digits\n" in card
    assert "No pretrained weights: found and trained with NetTailor." in card
    assert "test_resnet" not in card
    shutil.copy(tmp_path / "export" / "model.safetensors", tmp_path)
    shutil.copy(tmp_path / "export" / "architecture.json", tmp_path)
    again, _ = load_network(tmp_path)
    network, _ = load_network(folder)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images).logits, network(images).logits)
    from_images = next((folder / "mistakes").iterdir())
    capsys.readouterr()
    predict.main([str(from_images), "--run", str(folder), "--format", "json"])
    assert json.loads(capsys.readouterr().out)


def test_a_comparison_shows_runs_and_leaves_no_trial_out(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare.main([str(runs / "digits")])
    shown = capsys.readouterr().out
    assert "left out" not in shown
    summary = json.loads((run_folder(runs) / "summary.json").read_text(encoding="utf-8"))
    label = f"searched {summary['searched']['trial']}-{summary['searched']['network']}"
    assert label in shown
    page = (runs / "digits" / "comparison" / "report.html").read_text(encoding="utf-8")
    assert label in page
    names = ("pareto_front.png", "optimization_history.png")
    assert all((study_folder(runs) / name).exists() for name in names)


def process(out: Path, *flags: str) -> "subprocess.Popen[str]":
    return started(PROCESS, *SMALL, "--out", str(out), *flags)


@pytest.mark.slow  # quick: the same of a sweep
def test_a_killed_search_goes_on_with_the_same_trials(tmp_path: Path) -> None:
    """Killed in the second trial, of whose three epochs at least one is done."""
    flags = ["--trials", "4", "--search.trial-epochs", "3"]
    with process(tmp_path, *flags) as first:
        release(first)
        until = time.monotonic() + 60
        while not any(len(metrics(place)) for place in study_folder(tmp_path).glob("trials/1-*")):
            assert time.monotonic() < until
            time.sleep(0.002)
        first.send_signal(signal.SIGKILL)
    before = trials(tmp_path)
    assert [trial.state.name for trial in before] == ["COMPLETE", "RUNNING"]
    again = start(tmp_path, *flags)
    after = trials(tmp_path)
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 4
    assert [trial.params for trial in after[:2]] == [trial.params for trial in before]
    assert after[0].values == before[0].values
    # the sampler has read the latencies that were measured before the kill
    require_proposals_follow(after, again)
    # the network is the one that it would have been, to the bit
    start(tmp_path / "straight", *flags, "--trials", "2")
    name = f"1-{again.study.tried[1].key}"
    killed, straight = (
        next(path for path in place.rglob(f"*{name}*") if path.is_dir())
        for place in (tmp_path / "digits", tmp_path / "straight")
    )
    assert metrics(killed)[:3] == metrics(straight)[:3]


@pytest.mark.slow  # quick: the same of a sweep
def test_two_processes_share_a_study(tmp_path: Path) -> None:
    few = ["--trials", "3"]
    with process(tmp_path, *few) as one, process(tmp_path, *few) as other:
        release(one, other)
        shown = [running.communicate(timeout=200)[0] for running in (one, other)]
        assert (one.returncode, other.returncode) == (0, 0), shown
    assert [trial.state.name for trial in trials(tmp_path)] == ["COMPLETE"] * 3
    # 3 × 1 epoch, 1 × 1 more, 1 × 2 more: no epoch twice, and each process trained some
    epochs = [len(re.findall(r"searched +epoch", text)) for text in shown]
    assert sum(epochs) == 6
    assert all(epochs)
    assert sum(len(re.findall(r"teacher +epoch", text)) for text in shown) == 4
    assert (run_folder(tmp_path) / "summary.json").exists()


@pytest.mark.parametrize(
    ("flags", "differences"),
    [
        (["--search.trial-epochs", "5"], ["trial_epochs 5 must not be above epochs"]),
        (["--max-cost", "0.4"], ["search.max_cost is 0.5 there and 0.4 here"]),
        (["--split.seed", "1"], ["split.seed is 0 there and 1 here"]),
    ],
)
def test_a_study_of_other_settings_is_refused(
    runs: Path, flags: list[str], differences: list[str]
) -> None:
    content = journal(runs).read_bytes()
    with pytest.raises(UserError, match=r"of other settings|of another task|above") as refused:
        start(runs, *flags)
    assert all(difference in str(refused.value) for difference in differences)
    assert "\n" not in str(refused.value)
    assert "student" not in str(refused.value)
    assert journal(runs).read_bytes().startswith(content)


def torn(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join([*lines[:3], lines[3][:20] + lines[4], *lines[5:]])


@pytest.mark.parametrize(
    "damage",
    [
        torn,
        lambda content: content.replace(b'"stem"', b'"leaf"'),
        lambda _: b"\x00\xff\xfe binary\nmore\n",
        lambda _: b"[1, 2]\n",
    ],
    ids=["a torn line", "a lost parameter", "binary", "a list"],
)
def test_a_damaged_journal_is_refused(runs: Path, damage: Callable[[bytes], bytes]) -> None:
    content = damage(journal(runs).read_bytes())
    journal(runs).write_bytes(content)
    with pytest.raises(UserError, match=r"study\.journal: damaged, .* delete the file") as refused:
        start(runs, "--trials", "6")
    assert "\n" not in str(refused.value)
    assert journal(runs).read_bytes().startswith(content)


@pytest.mark.slow  # quick: the same of a single run
def test_overwrite_discards_the_study_and_its_runs(runs: Path) -> None:
    with process(runs, "--trials", "500") as other:
        release(other)
        assert other.stdout is not None
        assert any("trial 5: " in line for line in other.stdout)
        with pytest.raises(UserError, match=r"process \d+ on \S+ works on this study; end it"):
            start(runs, overwrite=True)
        other.kill()
    own = run_folder(runs)
    stray, other_seed = (own.with_name(f"{NAME}-trial9-abcdef-seed{seed}") for seed in (0, 1))
    shutil.copytree(own, stray)
    shutil.copytree(own, other_seed)
    start(runs, "--max-cost", "0.4", "--trials", "2", overwrite=True)
    assert len(trials(runs)) == 2
    assert not stray.exists()
    shutil.rmtree(other_seed)
    assert run_folder(runs).exists()


def test_what_could_not_be_begun_anew_is_not_discarded(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = journal(runs).read_bytes()
    monkeypatch.setattr(search_space, "_ATTEMPTS", 3)
    for out in (runs, runs / "new"):
        with pytest.raises(UserError, match=r"none of 3 networks .* raise it"):
            start(out, "--max-cost", "0.0001", overwrite=True)
    assert not (runs / "new").exists()
    with pytest.raises(UserError, match=r"split\.val is 0\.25 there and 0\.3 here"):
        start(runs, "--split.val", "0.3", overwrite=True)
    study_folder(runs).rename(runs / "elsewhere")
    study_folder(runs).symlink_to(runs / "elsewhere")
    with pytest.raises(UserError, match="symbolic link"):
        start(runs, overwrite=True)
    assert journal(runs).read_bytes() == before
    assert run_folder(runs).exists()


def test_training_that_breaks_down_everywhere_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_OPTIMIZER", "sgd")
    monkeypatch.setattr(commands, "_LR", 1e30)
    with pytest.raises(NotFiniteError, match=r"every network broke down: look at the images"):
        start(tmp_path, "--trials", "2")
    assert capsys.readouterr().out.count("broke down: ") == 2
    assert [trial.values[0] for trial in trials(tmp_path)] == [0, 0]
