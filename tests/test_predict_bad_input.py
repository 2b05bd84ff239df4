"""Broken images, bad flags, damaged runs: what the predict command says, and its exit codes."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import lively_chain
from networks import architecture_of
from PIL import Image
from predicting import as_json, picture, refusal, run_it
from safetensors.torch import load_file, save_file

from nettailor.cli import predict
from nettailor.core.flags import run_command
from nettailor.core.image_paths import find_images
from nettailor.network import save_network


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("photos/*.gif", "the pattern 'photos/*.gif' matches nothing"),
        ("fotos", "'fotos': no such file or folder"),
        ("photos/b.jpeg", "'photos/b.jpeg': no such file or folder"),
        ("", "'': no such file or folder"),
        ("empty", "'empty' holds no images: expected files that end in .jpg, .png or"),
        ("empty/*", "'empty/*' holds no images"),
        ("pipe.png", "'pipe.png' is neither a file nor a folder"),
        ("bad\nname", r"'bad\nname': no such file or folder"),
    ],
)
def test_arguments_that_lead_nowhere(run, photos, monkeypatch, argument, text):
    monkeypatch.chdir(photos.parent)
    (photos.parent / "empty" / "sub").mkdir(parents=True)
    os.mkfifo("pipe.png")
    assert text in refusal("photos", argument, "--run", run)


def damage_pixels(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[500:1500] = bytes(1000)
    path.write_bytes(content)


def make_bomb(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path)


def make_strip(path: Path) -> None:
    """1600 times as many pixels once its side of 1 is resized to 40."""
    Image.new("L", (1, 2_000_000)).save(path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "truncated"),
        (lambda path: path.write_bytes(b""), "not an image in a known format"),
        (lambda path: path.write_text("I am no image"), "not an image in a known format"),
        (damage_pixels, ""),
        (lambda path: (path.unlink(), path.symlink_to("nowhere")), "No such file or directory"),
        (make_bomb, "decompression bomb"),
        (make_strip, "1 × 2000000 pixels are too long a strip to be resized"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_broken_image_among_good_ones(run, photos, capsys, damage, reason):
    whole = as_json(capsys, photos, "--run", run)["images"]
    broken = photos / "b.png"
    damage(broken)
    assert run_it(photos, "--run", run, "--format", "json", "--batch-size", 2) == 4
    out, err = capsys.readouterr()
    result = json.loads(out)
    (failed,) = result["failed"]
    assert failed["path"] == str(broken)
    assert reason in failed["reason"]
    assert err == f"skipped {broken}: {failed['reason']}\n"
    others = [image for image in whole if image["path"] != str(broken)]
    assert [image["path"] for image in result["images"]] == [image["path"] for image in others]
    for image, other in zip(result["images"], others, strict=True):
        assert [p["label"] for p in image["predictions"]] == [
            p["label"] for p in other["predictions"]
        ]


def test_large_but_no_bomb_is_read_without_a_word(run, tmp_path, capsys):
    large = Image.new("1", (10_000, 9_000))  # where Pillow starts to warn
    large.putpixel((0, 0), 1)
    large.save(tmp_path / "large.png")
    assert run_it(tmp_path, "--run", run) == 0
    assert capsys.readouterr().err == ""


def test_an_image_that_vanishes(run, photos, capsys, monkeypatch):
    def and_then_one_goes(arguments):
        found = find_images(arguments)
        (photos / "b.png").unlink()
        return found

    monkeypatch.setattr("nettailor.commands.predict.find_images", and_then_one_goes)
    assert run_it(photos, "--run", run, "--top-k", 1) == 4
    out, err = capsys.readouterr()
    assert err == f"skipped {photos / 'b.png'}: No such file or directory\n"
    assert out.count("photos/") == 4


def test_nothing_but_broken_images(run, tmp_path, capsys):
    (tmp_path / "a.png").touch()
    (tmp_path / "named.doc").write_text("a file that is named is tried, whatever its name")
    argv = (tmp_path, tmp_path / "named.doc", "--run", run, "--format", "csv")
    assert run_it(*argv) == 4
    out, err = capsys.readouterr()
    assert out == "path,rank,label,probability,ms\n"
    assert err.count("skipped ") == 2


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--backbone", "resnet18"], "--run and --backbone were both given"),
        (["--weights", "auto"], "--run and --weights were both given"),
        (["--format", "xml"], "argument --format: invalid choice: 'xml'"),
        (["--batch-size", "0"], "'0' is no whole number from 1"),
        (["--device", "tpu"], "argument --device: invalid choice"),
        (["--topk", "3"], "unrecognized arguments: --topk"),
    ],
)
def test_bad_flags(run, photos, argv, text):
    assert text in refusal(photos, "--run", run, *argv)


def test_no_images_named():
    assert "required: IMAGES" in refusal("--top-k", 3)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--backbone", "resnet1"], "unknown backbone 'resnet1'"),
        (["--backbone", "torchvision:resnet81"], "torchvision has no such classification network"),
        (["--weights", "none"], "never trained predicts nothing"),
        (["--weights", "pakage"], "did you mean 'package'?"),
        (["--weights", "."], "weights '.' is a folder"),
        (["--backbone", "resnet18", "--weights", "package"], "no package holds weights"),
    ],
)
def test_bad_backbones(photos, argv, text):
    assert text in refusal(photos, *argv)


def test_output_that_cannot_or_must_not_be_written(run, photos, tmp_path):
    before = (photos / "b.png").read_bytes()
    for output, text in [
        (tmp_path, "is there and no file"),
        ("/dev/null", "is there and no file"),
        (photos / "b.png" / "x.csv", "nothing can be written in"),
        (photos / "sub" / ".." / "b.png", "is one of the images"),
    ]:
        assert text in refusal(photos, "--run", run, "--output", output)
    assert (photos / "b.png").read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"image_size": 32', '"image_size": 4000000', "image_size is 4000000, expected 1 to 4096"),
        ('"crop_pct": 0.8', '"crop_pct": 1e-9', "its crop_pct is damaged"),
        ("", "", "what is no number"),  # weights that are none
    ],
)
def test_damaged_runs(run, photos, tmp_path, old, new, words):
    """Of files that cannot be read the export command says the same."""
    folder = shutil.copytree(run, tmp_path / "damaged")
    structure = (folder / "architecture.json").read_text(encoding="utf-8")
    assert old in structure
    (folder / "architecture.json").write_text(
        structure.replace(old, new) if old else structure, encoding="utf-8"
    )
    if not old:
        tensors = load_file(run / "model.safetensors")
        tensors["classifier.bias"][:] = torch.nan
        save_file(tensors, folder / "model.safetensors")
    assert words in refusal(photos, "--run", folder)


def test_a_batch_that_does_not_fit(tmp_path):
    """160 images of 1024 pixels take 2 GB, and 1.5 GB is left: one at a time takes 0.4 GB.

    What the batch has touched stays with the process, so 1.5 GB is left anew for one at a time.
    """
    architecture = architecture_of(classes=2, side=1024)
    run = tmp_path / "run"
    save_network(run, lively_chain("test_resnet", 2), architecture)
    images = [picture(tmp_path / "images" / f"{number}.png") for number in range(160)]
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)

    def leave(left):
        in_use = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (in_use * resource.getpagesize() + left, hard))

    try:
        leave(3 << 29)
        said = refusal(*images, "--run", run, "--batch-size", 160)
        assert "cannot take 160 images of 1024 pixels at once (" in said
        assert "give a smaller --batch-size" in said
        leave(3 << 29)
        assert run_it(*images[:4], "--run", run, "--batch-size", 1) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_exit_codes(run, photos, capsys, monkeypatch):
    argv = ["predict", str(photos), "--run", str(run), "--device", "cpu"]
    for more, code, complaint in [
        ([], 0, ""),
        (["fotos"], 2, "error: 'fotos': no such file"),
        ([str(photos / "notes.txt")], 4, f"skipped {photos / 'notes.txt'}: not an image"),
    ]:
        monkeypatch.setattr(sys, "argv", [*argv, *more])
        with pytest.raises(SystemExit) as ended:
            run_command(predict.main)
        out, err = capsys.readouterr()
        assert ended.value.code == code
        assert err.startswith(complaint)
        assert err.count("\n") == bool(complaint)
        assert ("a.jpg" in out) == (code != 2)


def test_a_reader_that_has_seen_enough(run, photos):
    receiver, sender = os.pipe()
    os.close(receiver)
    (photos / "a.jpg").write_bytes(b"")
    ended = subprocess.run(
        [sys.executable, "-m", "nettailor.predict", str(photos), "--run", str(run)],
        stdout=sender,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(sender)
    assert ended.stderr.decode() == f"skipped {photos / 'a.jpg'}: not an image in a known format\n"
    assert ended.returncode == 4
