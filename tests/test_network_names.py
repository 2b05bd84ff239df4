"""Networks by their names, of timm and torchvision, and the names of their tensors."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from layouts import images_for
from networks import enliven
from safetensors.torch import save_file

from nettailor.core.backbone import Backbone, create_backbone
from nettailor.core.chain import chain_of
from nettailor.core.families import classifier_prefixes, make_network
from nettailor.core.timm_names import to_chain, to_timm
from nettailor.core.weights import load_pretrained

CLASSES = 5


def own_names(name: str, chain: Backbone, image_size: int | None = None) -> Any:
    """The chain's name of each tensor by the network's."""
    names: Any = {own: own for own in chain.state_dict()}
    return to_timm(name, names, image_size)


@pytest.mark.parametrize(
    "name",
    [
        "test_vit", "test_mambaout", "torchvision:resnet18", "torchvision:squeezenet1_1",
        "coat_lite_tiny",  # which has tensors that several of its blocks share
    ],
)  # fmt: skip
def test_names_go_in_and_out(name: str) -> None:
    network = enliven(make_network(name, CLASSES)).eval()
    state = network.state_dict()
    chain = create_backbone(name, CLASSES).eval()
    chain.load_state_dict(to_chain(name, state))
    images = images_for(chain)
    with torch.no_grad():
        assert torch.equal(chain(images).logits, network(images))
    back = to_timm(name, chain.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())
    prefixes = classifier_prefixes(network)
    fresh = [own for theirs, own in own_names(name, chain).items() if theirs.startswith(prefixes)]
    assert fresh
    assert all(key.startswith("classifier.") for key in fresh)


def test_a_network_that_computes_with_values_is_made_without_any() -> None:
    with torch.device("meta"):
        network = make_network("torchvision:regnet_y_400mf", CLASSES)
    assert all(tensor.is_meta for tensor in network.state_dict().values())
    assert chain_of(network).shapes[-1] == (440, 8, 8)


def test_a_network_of_one_size_is_made_for_another() -> None:
    chain = create_backbone("test_vit", CLASSES, 96)
    assert chain.example == (3, 96, 96)
    with torch.no_grad():
        assert chain(torch.randn(2, 3, 96, 96)).logits.shape == (2, CLASSES)
    assert create_backbone("test_vit", CLASSES).example == (3, 160, 160)


@pytest.mark.parametrize(
    ("name", "image_size"), [("torchvision:googlenet", None), ("test_vit3", 96), ("test_vit", None)]
)
def test_files_of_weights_go_in(tmp_path: Path, name: str, image_size: int | None) -> None:
    torch.manual_seed(0)
    *_, architecture = name.split(":")
    whole = (
        torchvision.models.get_model(architecture, init_weights=False)
        if name.startswith("torchvision")
        else timm.create_model(name)
    )
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    chain, source = load_pretrained(name, CLASSES, f"{tmp_path}/weights.safetensors", image_size)
    assert source.origin == f"file {tmp_path}/weights.safetensors"
    assert chain.classes == CLASSES
    given = whole.state_dict()
    for theirs, own in own_names(name, chain, image_size).items():
        if not own.startswith("classifier.") and "pos_embed" not in theirs:
            assert torch.equal(chain.state_dict()[own], given[theirs]), theirs
