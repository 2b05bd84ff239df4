"""Whatever a user gets wrong ends in one clear line and an exit code, and overwrites nothing."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import save_file

from nettailor import finetune, tailor, teach
from nettailor.__main__ import dispatch
from nettailor.core.architecture import Architecture, read_architecture
from nettailor.core.backbone import create_chain, make_network
from nettailor.core.errors import UserError
from nettailor.core.flags import run_command
from nettailor.core.interruption import Interrupted
from nettailor.core.latency import measure_latency
from nettailor.core.preprocessing import Preprocessing
from nettailor.core.settings import read_settings, validate
from nettailor.core.state import read_state, write_state
from nettailor.core.watch import StageWatcher
from nettailor.network import load_network, save_network
from student.grow import grow

CLASSES = ("ant", "bee", "cat")
SMALL = (
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--device", "cpu",
    "--workers", "0", "--epochs", "1", "--precision", "float32",
)  # fmt: skip
DIGITS = (*SMALL, "--limit.train", "60", "--limit.test", "20", "--batch-size", "16")


class Payload:
    """A pickle of this creates a file when something unpickles it carelessly."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return subprocess.call, (["touch", str(self.victim)],)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class Shell:
    """Runs commands in this process as a shell would, all into one folder of runs."""

    def __init__(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.out, self._monkeypatch, self._capsys = out, monkeypatch, capsys

    def __call__(
        self, *argv: str, main: Callable[[list[str]], None] = teach.main
    ) -> tuple[int, str]:
        """The exit code and what went to stderr."""
        self._monkeypatch.setattr("sys.argv", ["teach", *argv, "--out", str(self.out)])
        with pytest.raises(SystemExit) as left:
            run_command(main)
        assert isinstance(left.value.code, int)
        return left.value.code, self._capsys.readouterr().err

    def refusal(self, *argv: str, main: Callable[[list[str]], None] = teach.main) -> str:
        """The one line of a refusal, which leaves every file that was there as it was."""
        before = contents(self.out)
        code, err = self(*argv, main=main)
        after = contents(self.out)
        assert code == 2, err
        assert {name: after.get(name) for name in before} == before
        assert re.fullmatch(r"error: [^\n]+\n", err), err
        return err


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.setattr(
        finetune, "measure_latency", partial(measure_latency, seconds=0, batches=(1,))
    )
    return Shell(tmp_path / "runs", monkeypatch, capsys)


@pytest.fixture
def taught(shell: Shell) -> Shell:
    """A shell with a finished teacher of the digits."""
    code, err = shell(*DIGITS)
    assert code == 0, err
    return shell


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


def run_of(shell: Shell, task: str) -> Path:
    """The only teacher of a task."""
    (folder,) = (shell.out / task / "teacher").iterdir()
    return folder


# Settings


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gama", "1"], r"--gama: unknown flag; did you mean '--gamma'"),
        (["--backbone", "resnet34x"], r"unknown backbone 'resnet34x'.*did you mean 'resnet34"),
        (["--backbone", "vit_tiny_patch16_224"], r"not a chain that can be cut: expected one of"),
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


def test_unknown_key_in_a_file(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("student: {gama: 1}\n", encoding="utf-8")
    assert "did you mean 'student.gamma'" in shell.refusal("--config", str(path))


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


# Images


def test_class_without_images(shell: Shell, pictures: Path) -> None:
    for file in (pictures / "train" / "bee").iterdir():
        file.unlink()
    shown = shell.refusal(*SMALL, "--data", str(pictures))
    assert re.search(r"train has no images of class 'bee': add files .* or remove", shown)


def test_class_sets_differ(shell: Shell, pictures: Path) -> None:
    shutil.rmtree(pictures / "val" / "ant")
    shown = shell.refusal(*SMALL, "--data", str(pictures))
    assert re.search(r"class folders .* differ: val/ lacks 'ant'; give every part", shown)


def test_empty_folder(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shown = shell.refusal(*SMALL, "--data", str(tmp_path / "empty"))
    assert re.search(r"empty has no subfolders: expected one per class", shown)


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

    argv = (*SMALL, "--data", str(pictures), "--batch-size", "4", "--epochs", "2")
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


# Weights files


def test_weights_of_another_backbone(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(make_network("test_efficientnet", 10).state_dict(), path)
    shown = shell.refusal(*DIGITS, "--weights", str(path))
    assert re.search(r"w\.safetensors is a checkpoint of another backbone: \d+ of its", shown)


def test_weights_of_another_class_count_serve(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(make_network("test_resnet", 77).state_dict(), path)
    assert shell(*DIGITS, "--weights", str(path))[0] == 0
    network, architecture = load_network(run_of(shell, "digits"))
    assert len(architecture.classes) == 10
    assert str(path) in architecture.weights_origin
    assert network(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 10)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_corrupt_weights(shell: Shell, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02garbage" * 50)
    assert str(tmp_path / name) in shell.refusal(*DIGITS, "--weights", str(tmp_path / name))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights_with_code(shell: Shell, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    torch.save({"state_dict": Payload(victim)}, tmp_path / name)
    shown = shell.refusal(*DIGITS, "--weights", str(tmp_path / name))
    assert re.search(r"nothing was run from it", shown)
    assert not victim.exists()


# Run folders


def test_run_of_other_settings(taught: Shell) -> None:
    shown = taught.refusal(*DIGITS, "--teacher.lr", "0.5")
    assert re.search(
        r"holds a run of other settings: teacher\.lr is [\d.]+ there and 0\.5 here\. .*--overwrite",
        shown,
    )
    folder = run_of(taught, "digits")
    assert taught(*DIGITS, "--teacher.lr", "0.5", "--overwrite")[0] == 0
    assert "lr: 0.5" in (folder / "config.yaml").read_text(encoding="utf-8")


def test_teacher_of_another_split(taught: Shell) -> None:
    shown = taught.refusal(*DIGITS, "--split.seed", "9", main=tailor.main)
    assert re.search(r"is of another task: split\.seed is 0 there and 9 here", shown)


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_foreign_folder(taught: Shell, flags: list[str]) -> None:
    folder = run_of(taught, "digits")
    shutil.rmtree(folder)
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "mine.jpg").write_bytes(b"dear")
    shown = taught.refusal(*DIGITS, *flags)
    assert re.search(r"the folder is not empty and holds no run; move what it holds", shown)
    assert (folder / "photos" / "mine.jpg").read_bytes() == b"dear"


def test_out_is_a_file(shell: Shell) -> None:
    shell.out.write_text("mine", encoding="utf-8")
    code, err = shell(*DIGITS)
    assert code == 2
    assert re.fullmatch(
        r"error: cannot write [^\n]+; free the disk, or choose another place\n", err
    )
    assert shell.out.read_text(encoding="utf-8") == "mine"


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
            save_file(create_chain("test_resnet", 3).state_dict(), path)
        case "backbone":
            save_file(create_chain("test_efficientnet", 10).state_dict(), path)
    shown = taught.refusal(*DIGITS, main=tailor.main)
    assert str(path) in shown
    assert not victim.exists()
    if damage in ("classes", "backbone"):
        assert "weights of another network or class count" in shown
    if damage == "classes":
        assert re.search(r"classifier\.weight is \(3, \d+\), expected \(10, \d+\)", shown)


# architecture.json


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    student = grow(
        create_chain("test_resnet", 3), skips=2, identities=True, exits=True, batch_norm="follow"
    )
    mean = (0.5, 0.5, 0.5)
    architecture = Architecture(
        backbone="test_resnet",
        classes=CLASSES,
        preprocessing=Preprocessing(32, mean, mean, "bilinear", 0.9),
        weights_origin="random initialisation",
        weights_digest="",
    )
    save_network(folder, student, architecture)
    return folder


def damage(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one place of the content."""

    def apply(content: dict[str, Any]) -> None:
        place: Any = content
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage("format", value=2), r"format: .*1; it is damaged or of another version"),
        (damage("extra", value=1), r"extra: "),
        (damage("backbone", value="resnet34x"), r"unknown backbone .*did you mean 'resnet34"),
        (damage("backbone", value="test_efficientnet"), r"heads and exits, .*lead to the logits"),
        (damage("backbone", value=None), r"backbone: "),
        (damage("classes", value=["one"]), r"classes: .*at least 2"),
        (damage("classes", value=["a", "b", "a"]), r"classes: a class is listed twice"),
        (damage("classes", value=["a", "b"]), r"classifier\.weight is \(3, .*expected \(2, "),
        (damage("preprocessing", value={}), r"preprocessing\.\w+: "),
        (damage("preprocessing", "mean", value=[0.5]), r"mean is \(0\.5,\), expected three"),
        (damage("preprocessing", "mean", value=[0, 0, float("nan")]), r"mean is .*expected three"),
        (damage("preprocessing", "std", value=[1, 1, 0]), r"std is .*above 0"),
        (damage("preprocessing", "crop_pct", value=2), r"crop_pct is 2\.0"),
        (damage("preprocessing", "image_size", value=0), r"image_size is 0"),
        (damage("preprocessing", "interpolation", value="magic"), r"no interpolation 'magic'"),
        (damage("student", "paths", value=[]), r"no path leads to the logits"),
        (damage("student", "paths", value=[[3, 4, "block"]]), r"starts at node 3, where no path"),
        (damage("student", "paths", 0, value=[0, 99, "proxy"]), r"does not lead forward"),
        (damage("student", "paths", 0, value=[0, 1, "magic"]), r"student\.paths\.0\.2: "),
        (
            damage("student", "paths", 0, value=[0, 2, "block"]),
            r"block leads from a node to the next",
        ),
        (
            damage("student", "paths", 0, value=[0, 5, "proxy"]),
            r"heads and exits, and nothing else",
        ),
        (damage("student", "paths", 0, value=[0, 1, "proxy"]), r"a path is listed twice"),
        (damage("student", "paths", 0, value=[0, 1]), r"student\.paths\.0"),
        (damage("student", "finetune", value="some"), r"student\.finetune: "),
        (damage("student", value=None), r"weights of another network .*missing"),
    ],
)
def test_damaged_architecture(
    student_folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    folder = shutil.copytree(student_folder, tmp_path / "run")
    load_network(folder)
    content = json.loads((folder / "architecture.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "architecture.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_network(folder)
    shown = str(caught.value)
    assert re.search(message, shown), shown
    assert str(folder) in shown
    assert "\n" not in shown


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"format": 1}', "\x00"])
def test_architecture_that_is_none(student_folder: Path, tmp_path: Path, text: str) -> None:
    folder = shutil.copytree(student_folder, tmp_path / "run")
    (folder / "architecture.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"architecture\.json: [^\n]+$"):
        read_architecture(folder)


# Numbers that are not finite, and interruptions


def test_loss_that_is_not_finite_at_once(shell: Shell) -> None:
    code, err = shell(*DIGITS, "--teacher.lr", "1e30")
    assert code == 3
    assert re.fullmatch(
        r"error: the loss term 'cross_entropy' became (nan|inf) at epoch 1, step \d+; [^\n]+\n", err
    )
    folder = run_of(shell, "digits")
    assert not (folder / "state" / "teacher.pt").exists()
    assert not (folder / "summary.json").exists()
    assert shell(*DIGITS, "--overwrite")[0] == 0


@pytest.mark.usefixtures("_saved_every_epoch")
def test_loss_that_is_not_finite_later_keeps_the_epoch_before(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = StageWatcher.epoch

    def interrupt(watcher: StageWatcher, *arguments: Any) -> None:
        epoch(watcher, *arguments)
        raise Interrupted(signal.SIGINT)

    argv = (*DIGITS, "--epochs", "2")
    with monkeypatch.context() as patched:
        patched.setattr(StageWatcher, "epoch", interrupt)
        code, err = shell(*argv)
    assert code == 130
    assert re.fullmatch(r"interrupted: [^\n]+ [^\n]+ goes on from what is saved\n", err)

    path = run_of(shell, "digits") / "state" / "teacher.pt"
    state = read_state(path)
    next(value for value in state["network"].values() if value.is_floating_point()).fill_(np.nan)
    write_state(path, state)
    before = path.read_bytes()
    code, err = shell(*argv)
    assert code == 3
    assert re.fullmatch(r"error: the loss term '\w+' became nan at epoch 2, step 1; [^\n]+\n", err)
    assert path.read_bytes() == before


# The commands as programs: exit codes and streams


def program(*argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "40"}
    return subprocess.run(
        [sys.executable, "-m", *argv], capture_output=True, text=True, env=environment, check=False
    )


def test_program_refuses_bad_input(tmp_path: Path) -> None:
    done = program("nettailor", "teach", "--data", str(tmp_path / "a" / "rather" / "long" / "path"))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: data is '[^\n]+', expected 'digits', [^\n]+\n", done.stderr)


@pytest.mark.parametrize("command", [["nettailor.teach"], ["nettailor", "teach"]])
def test_program_ends_on_a_loss_that_is_not_finite(tmp_path: Path, command: list[str]) -> None:
    done = program(*command, *DIGITS, "--teacher.lr", "1e30", "--out", str(tmp_path))
    assert done.returncode == 3
    assert re.search(r"^error: the loss term 'cross_entropy' became [^\n]+$", done.stderr, re.M)
    assert "Traceback" not in done.stderr
    assert "error" not in done.stdout


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


def test_a_name_of_nobody_is_no_folder(shell: Shell) -> None:
    assert re.search(r"data is '~nobody-here/x'", shell.refusal(*SMALL, "--data", "~nobody-here/x"))


def test_a_state_that_lacks_a_part_is_refused(shell: Shell, taught: Shell) -> None:
    folder = run_of(taught, "digits")
    (folder / "summary.json").unlink()
    write_state(folder / "state" / "teacher.pt", {"network": {}, "history": []})
    assert re.search(r"teacher\.pt: damaged, or no training state", shell.refusal(*DIGITS))


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


def test_weights_broken_by_the_last_step_are_not_saved(shell: Shell) -> None:
    """One step, whose loss is still finite; only what comes after it is not."""
    code, err = shell(*SMALL, "--limit.train", "100", "--limit.test", "20", "--teacher.lr", "1e38")
    assert code == 3
    assert re.search(r"the validation loss became \w+ after epoch 1: its last steps", err)
    assert not list(run_of(shell, "digits").rglob("*.pt"))


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


def test_a_finished_run_of_a_teacher_that_was_trained_anew_is_refused(shell: Shell) -> None:
    tailoring = (*DIGITS, "--remove", "[1]")
    assert shell(*tailoring, main=tailor.main)[0] == 0
    assert shell(*DIGITS, "--teacher.lr", "0.03", "--overwrite")[0] == 0
    message = shell.refusal(*tailoring, main=tailor.main)
    assert re.search(r"was begun with another teacher than .* --overwrite to tailor", message)


def test_overwrite_with_a_broken_test_image_discards_nothing(shell: Shell, pictures: Path) -> None:
    argv = (*SMALL, "--data", str(pictures), "--batch-size", "4")
    assert shell(*argv)[0] == 0
    broken = sorted((pictures / "test").rglob("*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:-200])
    assert str(broken) in shell.refusal(*argv, "--overwrite")


def test_half_precision_without_a_gpu_is_refused(shell: Shell) -> None:
    message = shell.refusal(*SMALL, "--precision", "fp16")
    assert re.search(r"fp16 needs a CUDA device; use bf16 or float32", message)


@pytest.fixture
def _another_precision() -> Iterator[None]:
    """accelerate holds a process to one precision; a command has a process of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_another_precision")
def test_bfloat16_trains_cuts_and_scores_on_a_cpu(shell: Shell) -> None:
    argv = (*DIGITS, "--precision", "bf16")
    assert shell(*argv)[0] == 0
    assert shell(*argv, "--remove", "[1]", "--teacher.ema", "0.5", main=tailor.main)[0] == 0
