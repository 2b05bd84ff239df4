"""The export command: what its files answer, what they say of themselves, and what goes on."""

import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from shell import contents
from tailor_runs import LEARNT, RANK, quick_latency, quickly, summary_of
from torch import Tensor, nn

from nettailor import loaders
from nettailor.cli import export, tailor
from nettailor.core.cost import parameters
from nettailor.deploy.onnx_file import load_onnx
from nettailor.network import load_network
from nettailor.prune.fold import fold
from nettailor.student.network import Student

RUNS = ("teacher", "all", "task")
FILES = ["model.int8.onnx", "model.onnx", "model.pt2", "model.safetensors"]


pytestmark = pytest.mark.usefixtures("_quickly")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each kind by name, and a candidate inside one."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        tailor.main([*LEARNT, "--prune.tolerance", "100", "--out", str(out)])
        tailor.main([*LEARNT, *RANK, "--out", str(out)])
    task = next((out / "digits" / "tailored").glob("*-task-*"))
    return {
        "teacher": next((out / "digits" / "teacher").iterdir()),
        "all": next((out / "digits" / "tailored").glob("*-all-*")),
        "task": task,
        "candidate": next((task / "candidates").iterdir()),
    }


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory):
    """The folder with every file of a run, exported when it is first asked for."""

    @cache
    def folder(name):
        to = tmp_path_factory.mktemp("exported") / name
        with pytest.MonkeyPatch.context() as patch:
            quick_latency(patch)
            every = ["--format", "onnx", "pt2", "safetensors", "--int8"]
            export.main(["--run", str(runs[name]), *every, "--to", str(to)])
        return to

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
    return torch.export.load(file).module()(images)


def entries(file: Path) -> dict[str, bytes]:
    """What a .pt2 file holds, without its leading folder."""
    with zipfile.ZipFile(file) as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


# What the files answer


@pytest.mark.parametrize("name", RUNS)
@torch.no_grad()
def test_every_file_answers_as_the_network_and_is_as_large_as_its_parameters(runs, exported, name):
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
        coarse = load_onnx((folder / "model.int8.onnx").read_bytes())(images).logits
        assert coarse.shape == (batch, 10)
        assert float((coarse - expected).abs().max()) < 0.25 * largest
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "architecture.json", "config.json", *FILES,
    ]  # fmt: skip
    weights = 4 * parameters(network)
    for file in FILES[1:]:
        assert 0.95 * weights < (folder / file).stat().st_size < 1.05 * weights + 200_000, file
    quantised = (folder / "model.int8.onnx").stat().st_size
    assert quantised < 0.3 * weights + 50_000
    if weights > 500_000:
        assert quantised < 0.5 * (folder / "model.onnx").stat().st_size


def test_folded_weights_are_all_that_is_stored(exported):
    folder = exported("teacher")
    network, _ = load_network(folder)
    model = onnx.load(folder / "model.onnx")
    stored = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert abs(stored - parameters(fold(network))) < 100  # sizes of poolings and the like
    assert not [node.op_type for node in model.graph.node if "Norm" in node.op_type]


# What the files say of themselves


@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx"])
def test_onnx_states_layout_and_metadata(runs, exported, file):
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
    _check_about(session.get_modelmeta().custom_metadata_map, runs["all"])


def test_pt2_states_its_metadata_and_is_plain_data(runs, exported):
    """What torch would unpickle in it holds tensors alone."""
    extra = {"metadata.json": ""}
    file = exported("all") / "model.pt2"
    torch.export.load(file, extra_files=extra)
    _check_about(json.loads(extra["metadata.json"]), runs["all"])
    for name, content in entries(file).items():
        if name.endswith(".pt"):
            torch.load(io.BytesIO(content), weights_only=True)


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
    assert json.loads(about["accuracy"]) == summary_of(run)["accuracy"]


