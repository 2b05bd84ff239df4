"""A narrow network computes what the whole one does without the channels that are gone."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import enliven, lively_chain
from networks import TRANSFORMERS, student_along, student_of, transformer
from torch import nn

from nettailor.core.backbone import Backbone
from nettailor.core.cost import parameters
from nettailor.prune.channels import trace_channels
from nettailor.prune.fold import fold
from nettailor.prune.items import FIXED, Channels
from nettailor.prune.narrow import narrow, positions, resize, widths
from nettailor.student.network import Student
from nettailor.student.wiring import Path


def route() -> Student:
    """What a tailored network is: blocks, identities that pool and pad, an exit."""
    paths = (
        Path(0, 1, "block"), Path(1, 2, "identity"), Path(2, 3, "identity"), Path(3, 4, "block"),
        Path(4, 6, "exit"),
    )  # fmt: skip
    student = student_along("test_efficientnet", 6, *paths, batch_norm="train")
    student.finetune_all()
    enliven(student)
    return student.eval()


def mixed() -> Student:
    """Every kind of path at once, with adapters."""
    student = student_of("test_efficientnet", batch_norm="train", adapters=True)
    student.finetune_all()
    enliven(student)
    return student.eval()


def chain(backbone: str) -> Callable[[], Backbone]:
    return lambda: lively_chain(backbone)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    name: chain(name)
    for name in (
        "test_resnet", "seresnet18", "resnet18d", "test_efficientnet", "tf_efficientnet_lite0",
        "mobilenetv3_small_050", "mnasnet_small", "regnety_002", "ecaresnet26t",
    )
} | {"route": route, "mixed": mixed}  # fmt: skip


def some_kept(channels: Channels) -> np.ndarray:
    """About two thirds of the items, and one of each family at least."""
    kept = np.random.default_rng(0).random(channels.count) < 0.66
    for family in channels.families:
        kept[family.items[0]] = True
    return kept


def deaden(network: nn.Module, channels: Channels, kept: np.ndarray) -> nn.Module:
    """The whole network whose layers read zeros instead of what is dropped."""
    dead = copy.deepcopy(network)
    with torch.no_grad():
        for layer in channels.layers:
            if layer.read is not None:
                gone = torch.as_tensor((layer.read != FIXED) & ~kept[layer.read])
                dead.get_submodule(layer.name).weight[:, gone] = 0
    return dead


@pytest.mark.parametrize("name", NETWORKS)
def test_dead_channels_can_go(name):
    network = NETWORKS[name]().double()
    channels = trace_channels(network, 64)
    kept = some_kept(channels)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    small = narrow(network, channels, kept)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        whole, dead = network(images), deaden(network, channels, kept)(images)
        mine = small(images)
        plain = fold(small)(images)
    scale = dead.logits.abs().max()
    assert (mine.logits - dead.logits).abs().max() < 1e-9 * scale
    assert (whole.logits - dead.logits).abs().max() > 1e-3 * scale  # what went did matter
    assert (plain - mine.logits).abs().max() < 1e-9 * scale
    for one, other, items in zip(mine.nodes, dead.nodes, channels.nodes, strict=True):
        if items is not None:
            other = other[:, positions(items, kept)]
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert parameters(small) < 0.8 * parameters(network)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", [*NETWORKS, *TRANSFORMERS])
def test_widths_say_all_that_rebuilding_takes(name):
    network = transformer(name) if name in TRANSFORMERS else NETWORKS[name]()
    channels = trace_channels(network, 64)
    small = narrow(network, channels, some_kept(channels))
    twin = copy.deepcopy(network)
    nodes = [spec.channels for spec in small.specs] if isinstance(small, Student) else None
    resize(twin, widths(small), nodes, 64)
    assert {n: t.shape for n, t in twin.state_dict().items()} == {
        n: t.shape for n, t in small.state_dict().items()
    }
    twin.load_state_dict(small.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(twin(images).logits, small(images).logits)


def test_everything_kept_changes_nothing():
    network = route()
    channels = trace_channels(network, 32)
    same = narrow(network, channels, np.ones(channels.count, dtype=bool))
    assert widths(same) == widths(network)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(same(images).logits, network(images).logits)


@pytest.mark.parametrize(
    ("layers", "nodes", "fault"),
    [
        ({"nowhere": (1, 1)}, None, "there is no layer nowhere"),
        ({"classifier": (5, 0)}, None, "classifier has widths"),
        ({"classifier": (5,)}, None, "classifier has widths"),
        ({"classifier": (5, 10**9)}, None, "classifier has widths"),
        ({"neck.conv_head": (7, 64)}, None, "the layers do not fit together"),
        ({"classifier": (4, 256)}, None, "classifier has 4 classes, expected 5"),
        ({}, (1, 2), "a student, and nothing else"),
    ],
)
def test_widths_of_no_network(layers, nodes, fault):
    with pytest.raises(ValueError, match=fault):
        resize(lively_chain("test_efficientnet"), layers, nodes, 64)


@pytest.mark.parametrize("nodes", [None, (1, 1), (0, 16, 24, 32, 48, 64), (999,) * 6])
def test_nodes_of_no_student(nodes):
    with pytest.raises(ValueError, match="nodes"):
        resize(route(), {}, nodes, 64)
