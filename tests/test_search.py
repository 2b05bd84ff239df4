"""`search` whole: its trials and runs, who takes over from whom, and what it refuses."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import no_training, release
from search_runs import (
    NAME,
    SMALL,
    config_of,
    journal,
    metrics,
    process,
    quickly,
    require_proposals_follow,
    run_folder,
    start,
    study_folder,
    trials,
)

from nettailor import search_space
from nettailor.cli import compare, export, predict, search
from nettailor.commands import search as commands
from nettailor.core.backbone import Backbone
from nettailor.core.console import Screen
from nettailor.core.cost import parameters
from nettailor.core.errors import NotFiniteError, UserError
from nettailor.network import load_network
from nettailor.session import start_session


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        yield


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
