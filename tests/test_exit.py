"""Lean heads: what an exit holds, computes and begins with."""

from math import log

import pytest
import torch
from conftest import lively_chain
from networks import exit_of
from torch import nn

from nettailor.core.backbone import create_backbone, head_activation, node_specs
from nettailor.core.cost import parameters
from nettailor.core.layout import NodeSpec
from nettailor.student.exit import HEAD_EXPANSION, Head, fresh_convolution, fresh_neck

CLASSES = 5


def test_an_exit_of_inverted_residuals_by_hand() -> None:
    """24 channels: a convolution to 6 · 24 = 144, batch norm, and a classifier of 144 features."""
    head = exit_of(create_backbone("test_efficientnet", CLASSES), NodeSpec(24, 8))
    assert parameters(head.neck) == 24 * 144 + 2 * 144
    assert parameters(head.classifier) == 144 * CLASSES + CLASSES


def test_an_exit_is_no_wider_than_256_channels() -> None:
    """42 · 6 = 252 and 43 · 6 = 258."""
    chain = create_backbone("test_efficientnet", CLASSES)
    nodes = [NodeSpec(channels, 8) for channels in (42, 43, 320)]
    widths = [exit_of(chain, node).classifier.in_features for node in nodes]
    assert widths == [252, 256, 256]


@pytest.mark.parametrize(
    ("backbone", "neck"),
    [("test_resnet", 0), ("regnety_002", 0), ("test_convnext", 2 * 48)],
)
def test_an_exit_of_the_other_families_pools(backbone: str, neck: int) -> None:
    """No convolution: a classifier of the node's own channels; ConvNeXt norms them first."""
    head = exit_of(create_backbone(backbone, CLASSES), NodeSpec(48, 8))
    assert parameters(head.neck) == neck
    assert parameters(head.classifier) == 48 * CLASSES + CLASSES
    x = torch.randn(3, 48, 7, 5)
    mean = x.mean(dim=(2, 3))
    if neck:
        mean = nn.functional.layer_norm(mean, (48,))
    with torch.no_grad():
        expected = mean @ head.classifier.weight.T + head.classifier.bias
        torch.testing.assert_close(head(x), expected)


def test_an_exit_of_inverted_residuals_computes_its_layers() -> None:
    """Mean to the stride of the last node, 32; 1×1 convolution, norm, activation, mean, linear."""
    chain = create_backbone("test_efficientnet", CLASSES)
    assert isinstance(head_activation(chain), nn.SiLU)
    head = exit_of(chain, NodeSpec(8, 16)).train()
    nodes = torch.randn(4, 8, 6, 6)
    x = nodes.reshape(4, 8, 3, 2, 3, 2).mean((3, 5))
    weight = head.neck.get_submodule("neck.conv").weight
    with torch.no_grad():
        y = torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], x)
        y = (y - y.mean((0, 2, 3), keepdim=True)) / (
            y.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
        ).sqrt()
        features = (y * y.sigmoid()).mean((2, 3))
        expected = features @ head.classifier.weight.T + head.classifier.bias
        torch.testing.assert_close(head(nodes), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("side", "places"), [(3, 1), (4, 1), (5, 2), (7, 2)])
def test_an_exit_reads_the_last_rows_too(side: int, places: int) -> None:
    """Where the stride does not divide the node, the last means are of what is left."""
    head = exit_of(create_backbone("test_efficientnet", CLASSES), NodeSpec(8, 8))
    pooled = head.neck.get_submodule("pool")(torch.ones(1, 8, side, side))
    torch.testing.assert_close(pooled, torch.ones(1, 8, places, places))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_an_exit_begins_at_the_loss_of_a_guess(backbone: str) -> None:
    head = exit_of(create_backbone(backbone, CLASSES), NodeSpec(32, 8)).train()
    labels = torch.arange(10) % CLASSES
    loss = nn.functional.cross_entropy(head(torch.randn(10, 32, 4, 4)), labels)
    assert loss.item() == pytest.approx(log(CLASSES), abs=0.1)
    loss.backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_exits_share_nothing(backbone: str) -> None:
    chain = lively_chain(backbone)
    one, other = exit_of(chain, NodeSpec(32, 8)), exit_of(chain, NodeSpec(32, 8))
    for mine, theirs in ((one, other), (one, chain), (other, chain)):
        assert not {id(m) for m in mine.modules()} & {id(m) for m in theirs.modules()}
        pointers = {tensor.data_ptr() for tensor in theirs.state_dict().values()}
        assert not pointers & {tensor.data_ptr() for tensor in mine.state_dict().values()}
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


@pytest.mark.parametrize("width", [16, 100])
def test_a_fresh_neck_has_the_width_it_is_given(width: int) -> None:
    """Of inverted residuals only: the others pool what there is."""
    for backbone, expected in (("test_efficientnet", width), ("test_resnet", 24)):
        chain = create_backbone(backbone, CLASSES)
        neck, features = fresh_neck(chain, NodeSpec(24, 8), node_specs(chain)[-1], width)
        assert features == expected
        assert neck.eval()(torch.randn(2, 24, 3, 3)).shape == (2, expected)
    assert HEAD_EXPANSION == 6


def test_a_head_is_its_neck_and_its_classifier() -> None:
    chain = lively_chain("test_efficientnet")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        output = chain(x)
        assert torch.equal(Head(chain.neck, chain.classifier)(output.nodes[-1]), output.logits)


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_fresh_convolution(kernel: int) -> None:
    """It keeps the resolution; a standard deviation of √(2 / fan out), as He and others have it."""
    convolution = fresh_convolution(16, 64, kernel=kernel)
    assert convolution.bias is None
    assert convolution(torch.randn(1, 16, 7, 5)).shape == (1, 64, 7, 5)
    expected = (2 / (64 * kernel**2)) ** 0.5
    assert convolution.weight.std().item() == pytest.approx(expected, rel=0.1)