def test_the_model_card(runs, exported):
    folder, summary = exported("all"), summary_of(runs["all"])
    teacher = summary["teacher"]
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    hub = yaml.safe_load(front)
    assert hub["pipeline_tag"] == "image-classification"
    assert "license" not in hub  # random weights have none
    accuracy = [
        f"{one['accuracy']['test']:.2f} ± {one['accuracy_error']['test']:.2f}"
        for one in (summary, teacher)
    ]
    for words in (
        "# test_resnet, tailored to digits",
        f"| {accuracy[0]} | {accuracy[1]} |",
        f"| {summary['params']['total']:,} | {teacher['params']['total']:,} |",
        f"| {summary['flops']:,} | {teacher['flops']:,} |",
        "mean [0.5, 0.5, 0.5]",
        "turned upright by the EXIF orientation",
        "random initialisation",
        "64 validation images",
        *(f"| {file} | {(folder / file).stat().st_size:,} |" for file in FILES),
    ):
        assert words in body, words


def test_the_hubs_configuration(exported):
    hub = json.loads((exported("all") / "config.json").read_text(encoding="utf-8"))
    assert (hub["architecture"], hub["backbone"]) == ("nettailor-tailored", "test_resnet")
    assert (hub["num_classes"], hub["tailored"]) == (10, True)
    assert hub["label_names"] == [str(digit) for digit in range(10)]
    assert hub["pretrained_cfg"]["input_size"] == [3, 32, 32]
    hub = json.loads((exported("teacher") / "config.json").read_text(encoding="utf-8"))
    assert (hub["architecture"], hub["tailored"]) == ("test_resnet", False)


@pytest.mark.parametrize("name", ["all", "task"])
def test_nothing_tells_of_this_machine(runs, exported, name):
    folder = exported(name)
    found = contents(folder)
    found |= {f"model.pt2/{file}": held for file, held in entries(folder / "model.pt2").items()}
    assert len(found) > len(FILES) + 3
    repository = Path(export.__file__).parents[1]
    traces = (
        str(repository), str(Path(torch.__file__).parents[1]), str(folder), str(runs[name]),
        "site-packages", "stack_trace", "Traceback", "nettailor/",
    )  # fmt: skip
    for file, content in found.items():
        for trace in traces:
            assert trace.encode() not in content, f"{trace} in {file}"
        assert not re.search(rb"\w\.py\b", content), file


def test_int8_is_checked_in_both_runtimes(runs, exported):
    """Its accuracy in each, and the network's own, on all validation images."""
    pytest.importorskip("openvino")
    card = (exported("teacher") / "README.md").read_text(encoding="utf-8")
    share = r"(\d+\.\d\d) %"
    told = re.search(
        rf"\| model.int8.onnx .*\| on validation {share} in ONNX Runtime, {share} in OpenVINO, "
        rf"{share} in float \|",
        card,
    )
    assert told is not None
    in_runtime, in_openvino, in_float = map(float, told.groups())
    assert in_float == pytest.approx(summary_of(runs["teacher"])["accuracy"]["val"], abs=0.005)
    assert abs(in_openvino - in_runtime) <= 5
    assert in_runtime > in_float - 10


# Going on with the files


def test_a_candidate_inside_a_run(runs, tmp_path):
    """Its data is that of the run; the test split was not read for it."""
    folder, run = tmp_path / "to", str(runs["candidate"])
    export.main(["--run", run, "--to", str(folder), "--format", "safetensors"])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "64 validation images" in card
    assert "| accuracy, test % | – |" in card
    mine, again = (load_network(place)[0].state_dict() for place in (runs["candidate"], folder))
    assert mine.keys() == again.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in mine.items())


@pytest.mark.parametrize(("batch_size", "few", "read"), [(16, None, 64), (64, 1, 1), (64, 2, 2)])
def test_as_many_images_are_read_as_compared(runs, tmp_path, monkeypatch, batch_size, few, read):
    """64 in whole batches, or all where validation holds fewer: one, or two."""
    seen: list[int] = []

    class Counted(loaders.EvalLoader):
        def __iter__(self) -> Callable:
            for images, labels in super().__iter__():
                seen.append(len(images[:few]))
                yield images[:few], labels[:few]
                if few:
                    return

    monkeypatch.setattr(loaders, "EvalLoader", Counted)
    run = tmp_path / "run"
    shutil.copytree(runs["teacher"], run)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    settings = yaml.safe_dump(config | {"batch_size": batch_size})
    (run / "config.yaml").write_text(settings, encoding="utf-8")
    export.main(["--run", str(run), "--format", "safetensors"])
    card = (run / "export" / "README.md").read_text(encoding="utf-8")
    assert f"Compared on {read} validation image" in card
    assert seen == [min(batch_size, read)] * -(-read // batch_size)
