"""Which channels go together, and which networks are refused."""

import numpy as np
import pytest
import torch
from conftest import lively_chain
from networks import student_of
from torch import Tensor, nn
from torch.nn import functional as F

from nettailor.core.backbone import NetOutput
from nettailor.core.cost import module_flops
from nettailor.core.errors import UserError
from nettailor.prune.channels import trace_channels
from nettailor.prune.items import FIXED, Channels

NETWORKS = (
    "test_resnet", "resnet18d", "seresnet18", "test_efficientnet", "tf_efficientnet_lite0",
    "mnasnet_small", "mobilenetv3_small_050", "mobilenetv4_conv_small_035", "regnety_002",
)  # fmt: skip


class Net(nn.Module):
    """Gives what its `through` makes of the images, pooled and classified."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, 3)

    def through(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> NetOutput:
        node = self.through(images)
        return NetOutput(self.classifier(node.mean((2, 3))), [node])


class Residual(Net):
    """x + c(b(x)) after a(images): 4 channels tied by the sum, 6 in between."""

    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)
        self.norm = nn.BatchNorm2d(6)

    def through(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return x + self.c(F.relu(self.norm(self.b(x))))


def items(channels: Channels, place: str, dim: int = 0) -> list[int]:
    found: list[int] = channels.places[place, dim].tolist()
    return found


def test_a_residual_sum_ties_and_its_inside_is_free():
    channels = trace_channels(Residual(), 8)
    assert channels.count == 10
    stream = items(channels, "a.weight")
    assert len(set(stream)) == 4
    for place, dim in (("a.bias", 0), ("b.weight", 1), ("c.weight", 0), ("classifier.weight", 1)):
        assert items(channels, place, dim) == stream
    inside = items(channels, "b.weight")
    assert len(set(inside)) == 6
    assert not set(inside) & set(stream)
    for place, dim in (("norm.weight", 0), ("norm.running_var", 0), ("c.weight", 1)):
        assert items(channels, place, dim) == inside
    assert items(channels, "classifier.bias") == [FIXED] * 3
    assert [node.tolist() for node in channels.nodes if node is not None] == [stream]
    assert sorted(len(family.items) for family in channels.families) == [4, 6]


class Gated(Net):
    """Squeeze-and-excitation around a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__(8)
        self.expand, self.depthwise = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def through(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.expand(x))
        return x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True))).sigmoid()


def test_depthwise_convolution_and_excitation_tie():
    channels = trace_channels(Gated(), 8)
    wide = items(channels, "expand.weight")
    assert len(set(wide)) == 8
    for place, dim in (("depthwise.weight", 0), ("squeeze.weight", 1), ("excite.weight", 0)):
        assert items(channels, place, dim) == wide
    assert channels.count == 10  # and the two that are squeezed
    by_name = {layer.name: layer for layer in channels.layers}
    assert by_name["depthwise"].read is None
    assert (by_name["depthwise"].weights, by_name["depthwise"].positions) == (9, 36)
    assert (by_name["squeeze"].weights, by_name["squeeze"].positions) == (1, 1)


class Grouped(Net):
    """Two groups of 2 inputs and 3 outputs each."""

    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.grouped = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1, groups=2)

    def through(self, x: Tensor) -> Tensor:
        return self.grouped(self.first(x))


def test_a_group_goes_as_a_whole():
    channels = trace_channels(Grouped(), 8)
    assert items(channels, "first.weight") == [0, 0, 1, 1]
    assert items(channels, "grouped.weight") == [0, 0, 0, 1, 1, 1]
    (family,) = channels.families
    assert sorted(set(family.places.values())) == [2, 3]


class Flat(Net):
    """A linear layer that reads positions one by one."""

    def __init__(self) -> None:
        super().__init__(2)
        self.conv, self.classifier = nn.Conv2d(3, 2, 1), nn.Linear(2 * 4, 3)

    def forward(self, images: Tensor) -> NetOutput:
        node = self.conv(images)
        return NetOutput(self.classifier(node.flatten(1)), [node])


def test_flattened_positions_belong_to_their_channel():
    channels = trace_channels(Flat(), 2)
    assert items(channels, "classifier.weight", 1) == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("backbone", NETWORKS)
def test_layers_account_for_every_multiply_add(backbone):
    chain = lively_chain(backbone)
    channels = trace_channels(chain, 64)
    counted = sum(
        layer.weights
        * layer.positions
        * len(layer.out)
        * (1 if layer.read is None else len(layer.read))
        for layer in channels.layers
    )
    assert counted == module_flops(chain, (3, 64, 64))
    members = np.concatenate([family.items for family in channels.families])
    assert sorted(members) == list(range(channels.count))
    assert all(node is not None for node in channels.nodes)


def test_zeros_beside_an_identity_are_tied_to_what_they_are_added_to():
    chain = lively_chain("test_efficientnet")
    student = student_of(chain, 1, batch_norm="train")
    student.finetune_all()
    channels = trace_channels(student, 32)
    pads = {name: items for (name, _), items in channels.places.items() if name.startswith("zeros")}
    assert pads
    for spec, node in zip(student.specs, channels.nodes, strict=True):
        assert len(node) == spec.channels
    # the node's first channels are those of the node that the identity reads
    for path in student.wiring.of_kind("identity"):
        before, after = channels.nodes[path.source], channels.nodes[path.target]
        assert after[: len(before)].tolist() == before.tolist()
        assert not set(after[len(before) :]) & set(before)


@pytest.mark.parametrize(
    ("backbone", "layer", "operator"),
    [
        ("test_convnext", "stem.1", "permute"),
        ("test_efficientnet_gn", "stem.bn1", "native_group_norm"),
        ("mixnet_s", "blocks.1.conv_pw", "split_with_sizes"),
        ("skresnet18", "blocks.0.conv1", "split"),
        ("ecaresnet26t", "blocks.0.se.conv", "convolution"),
        ("resnetblur18", "stem.maxpool.1", "reflection_pad2d"),
    ],
)
def test_what_is_not_followed_is_named_and_stays(backbone, layer, operator):
    channels = trace_channels(lively_chain(backbone), 64)
    assert next(iter(channels.stays.items())) == (layer, operator)
    assert channels.count
    assert any((items == FIXED).all() for items in channels.places.values())


class Shuffled(Net):
    """The network's own forward pass mixes channels."""

    def __init__(self) -> None:
        super().__init__(4)
        self.conv = nn.Conv2d(3, 4, 1)

    def through(self, x: Tensor) -> Tensor:
        return self.conv(x).flip(1)


def test_an_operator_of_the_network_itself():
    with pytest.raises(UserError, match="its layer the network itself does 'flip'"):
        trace_channels(Shuffled(), 8)


def test_nothing_is_run_or_changed():
    network = Residual().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trace_channels(network, 8)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
