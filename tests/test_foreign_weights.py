"""Checkpoints as timm, torchvision, Lightning and hubs leave them."""

import argparse
import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from conftest import enliven
from networks import architecture_of, refused
from safetensors.torch import save_file
from torch import Tensor, nn

from nettailor.core.errors import UserError
from nettailor.core.families import make_network
from nettailor.core.weights import load_pretrained, load_with_classifier, universal_digest
from nettailor.deploy.about import without_places
from nettailor.network import load_network

BACKBONE = "test_resnet"
State = dict[str, Tensor]


def state_of(seed: int) -> State:
    network = make_network(BACKBONE, 5)
    enliven(network, seed)
    return network.state_dict()


def digest_of(folder: Path, state: State) -> str:
    """Of the chain that the bare state makes."""
    torch.save(state, folder / "bare.pth")
    return load_pretrained(BACKBONE, 3, str(folder / "bare.pth"))[1].digest


@pytest.mark.parametrize(
    "prefix",
    [
        "module.", "_orig_mod.", "model.", "_orig_mod.module.", "module._orig_mod.",
        "model.module.", "model._orig_mod.module.", "timm_model.",
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_wrappers_prefixes(tmp_path, prefix, ending):
    state = state_of(1)
    wrapped = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    path = tmp_path / f"w{ending}"
    (save_file if ending == ".safetensors" else torch.save)(wrapped, path)
    source = load_pretrained(BACKBONE, 3, str(path))[1]
    assert source == (f"file {path}", digest_of(tmp_path, state))


def test_two_networks_in_one_file(tmp_path):
    state = state_of(1)
    torch.save(state | {f"module.{name}": t for name, t in state.items()}, tmp_path / "w.pth")
    with refused("holds several networks whose names differ by a prefix"):
        load_pretrained(BACKBONE, 3, str(tmp_path / "w.pth"))


def averaged(state: State) -> State:
    """As torchvision's training script saves its averaged model."""
    return {"n_averaged": torch.tensor(7)} | {f"module.{name}": t for name, t in state.items()}


@pytest.mark.parametrize(
    ("save", "ema"),
    [
        (lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema, "epoch": 3}, True),
        (lambda raw, ema: {"model": raw, "model_ema": averaged(ema)}, True),
        (lambda raw, ema: {"model_ema": ema}, True),
        (lambda raw, ema: {"state_dict": raw, "state_dict_ema": None}, False),
        (lambda raw, ema: {"model": raw}, False),
        (lambda raw, ema: {"model": {"state_dict": raw}}, False),
    ],
)
def test_averaged_weights_come_first_and_the_origin_says_so(tmp_path, save, ema):
    raw, mean = state_of(1), state_of(2)
    path = tmp_path / "model_best.pth.tar"
    torch.save(save(raw, mean), path)
    source = load_pretrained(BACKBONE, 3, str(path))[1]
    assert source.digest == digest_of(tmp_path, mean if ema else raw)
    assert source.origin == (f"file {path} (EMA)" if ema else f"file {path}")


def test_the_checkpoint_of_timms_training_script(tmp_path):
    """Written by timm's own saver, with the script's arguments in it."""
    from timm.utils import CheckpointSaver, ModelEmaV3

    network = make_network(BACKBONE, 5)
    enliven(network, 1)
    mean = ModelEmaV3(network)
    enliven(mean.module, 2)
    saver = CheckpointSaver(
        network,
        torch.optim.SGD(network.parameters(), lr=0.1),
        args=argparse.Namespace(model=BACKBONE, lr=0.1),
        model_ema=mean,
        checkpoint_dir=str(tmp_path),
    )
    saver.save_checkpoint(0, 50.0)
    path = tmp_path / "model_best.pth.tar"
    assert isinstance(torch.load(path, weights_only=False)["args"], argparse.Namespace)
    source = load_pretrained(BACKBONE, 3, str(path))[1]
    assert source.origin.endswith("(EMA)")
    assert source.digest == digest_of(tmp_path, mean.module.state_dict())


def test_a_checkpoint_that_holds_itself(tmp_path):
    content: dict[str, object] = {}
    content["model"] = content
    torch.save(content, tmp_path / "w.pth")
    with refused("does not hold a state dict"):
        load_pretrained(BACKBONE, 3, str(tmp_path / "w.pth"))


@pytest.fixture
def clone(tmp_path):
    """A repository as timm pushes it to a hub."""
    folder = tmp_path / "clone"
    folder.mkdir()
    network = timm.create_model(BACKBONE, num_classes=5)
    enliven(network, 1)
    timm.models.save_for_hf(network, folder, safe_serialization="both")
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_the_clone_of_a_hubs_repository(clone, tmp_path, name):
    for other in {"model.safetensors", "pytorch_model.bin"} - {name}:
        (clone / other).unlink()
    chain, source = load_pretrained(BACKBONE, 3, str(clone))
    assert source == (f"folder {clone}", digest_of(tmp_path, state_of(1)))
    # its own classifier as well, where the network is used as it is
    whole, _ = load_with_classifier(BACKBONE, 5, str(clone))
    assert torch.equal(whole.classifier.weight, state_of(1)["fc.weight"])
    private = without_places(
        architecture_of(BACKBONE).model_copy(update={"weights_origin": source.origin})
    )
    assert private.weights_origin == "folder clone"
    assert universal_digest(chain) == source.digest


def test_a_clone_without_weights_or_of_another(clone):
    with refused(r"config.json says 'test_resnet', expected 'test_efficientnet'"):
        load_pretrained("test_efficientnet", 3, str(clone))
    for name in ("model.safetensors", "pytorch_model.bin"):
        (clone / name).unlink()
    with refused("holds neither model.safetensors nor pytorch_model.bin"):
        load_pretrained(BACKBONE, 3, str(clone))
    with pytest.raises(UserError, match=r"architecture\.json: not found"):
        load_network(clone)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("resnet18", "resnet18"),
        ("mobilenet_v2", "mobilenetv2_100"),
        ("efficientnet_b0", "efficientnet_b0"),
        ("mnasnet1_0", "mnasnet_100"),
        ("regnet_y_400mf", "regnety_004"),
    ],
)
def test_torchvisions_names(tmp_path, theirs, ours):
    network = torchvision.models.get_model(theirs, num_classes=6)
    enliven(network)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    chain, _ = load_with_classifier(ours, 6, str(tmp_path / "w.pth"))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = network.eval()(images), chain.eval()(images).logits
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    # and the backbone alone, for another number of classes
    assert load_pretrained(ours, 3, str(tmp_path / "w.pth"))[1].digest == universal_digest(chain)


