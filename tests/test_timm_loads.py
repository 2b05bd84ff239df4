"""An exported folder in timm: a whole backbone is loaded, anything else is refused."""

from pathlib import Path

import pytest
import timm
import torch
from conftest import enliven, lively_chain
from networks import architecture_of as described
from networks import student_of
from safetensors.torch import load_file

from nettailor.cli import export
from nettailor.core.architecture import (
    Architecture,
    EliminatedStructure,
    NarrowedStructure,
    ScaledStructure,
    SearchedBlock,
    SearchedStructure,
)
from nettailor.core.backbone import Backbone, backbone_of
from nettailor.core.compound_scaling import make_scaled
from nettailor.core.preprocessing import Preprocessing
from nettailor.core.vocabulary import searched_chain
from nettailor.core.weights import load_pretrained, universal_digest
from nettailor.network import load_network, save_network
from nettailor.prune.eliminate import eliminate
from nettailor.student.network import Student

CLASSES = ("fuchs", "wolf: grau", "bär 🐻")


pytestmark = pytest.mark.usefixtures("_quickly")


def architecture_of(backbone: str, **structure: object) -> Architecture:
    preprocessing = Preprocessing(64, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", 0.9)
    return described(backbone, CLASSES, preprocessing=preprocessing, **structure)


def exported(folder: Path, network: Backbone | Student, architecture: Architecture) -> Path:
    save_network(folder / "run", network, architecture)
    argv = ["--run", str(folder / "run"), "--to", str(folder / "to")]
    export.main([*argv, "--format", "safetensors"])
    return folder / "to"


@pytest.mark.parametrize(
    "backbone",
    [
        "test_resnet.r160_in1k",  # with a tag
        "test_efficientnet",
        "mobilenetv3_small_050",
        "regnety_002",
        "test_convnext",
        "tf_efficientnet_lite0",
    ],
)
def test_a_whole_network_is_timms_own(tmp_path, backbone):
    chain = lively_chain(backbone, len(CLASSES))
    folder = exported(tmp_path, chain, architecture_of(backbone))
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        expected, found = chain(images).logits, model(images)
    assert float(expected.std()) > 0.01
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert set(load_file(folder / "model.safetensors")) == set(model.state_dict())
    data = timm.data.resolve_data_config(model=model)
    told = [list(data[key]) for key in ("input_size", "mean", "std")]
    assert told == [[3, 64, 64], [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]]
    assert (data["interpolation"], data["crop_pct"]) == ("bilinear", 0.9)
    assert model.pretrained_cfg["label_names"] == list(CLASSES)


def test_timm_goes_on_to_other_classes(tmp_path):
    chain = lively_chain("test_resnet", len(CLASSES))
    folder = exported(tmp_path, chain, architecture_of("test_resnet"))
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=7)
    assert torch.equal(model.conv1[0].weight, chain.get_parameter("stem.conv1.0.weight"))
    assert model.fc.out_features == 7


def test_what_was_exported_is_read_again(tmp_path):
    """By another export, and as the weights of another task."""
    chain = lively_chain("test_convnext", len(CLASSES))
    folder = exported(tmp_path, chain, architecture_of("test_convnext"))
    again, _ = load_network(folder)
    state = chain.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
    export.main(["--run", str(folder), "--to", str(tmp_path / "twice"), "--format", "safetensors"])
    assert (tmp_path / "twice" / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
    other, source = load_pretrained("test_convnext", 9, str(folder))
    assert source == (f"teacher {folder}", universal_digest(chain))
    assert other.classifier.out_features == 9


SEARCHED = SearchedStructure(
    stem=8,
    blocks=(
        SearchedBlock(
            kind="InvertedResidualV2", channels=16, stride=2, kernel=3, activation="relu6",
            expansion=2, repeats=1,
        ),
    ),
    head=32,
)  # fmt: skip


def tailored() -> tuple[Student, Architecture]:
    chain = lively_chain("test_resnet", len(CLASSES))
    student = student_of(chain, 1, beside=False)
    return student, architecture_of("test_resnet")


def eliminated() -> tuple[Backbone, Architecture]:
    chain = eliminate(lively_chain("test_resnet", len(CLASSES)), 2, replacement=False)
    structure = EliminatedStructure(blocks=2, replacement=False)
    return chain, architecture_of("test_resnet", eliminated=structure)


def scaled() -> tuple[Backbone, Architecture]:
    chain = backbone_of(make_scaled("efficientnet_b0", len(CLASSES), depth=0.5, width=0.5))
    structure = ScaledStructure(depth=0.5, width=0.5)
    return chain, architecture_of("efficientnet_b0", scaled=structure)


def narrowed() -> tuple[Backbone, Architecture]:
    """All widths as they were: even so it is another structure."""
    structure = NarrowedStructure(layers={}, nodes=None)
    chain = lively_chain("test_resnet", len(CLASSES))
    return chain, architecture_of("test_resnet", narrowed=structure)


def searched() -> tuple[Backbone, Architecture]:
    chain = searched_chain(SEARCHED, len(CLASSES))
    return chain, architecture_of("test_efficientnet", searched=SEARCHED)


@pytest.mark.parametrize("make", [tailored, eliminated, scaled, narrowed, searched])
def test_timm_refuses_any_other_structure(tmp_path, make):
    network, architecture = make()
    enliven(network)
    folder = exported(tmp_path, network, architecture)
    name = make.__name__
    for pretrained in (True, False):
        with pytest.raises(RuntimeError, match=rf"Unknown model \(nettailor-{name}\)"):
            timm.create_model(f"local-dir:{folder}", pretrained=pretrained)
    again, _ = load_network(folder)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = network.eval()(images).logits, again(images).logits
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
