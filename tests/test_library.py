"""A library of ten tasks: one backbone in memory, packs read when used, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import refused
from pack_runs import images, run_of, weights_in
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nettailor.cli import predict
from nettailor.core.errors import UserError
from nettailor.library import Library
from nettailor.network import load_network
from nettailor.packing import add_to_library
from nettailor.packs import shared_names
from nettailor.student.wiring import Path as Way
from nettailor.student.wiring import Wiring

_NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, _NO_CUDA])]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return weights_in(tmp_path_factory.mktemp("weights"))


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.named_parameters()) | dict(network.named_buffers())


def stored(*tensors: Tensor) -> int:
    """Bytes of the distinct storages behind tensors."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.fixture(scope="module")
def ten(weights, tmp_path_factory):
    """A library of ten tasks, of all policies, of several wirings, class counts and sizes."""
    folder = tmp_path_factory.mktemp("ten")
    short = Wiring(5, (Way(0, 1, "block"), Way(1, 2, "block"), Way(2, 5, "exit")))
    for number in range(10):
        run = run_of(
            folder / f"task-{number}",
            weights("test_resnet"),
            seed=number,
            classes=2 + number,
            image_size=32 if number % 2 else 64,
            batch_norm=("train", "follow", "frozen")[number % 3],
            adapters=number % 2 == 0,
            cut=short if number > 6 else None,
        )
        add_to_library(run, folder / "library")
    return folder


@pytest.fixture(scope="module")
def alone(ten):
    """What each task's run answers by itself, and the bytes of its tensors."""
    found = {}
    for run in ten.glob("task-*"):
        network, _ = load_network(run)
        with torch.no_grad():
            found[run.name] = network(images()).logits, stored(*tensors_of(network).values())
    return found


def held_by(library: Library) -> dict[str, Tensor]:
    """The backbone's tensors in memory, by their names in the chain."""
    assert library._shared is not None
    return dict(library._shared._held)


@pytest.mark.parametrize("device", DEVICES)
def test_pretrained_tensors_are_one_and_the_same(ten, alone, device):
    library = Library(ten / "library").to(device)
    assert len(library.tasks) == 10
    for task in 2 * library.tasks:  # each is placed after others, and unmoved by what came after it
        torch.testing.assert_close(library[task](images()).cpu(), alone[task][0])
    pointers: dict[str, set[int]] = {}
    for task in library.tasks:
        student = library[task].network
        values = tensors_of(student)
        assert all(value.device.type == device for value in values.values())
        for name, shared in shared_names(student).items():
            pointers.setdefault(shared, set()).add(values[name].data_ptr())
            if values[name].ndim == 4:
                assert values[name].is_contiguous(memory_format=torch.channels_last)
    assert len(pointers) > 10
    assert all(len(places) == 1 for places in pointers.values())
    own = [
        value.data_ptr()
        for task in library.tasks
        for name, value in tensors_of(library[task].network).items()
        if name not in shared_names(library[task].network)
    ]
    assert len(set(own)) == len(own), "what a task owns is its alone"


def test_ten_tasks_cost_one_backbone_and_ten_packs(ten, alone):
    library = Library(ten / "library")
    networks = [library[task].network for task in library.tasks]
    values = [value for network in networks for value in tensors_of(network).values()]
    held = stored(*values)
    assert stored(*values, *held_by(library).values()) == held
    backbone = load_file(ten / "library" / "backbone" / "backbone.safetensors")
    packs = [load_file(path) for path in ten.glob("library/packs/*/pack.safetensors")]
    assert len(packs) == 10
    numbers = sum(t.nbytes for tensors in (backbone, *packs) for t in tensors.values())
    # of positions, which are worked out
    tables = sum(b.nbytes for network in networks for b in network.path_weights.buffers())
    assert held == numbers + tables
    assert held < sum(numbers for _, numbers in alone.values()) / 3


def test_blocks_that_nobody_uses_cost_nothing(ten):
    """Tasks 7 and 8 end after two blocks of four; 7 and 1 own the same kind of tensors."""
    library = Library(ten / "library")
    values = tensors_of(library["task-7"].network)
    names = shared_names(library["task-7"].network)
    short = held_by(library)
    assert short.keys() == set(names.values())
    assert not any(name.startswith(("blocks.2.", "blocks.3.")) for name in short)
    library["task-1"]
    whole = held_by(library)
    assert whole.keys() > short.keys()
    assert all(whole[name] is tensor for name, tensor in short.items())
    assert all(values[name] is whole[chain] for name, chain in names.items())


def test_switching_is_a_look_up(ten):
    library = Library(ten / "library")
    first = library["task-1"]
    assert library["task-2"] is not first
    assert library["task-1"] is first