def test_torchvisions_mobilenet_v3_is_another_network(tmp_path):
    """Its batch norms add 1e-3 to the variance, timm's 1e-5: it would answer otherwise."""
    network = torchvision.models.mobilenet_v3_small()
    assert network.features[0][1].eps == 1e-3
    assert timm.create_model("mobilenetv3_small_100").bn1.eps == 1e-5
    torch.save(network.state_dict(), tmp_path / "w.pth")
    with refused(r"is a checkpoint of another backbone"):
        load_pretrained("mobilenetv3_small_100", 3, str(tmp_path / "w.pth"))


def test_the_authors_names_of_convnext(tmp_path):
    network = make_network("test_convnext", 5)
    enliven(network, 1)
    changes = (
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
        (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
        (r"conv_dw", "dwconv"),
        (r"mlp\.fc", "pwconv"),
        (r"^head\.norm\.", "norm."),
        (r"^head\.fc\.", "head."),
    )
    theirs = {}
    for name, tensor in network.state_dict().items():
        for ours, other in changes:
            name = re.sub(ours, other, name)
        theirs[name] = tensor
    assert "stages.0.0.dwconv.weight" in theirs
    torch.save({"model": theirs}, tmp_path / "theirs.pth")
    torch.save(network.state_dict(), tmp_path / "ours.pth")
    found, expected = (
        load_pretrained("test_convnext", 3, str(tmp_path / f"{whose}.pth"))[1].digest
        for whose in ("theirs", "ours")
    )
    assert found == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_not_finite(tmp_path, value, dtype):
    state = {name: t.to(dtype) if t.ndim == 4 else t for name, t in state_of(1).items()}
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "w.pth")
    with refused(r"w.pth: layer2.0.conv1.weight holds values that are not finite"):
        load_pretrained(BACKBONE, 3, str(tmp_path / "w.pth"))
    # a classifier that is not taken over may be anything
    state = state_of(1)
    state["fc.weight"][:] = value
    torch.save(state, tmp_path / "w.pth")
    load_pretrained(BACKBONE, 3, str(tmp_path / "w.pth"))


def test_other_classes_in_a_checkpoint_stay_blocked(tmp_path):
    """A namespace is plain data; what it holds is looked at all the same."""
    torch.save({"model": state_of(1), "args": argparse.Namespace(x=nn.ReLU())}, tmp_path / "w.pth")
    with refused(r"ReLU, which was blocked: nothing was run from it"):
        load_pretrained(BACKBONE, 3, str(tmp_path / "w.pth"))


@pytest.mark.parametrize("weights", ["hub", "auto"])
def test_weights_out_of_reach_name_what_to_give(monkeypatch, tmp_path, weights):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        load_pretrained("resnet18", 3, weights)
    shown = str(caught.value)
    assert "\n" not in shown
    for words in (
        "the weights of 'resnet18' could not be downloaded",
        "check the connection",
        "download timm/resnet18.a1_in1k elsewhere and give its model.safetensors by --weights PATH",
        "--backbone tf_efficientnet_lite0, whose weights come with efficientnet-lite0",
    ):
        assert words in shown, words
