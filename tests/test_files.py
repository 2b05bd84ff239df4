"""Files: whole or not there, and nothing runs when one is read."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from payload import Payload
from safetensors.torch import save_file
from torch import nn

from nettailor.core.errors import UserError
from nettailor.core.files import (
    load_exactly,
    read_json,
    read_weights,
    write_atomically,
    write_json,
    write_text,
    write_weights,
)
from nettailor.core.state import write_state

resource = pytest.importorskip("resource", reason="file size limits are a POSIX thing")


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 1 KiB, as on a disk that runs full.

    Not a fixture: pytest writes its own progress, maybe into a file, while one is in force.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_text_makes_its_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "first")
    write_text(path, "zweite, größer")
    assert path.read_text(encoding="utf-8") == "zweite, größer"
    assert names(path.parent) == ["c.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_interrupted_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "c.txt"
    write_text(path, "old")

    def half(temporary):
        temporary.write_text("ne", encoding="utf-8")
        raise error

    with pytest.raises(error):
        write_atomically(path, half)
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["c.txt"]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "x" * 10_000),
        lambda path: write_json(path, ["x"] * 10_000),
        lambda path: write_state(path, {"tensor": torch.zeros(10_000)}),
        lambda path: write_weights(path, nn.Linear(100, 100)),
    ],
    ids=["text", "json", "state", "weights"],
)
def test_full_disk_leaves_the_old_file(tmp_path, write):
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")
    refusal = r"^cannot write \S+file: [^\n]+ another place$"
    with pytest.raises(UserError, match=refusal), full_disk():
        write(path)
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["file"]


def test_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "plain").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot write .*c\.txt: (Not a directory|File exists)"):
        write_text(tmp_path / "plain" / "c.txt", "x")
    assert (tmp_path / "plain").read_text(encoding="utf-8") == "mine"


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 2.5, None, "ü"]})
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None, "ü"]}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_what_is_no_number(tmp_path, number):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": number})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == 1


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 100_000])
def test_damaged_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: no readable JSON \(.*; delete it or restore"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("read", [read_json, read_weights])
def test_missing_file(tmp_path, read):
    with pytest.raises(UserError, match=r"absent: not found$"):
        read(tmp_path / "absent")


def test_weights_come_back_exactly(tmp_path):
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    write_weights(tmp_path / "w.safetensors", network)
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    load_exactly(other, read_weights(tmp_path / "w.safetensors"), "w")
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_truncated_weights(tmp_path, keep):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"w\.safetensors: no readable safetensors file"):
        read_weights(path)


def test_pickle_under_another_name(tmp_path):
    path, victim = tmp_path / "w.safetensors", tmp_path / "victim"
    torch.save({"a": Payload(victim)}, path)
    with pytest.raises(UserError, match=r"no readable safetensors file .*nothing was loaded"):
        read_weights(path)
    assert not victim.exists()


def test_folder_in_place_of_weights(tmp_path):
    with pytest.raises(UserError, match="no readable safetensors file"):
        read_weights(tmp_path)


def test_weights_that_do_not_fit():
    network = nn.Linear(3, 2)
    before = network.weight.clone()
    tensors = {"weight": torch.zeros(2, 4), "bisa": torch.zeros(2)}
    with pytest.raises(UserError) as caught:
        load_exactly(network, tensors, "w.safetensors")
    assert str(caught.value) == (
        "w.safetensors: weights of another network or class count: missing bias; unexpected bisa; "
        "weight is (2, 4), expected (2, 3)"
    )
    assert torch.equal(network.weight, before)


def test_many_misfits_are_counted():
    tensors = {f"t{number}": torch.zeros(1) for number in range(9)}
    with pytest.raises(UserError, match=r"t2 and 6 more$"):
        load_exactly(nn.Linear(3, 2), tensors, "w")


def test_temporary_names_are_of_this_process(tmp_path):
    seen: list[str] = []

    def write(temporary):
        seen.append(temporary.name)
        temporary.write_text("x", encoding="utf-8")

    write_atomically(tmp_path / "a", write)
    assert seen == [f".a.{os.getpid()}.tmp"]


def test_a_tensor_of_two_names_is_written_under_both(tmp_path):
    layer = nn.Linear(3, 2)
    write_weights(tmp_path / "tied", nn.Sequential(layer, nn.ReLU(), layer))
    found = read_weights(tmp_path / "tied")
    assert found.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert torch.equal(found["2.weight"], layer.weight)