def test_nothing_is_read_before_it_is_used(ten, tmp_path):
    folder = shutil.copytree(ten / "library", tmp_path / "library")
    pack = folder / "packs" / "task-1" / "pack.safetensors"
    kept = pack.read_bytes()
    pack.write_bytes(b"garbage")
    library = Library(folder)
    with pytest.raises(UserError, match=r"pack\.safetensors: no readable safetensors file"):
        library["task-1"]
    pack.write_bytes(kept)
    expected = library["task-1"](images())
    shutil.rmtree(pack.parent)  # what is loaded needs its files no more
    (folder / "backbone" / "backbone.safetensors").unlink()
    assert torch.equal(library["task-1"](images()), expected)
    assert library["task-4"](images()).shape == (3, 6), "of the same blocks and policy"


def merged(content: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The content with new values, also deeper in it."""
    deeper = {k: merged(content[k], v) for k, v in new.items() if isinstance(v, dict)}
    return content | new | deeper


def damage(file: Path, new: Any) -> None:
    """Takes a file away, or gives it other bytes, other tensors, or other values in its JSON."""
    if new is None:
        file.unlink()
    elif isinstance(new, bytes):
        file.write_bytes(new)
    elif callable(new):
        save_file(new(load_file(file)), file)
    else:
        content = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(merged(content, new)), encoding="utf-8")


def of_architecture(**new: Any) -> dict[str, Any]:
    return {"architecture": new}


def of_student(**new: Any) -> dict[str, Any]:
    return of_architecture(student=new)


def spoilt(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t * float("nan") if t.is_floating_point() else t for n, t in tensors.items()}


@pytest.mark.parametrize(
    ("file", "new", "words"),
    [
        ("pack.json", b"{", r"pack\.json: no readable JSON"),
        ("pack.json", b"[]", r"pack\.json: content: "),
        (
            "pack.json",
            of_architecture(weights_digest=""),
            "from another backbone: test_resnet, weights ''; .* holds test_resnet, weights ",
        ),
        ("pack.json", of_architecture(backbone="x"), "from another backbone: x, weights"),
        ("pack.json", of_architecture(backbone="\nx"), r"from another backbone: \\nx, weights"),
        ("pack.json", {"sha256": 5}, "sha256: "),
        ("pack.safetensors", spoilt, "damaged, or not the weights"),
        ("pack.safetensors", None, "not found"),
        ("pack.json", of_architecture(classes=["a", "b", "c"]), r"class count: heads\."),
        ("pack.json", of_student(adapters=False), r"unexpected adapters\."),
        ("pack.json", of_student(finetune="all"), "holds a network that stands alone"),
        ("pack.json", of_student(paths=[]), "student.paths make no student"),
    ],
)
def test_a_damaged_pack_is_not_loaded(ten, tmp_path, file, new, words):
    library = shutil.copytree(ten / "library", tmp_path / "library")
    damage(library / "packs" / "task-4" / file, new)
    with refused(words):
        Library(library)["task-4"]


@pytest.mark.parametrize(
    ("file", "new", "words"),
    [
        ("backbone.json", None, "holds no library"),
        ("backbone.json", {"digest": "0"}, "another backbone"),
        ("backbone.json", {"backbone": "resnet18"}, "another backbone"),
        ("backbone.safetensors", b"", "no readable safetensors"),
        (
            "backbone.safetensors",
            lambda tensors: {n: t + (t.ndim == 4) for n, t in tensors.items()},
            "damaged, or other weights",
        ),
        (
            "backbone.safetensors",
            lambda _: {"stem.x": torch.ones(1)},
            "weights of another network",
        ),
    ],
)
def test_a_damaged_backbone(ten, tmp_path, file, new, words):
    folder = shutil.copytree(ten / "library", tmp_path / "library")
    damage(folder / "backbone" / file, new)
    with refused(words):
        Library(folder)["task-1"]


def test_no_such_task_and_no_images(ten):
    library = Library(ten / "library")
    with pytest.raises(UserError, match=r"no task 'task-11'; did you mean 'task-1'.*task-9$"):
        library["task-11"]
    raw = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    for wrong in (torch.zeros(3, 32, 32), torch.zeros(1, 4, 32, 32), raw):
        with pytest.raises(UserError, match=r"expected float32 \(B, 3, S, S\)"):
            library["task-1"](wrong)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--library", "{}"], "say which --task; there is task-0, task-1"),
        (["--library", "{}", "--task", "cats"], "no task 'cats'; there is task-0"),
        (["--library", ".", "--task", "cats"], r"\.: holds no library .*`python -m nettailor.expo"),
        (["--task", "cats"], "--task is the name of a library's task: give --library as well"),
        (["--run", "{}", "--task", "cats"], "--task is the name of a library's task"),
        (["--library", "{}", "--run", "{}"], "--run and --library were both given"),
        (["--library", "{}", "--backbone", "resnet18"], "--library and --backbone were both given"),
        (["--library", "{}", "--weights", "auto"], "--library and --weights were both given"),
    ],
)
def test_flags_that_do_not_go_together(ten, tmp_path, flags, words):
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    argv = [flag.format(ten / "library") for flag in flags]
    with refused(words):
        predict.main([str(tmp_path / "image.png"), *argv, "--device", "cpu"])
