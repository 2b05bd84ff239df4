"""Runs that are there already: what goes on with them, what is refused, what overwrites them."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from payload import Payload
from safetensors.torch import save_file
from shell import DIGITS, Shell, run_of

from nettailor.cli import compare, eliminate, knapsack, tailor, teach
from nettailor.core.backbone import create_backbone
from nettailor.core.families import make_network
from nettailor.core.state import write_state


@pytest.fixture
def taught(shell: Shell) -> Shell:
    """A shell with a finished teacher of the digits."""
    code, err = shell(*DIGITS)
    assert code == 0, err
    return shell


def test_a_run_of_settings_that_there_are_no_more(taught: Shell) -> None:
    """By its own command and by one that would build on it; only --overwrite discards it."""
    folder = run_of(taught, "digits")
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    older = settings | {"sampling": "natural", "teacher": settings["teacher"] | {"momentum": 0.9}}
    del older["balance"]
    (folder / "config.yaml").write_text(yaml.safe_dump(older), encoding="utf-8")
    for main in (teach.main, tailor.main):
        shown = taught.refusal(*DIGITS, main=main)
        assert re.search(
            r"holds a run of an earlier version, whose settings this one does not have \(sampling, "
            r"teacher\.momentum\); give another --out, or `python -m nettailor\.teach --overwrite`",
            shown,
        )
    assert taught(*DIGITS, "--overwrite")[0] == 0
    assert "momentum" not in (folder / "config.yaml").read_text(encoding="utf-8")


def test_teacher_of_another_split(taught: Shell) -> None:
    shown = taught.refusal(*DIGITS, "--split.seed", "9", main=tailor.main)
    assert re.search(r"is of another task: split\.seed is 0 there and 9 here", shown)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--weights", "nope.pth"), r"nope\.pth.*no such file"),
        (("--auto-augment", "strange"), r"'strange' is no policy"),
    ],
)
def test_overwrite_discards_nothing_before_the_settings_are_known_to_work(
    taught: Shell, flags: tuple[str, ...], message: str
) -> None:
    """`refusal` compares every file of the old run with what is there afterwards."""
    assert re.search(message, taught.refusal(*DIGITS, "--overwrite", *flags))


@pytest.mark.parametrize("damage", ["truncated", "pickled", "missing", "classes", "backbone"])
def test_teacher_with_damaged_weights(taught: Shell, damage: str, tmp_path: Path) -> None:
    path = run_of(taught, "digits") / "model.safetensors"
    victim = tmp_path / "victim"
    match damage:
        case "truncated":
            path.write_bytes(path.read_bytes()[:-1])
        case "pickled":
            torch.save({"state_dict": Payload(victim)}, path)
        case "missing":
            path.unlink()
        case "classes":
            save_file(create_backbone("test_resnet", 3).state_dict(), path)
        case "backbone":
            save_file(create_backbone("test_efficientnet", 10).state_dict(), path)
    shown = taught.refusal(*DIGITS, main=tailor.main)
    assert str(path) in shown
    assert not victim.exists()
    if damage in ("classes", "backbone"):
        assert "weights of another network or class count" in shown
    if damage == "classes":
        assert re.search(r"classifier\.weight is \(3, \d+\), expected \(10, \d+\)", shown)


def test_a_state_that_lacks_a_part_is_refused(shell: Shell, taught: Shell) -> None:
    folder = run_of(taught, "digits")
    (folder / "summary.json").unlink()
    write_state(folder / "state" / "teacher.pt", {"network": {}, "history": []})
    assert re.search(r"teacher\.pt: damaged, or no training state", shell.refusal(*DIGITS))


def test_a_finished_run_needs_neither_weights_nor_teacher(shell: Shell, tmp_path: Path) -> None:
    """The same command prints the table even when what it was made from has gone."""
    donor = tmp_path / "donor.pth"
    torch.save(make_network("test_resnet", 5).state_dict(), donor)
    argv = (*DIGITS, "--weights", str(donor))
    tailoring = (*argv, "--remove", "[1]")
    assert shell(*argv)[0] == 0
    assert shell(*tailoring, main=tailor.main)[0] == 0
    donor.unlink()
    assert shell(*argv)[0] == 0
    shutil.rmtree(shell.out / "digits" / "teacher")
    assert shell(*tailoring, main=tailor.main)[0] == 0
    assert not (shell.out / "digits" / "teacher").exists()


def test_a_teacher_of_weights_that_changed_since_is_refused(shell: Shell, tmp_path: Path) -> None:
    donor = tmp_path / "donor.pth"
    argv = (*DIGITS, "--weights", str(donor))
    torch.save(make_network("test_resnet", 5).state_dict(), donor)
    assert shell(*argv)[0] == 0
    torch.save(make_network("test_resnet", 5).state_dict(), donor)
    message = shell.refusal(*argv, "--remove", "[1]", main=tailor.main)
    assert re.search(r"fine-tuned from other weights .*nettailor\.teach --overwrite", message)


@pytest.mark.slow  # quick: runs of other settings and images are refused
def test_a_finished_run_of_a_teacher_that_was_trained_anew_is_refused(shell: Shell) -> None:
    tailoring = (*DIGITS, "--remove", "[1]")
    assert shell(*tailoring, main=tailor.main)[0] == 0
    assert shell(*DIGITS, "--teacher.lr", "0.03", "--overwrite")[0] == 0
    message = shell.refusal(*tailoring, main=tailor.main)
    assert re.search(r"was begun with another teacher than .* --overwrite to tailor", message)


@pytest.mark.parametrize("content", ["{}", "[]", '{"kind": "teacher"}', "2"])
def test_a_summary_that_is_none(taught: Shell, content: str) -> None:
    """Of a run that is told of again, and of the teacher before a student is trained beside it."""
    (run_of(taught, "digits") / "summary.json").write_text(content, encoding="utf-8")
    for main in (teach.main, tailor.main, eliminate.main):
        assert "summary.json: holds no summary; restore" in taught.refusal(*DIGITS, main=main)


def test_a_run_that_lost_its_weights(taught: Shell) -> None:
    """Nobody takes it for a finished run: neither its command, nor who needs it, nor `compare`."""
    folder = run_of(taught, "digits")
    (folder / "model.safetensors").unlink()
    whole = r"model\.safetensors: not found: the run is not whole any more; restore the file, or "
    advice = whole + r"give `python -m nettailor\.teach --overwrite`"
    for main in (teach.main, tailor.main, eliminate.main, knapsack.main):
        assert re.search(advice, taught.refusal(*DIGITS, main=main))
    shown = taught(*DIGITS, main=compare.main)[1]
    assert re.search(rf"no finished run at 32 px; .*\n{folder}: damaged: .*{whole}", shown)
    assert taught(*DIGITS, "--overwrite")[0] == 0
    assert (folder / "model.safetensors").exists()
