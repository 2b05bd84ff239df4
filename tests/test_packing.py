"""Packs: what one holds, that it says what its run says, which runs have none."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import enliven
from pack_runs import images, own_logits, run_of, weights_in
from safetensors.torch import load_file, save_file

from nettailor.core.errors import UserError
from nettailor.core.families import make_network
from nettailor.core.weights import load_pretrained
from nettailor.library import Library
from nettailor.network import load_network, save_network
from nettailor.packing import add_to_library
from nettailor.student.network import Student


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return weights_in(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("test_resnet", {"adapters": True}),
        ("test_resnet", {"skips": 2, "beside": False, "batch_norm": "follow"}),
        ("test_resnet", {"skips": 1, "batch_norm": "frozen"}),
        ("test_efficientnet", {"adapters": True, "skips": 1}),
        ("test_efficientnet", {"batch_norm": "follow"}),
        ("test_convnext", {"adapters": True}),
        ("resnetblur50", {}),  # its filters for blurring are in no file
    ],
)
def test_a_task_says_what_its_run_says(weights, tmp_path, backbone, settings):
    run = run_of(tmp_path / "zoo", weights(backbone), **settings)
    add_to_library(run, tmp_path / "library")
    library = Library(tmp_path / "library")
    assert library.tasks == ("zoo",)
    for side, count in ((32, 3), (64, 1)):
        logits = library["zoo"](images(side, count))
        assert torch.equal(logits, own_logits(run, images(side, count)))
        assert logits.shape == (count, 4)
        assert logits.std() > 0


@pytest.mark.parametrize(
    ("batch_norm", "affine", "statistics"),
    [("train", True, True), ("follow", False, True), ("frozen", False, False)],
)
def test_a_pack_holds_what_the_task_owns(weights, tmp_path, batch_norm, affine, statistics):
    """Even where a value equals the backbone's: seed 1 wrote both."""
    run = run_of(tmp_path / "zoo", weights("test_resnet"), batch_norm=batch_norm, adapters=True)
    pack = load_file(add_to_library(run, tmp_path / "library") / "pack.safetensors")
    whole = load_file(run / "model.safetensors")
    universal = {name for name in whole if name.startswith(("stem.", "blocks."))}
    inside = universal & pack.keys()
    norms = {name.rpartition(".")[0] for name in whole if name.endswith("running_mean")}
    assert norms
    expected = set()
    for norm in norms:
        if affine:
            expected |= {f"{norm}.weight", f"{norm}.bias"}
        if statistics:
            parts = ("running_mean", "running_var", "num_batches_tracked")
            expected |= {f"{norm}.{part}" for part in parts}
    assert inside == expected & universal
    assert pack.keys() - inside == whole.keys() - universal
    assert all(torch.equal(pack[name], whole[name]) for name in pack)


# Runs that have no pack


def test_a_run_whose_blocks_moved(weights, tmp_path):
    run = run_of(tmp_path / "zoo", weights("test_resnet"))
    tensors = load_file(run / "model.safetensors")
    name = next(name for name in tensors if name.startswith("blocks.") and tensors[name].ndim == 4)
    tensors[name].flatten()[5] = torch.nextafter(tensors[name].flatten()[5], torch.tensor(9.0))
    save_file(tensors, run / "model.safetensors")
    with pytest.raises(UserError, match=r"1 of its shared tensors.*`.*tailor --finetune task`"):
        add_to_library(run, tmp_path / "library")
    assert not (tmp_path / "library").exists()


