"""Settings, images and weights files that are wrong: one clear line, and nothing is overwritten."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from shell import DIGITS, SMALL, Shell, program, run_of

from nettailor.__main__ import dispatch
from nettailor.cli import tailor, teach
from nettailor.core.errors import UserError
from nettailor.core.families import make_network
from nettailor.core.flags import run_command
from nettailor.core.settings import read_settings, validate
from nettailor.core.state import read_state
from nettailor.core.watch import StageWatcher
from nettailor.network import load_network

CLASSES = ("ant", "bee", "cat")


def make_images(root: Path, count: int, classes: tuple[str, ...] = CLASSES) -> None:
    """A folder of `count` noisy pictures per class."""
    noise = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = noise.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for part, count in (("train", 8), ("val", 2), ("test", 2)):
        make_images(folder / part, count)
    return folder


# Settings


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gama", "1"], r"--gama: unknown flag; did you mean '--gamma'"),
        (["--backbone", "resnet34x"], r"unknown backbone 'resnet34x'.*did you mean 'resnet34"),
        (["--backbone", "torchvision:resnet81"], r"torchvision has no such .* mean 'resnet18'"),
        (["--backbone", "resnet34.nope"], r"unknown weights tag in 'resnet34\.nope': timm has"),
        (["--gamma=-1"], r"student\.gamma = -1: must be a number ≥ 0"),
        (["--data", "no/such/folder"], r"'no/such/folder', expected 'digits', the path"),
        (["--data", "Fashion-MNIST"], r"did you mean 'fashionmnist'"),
        (["--limit.train", "12"], r"class '\d' has 0 of the 12 images, expected at least 2"),
        (["--weights", "no/such.pth"], r"no/such\.pth'?: no such file; expected a file's path"),
    ],
)
@pytest.mark.parametrize("main", [teach.main, tailor.main])
def test_settings(
    shell: Shell, main: Callable[[list[str]], None], argv: list[str], message: str
) -> None:
    assert re.search(message, shell.refusal(*DIGITS, *argv, main=main))


def test_a_nul_character_in_a_file_of_settings(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('{data: "a\\0b", backbone: "c\\0d"}\n', encoding="utf-8")
    with pytest.raises(UserError) as refused:
        validate(read_settings(str(path)))
    assert [line.partition(" = ")[0] for line in str(refused.value).split("\n")] == [
        "settings: data",
        "backbone",
    ]
    assert str(refused.value).count("must not hold a NUL character") == 2


def test_absent_cuda(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shown = shell.refusal(*DIGITS, "--device", "cuda")
    assert re.search(r"--device cuda: no CUDA device was found; use --device cpu", shown)


def test_weights_that_were_mistyped_do_not_bind_the_next_try(shell: Shell) -> None:
    shell.refusal(*DIGITS, "--weights", "typo.pth")
    assert shell(*DIGITS)[0] == 0


def test_a_name_of_nobody_is_no_folder(shell: Shell) -> None:
    assert re.search(r"data is '~nobody-here/x'", shell.refusal(*SMALL, "--data", "~nobody-here/x"))


def test_a_cut_deeper_than_the_backbone_is_refused_before_a_teacher_is_trained(
    shell: Shell,
) -> None:
    """test_resnet has 4 blocks."""
    message = shell.refusal(*DIGITS, "--remove", "[2, 5]", main=tailor.main)
    assert re.search(r"prune\.remove = \[2, 5\]: give numbers from 0 to the backbone's 4", message)
    assert not shell.out.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--backbone", "convnext_atto", "--image-size", "72"), r"needs a multiple of 32 .*64$"),
        (("--backbone", "test_convnext", "--image-size", "16"), r"16 is too small .*at least 32"),
    ],
)
def test_image_sizes_that_do_not_fit_are_refused_at_once(
    shell: Shell, flags: tuple[str, ...], message: str
) -> None:
    assert re.search(message, shell.refusal(*DIGITS, *flags).strip())
    assert not shell.out.exists()


def test_unknown_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["nettailor", "tech"])
    with pytest.raises(SystemExit) as left:
        run_command(dispatch)
    assert left.value.code == 2
    assert re.fullmatch(
        r"error: 'tech': no such command; did you mean 'teach'\?; the commands are teach, [^\n]+\n",
        capsys.readouterr().err,
    )


def test_program_refuses_bad_input(tmp_path: Path) -> None:
    done = program("nettailor", "teach", "--data", str(tmp_path / "a" / "rather" / "long" / "path"))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: data is '[^\n]+', expected 'digits', [^\n]+\n", done.stderr)


# Images


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "truncated"])
def test_unreadable_image(shell: Shell, pictures: Path, part: str, content: bytes | None) -> None:
    broken = pictures / part / "bee" / "1.png"
    broken.write_bytes(broken.read_bytes()[:-200] if content is None else content)
    shown = shell.refusal(*SMALL, "--data", str(pictures), "--batch-size", "4")
    assert f"{broken} cannot be read as an image (" in shown
    assert "replace it, remove it" in shown


@pytest.mark.usefixtures("_saved_every_epoch")
def test_image_that_breaks_in_the_middle_of_training(
    shell: Shell, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = pictures / "train" / "bee" / "1.png"
    whole = broken.read_bytes()
    epoch = StageWatcher.epoch

    def break_it(watcher: StageWatcher, *arguments: Any) -> None:
        epoch(watcher, *arguments)
        broken.write_bytes(whole[:-200])

    argv = (
        *SMALL,
        "--data",
        str(pictures),
        "--batch-size",
        "4",
        "--epochs",
        "2",
        "--cache",
        "none",
    )
    with monkeypatch.context() as patched:
        patched.setattr(StageWatcher, "epoch", break_it)
        assert str(broken) in shell.refusal(*argv)
    folder = run_of(shell, "pictures")
    assert len(read_state(folder / "state" / "teacher.pt")["history"]) == 1
    assert not (folder / "summary.json").exists()

    broken.write_bytes(whole)
    assert shell(*argv)[0] == 0
    with (folder / "metrics.csv").open(encoding="utf-8") as handle:
        assert [row["epoch"] for row in csv.DictReader(handle)] == ["1", "2"]


def test_overwrite_with_a_broken_test_image_discards_nothing(shell: Shell, pictures: Path) -> None:
    argv = (*SMALL, "--data", str(pictures), "--batch-size", "4")
    assert shell(*argv)[0] == 0
    broken = sorted((pictures / "test").rglob("*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:-200])
    assert str(broken) in shell.refusal(*argv, "--overwrite")


# Weights files


def test_weights_of_another_class_count_serve(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(make_network("test_resnet", 77).state_dict(), path)
    assert shell(*DIGITS, "--weights", str(path))[0] == 0
    network, architecture = load_network(run_of(shell, "digits"))
    assert len(architecture.classes) == 10
    assert str(path) in architecture.weights_origin
    assert network(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 10)