def test_runs_that_share_nothing(weights, tmp_path):
    run = run_of(tmp_path / "zoo", weights("test_resnet"))
    network, architecture = load_network(run)
    assert isinstance(network, Student)
    network.finetune_all()
    save_network(run, network, architecture)
    with pytest.raises(
        UserError, match=r"stands alone.*`python -m nettailor.tailor --finetune tas"
    ):
        add_to_library(run, tmp_path / "library")
    chain, _ = load_pretrained("test_resnet", 4, str(weights("test_resnet")))
    plain = architecture.model_copy(update={"student": None})
    save_network(tmp_path / "teacher", chain, plain)
    with pytest.raises(UserError, match="holds no tailored network"):
        add_to_library(tmp_path / "teacher", tmp_path / "library")
    with pytest.raises(UserError, match=r"architecture\.json: not found"):
        add_to_library(tmp_path / "nowhere", tmp_path / "library")
    assert not (tmp_path / "library").exists()


def test_weights_that_are_no_longer_there(weights, tmp_path):
    mine = Path(shutil.copy(weights("test_resnet"), tmp_path))
    run = run_of(tmp_path / "zoo", mine)
    save_file(enliven(make_network("test_resnet", 7), 99).state_dict(), mine)
    with pytest.raises(UserError, match="are no longer those that the run was made from"):
        add_to_library(run, tmp_path / "library")
    mine.unlink()
    with pytest.raises(UserError, match="no such file"):
        add_to_library(run, tmp_path / "library")
    (run / "config.yaml").write_text("[", encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.yaml cannot be read"):
        add_to_library(run, tmp_path / "library")
    (run / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"config\.yaml: not found"):
        add_to_library(run, tmp_path / "library")
    (run / "config.yaml").write_text("data: zoo", encoding="utf-8")
    with pytest.raises(UserError, match="weights is missing"):
        add_to_library(run, tmp_path / "library")
    assert not (tmp_path / "library").exists()


def test_a_run_of_another_backbone(weights, tmp_path):
    library = tmp_path / "library"
    add_to_library(run_of(tmp_path / "zoo", weights("test_resnet")), library)
    other = run_of(tmp_path / "other", weights("test_efficientnet"))
    with pytest.raises(
        UserError, match=r"made from another backbone: test_efficientnet, .* give another lib"
    ):
        add_to_library(other, library)
    file = tmp_path / "test_resnet.safetensors"
    save_file(enliven(make_network("test_resnet", 7), 99).state_dict(), file)
    with pytest.raises(UserError, match=r"another backbone: test_resnet, .* another library"):
        add_to_library(run_of(tmp_path / "elsewhere", file), library)
    assert Library(library).tasks == ("zoo",)


def test_names(weights, tmp_path):
    run, library = run_of(tmp_path / "zoo", weights("test_resnet")), tmp_path / "library"
    for wrong in ("", ".", "..", "a/b", "/a", ".hidden", "a\n", "a\0", "x" * 101, "end."):
        with pytest.raises(UserError, match="is no name for a task"):
            add_to_library(run, library, wrong)
    assert not library.exists()
    for good in ("tiere 2", "Füchse", "v1.5_a-b"):
        assert add_to_library(run, library, good).name == good
    assert add_to_library(run, library) == library / "packs" / "zoo"
    assert Library(library).tasks == tuple(sorted(["tiere 2", "Füchse", "v1.5_a-b", "zoo"]))


def test_a_pack_is_not_overwritten_unasked(weights, tmp_path):
    library = tmp_path / "library"
    folder = add_to_library(run_of(tmp_path / "one", weights("test_resnet")), library, "zoo")
    before = {path: path.read_bytes() for path in library.rglob("*.*") if path.is_file()}
    other = run_of(tmp_path / "two", weights("test_resnet"), seed=5)
    with pytest.raises(UserError, match="of that name; give another name with --task, or --ov"):
        add_to_library(other, library, "zoo")
    assert before == {path: path.read_bytes() for path in library.rglob("*.*") if path.is_file()}
    assert add_to_library(other, library, "zoo", overwrite=True) == folder
    assert torch.equal(Library(library)["zoo"](images()), own_logits(other, images()))
    assert [path.name for path in (library / "packs").iterdir()] == ["zoo"]


def test_a_library_that_cannot_be_written(weights, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        add_to_library(run_of(tmp_path / "zoo", weights("test_resnet")), tmp_path / "file")
