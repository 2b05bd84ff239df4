"""What a channel is worth: against the loss itself, and worked out by hand."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import lively_chain
from networks import TRANSFORMERS, transformer
from torch import Tensor, nn

from nettailor.core.backbone import NetOutput
from nettailor.prune.channels import trace_channels
from nettailor.prune.taylor import taylor_values


class Tiny(nn.Module):
    """Two channels, read by a classifier of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.classifier = nn.Linear(2, 2, bias=False)

    def forward(self, images: Tensor) -> NetOutput:
        node = self.conv(images)
        return NetOutput(self.classifier(node.mean((2, 3))), [node])


def test_by_hand(accelerator):
    network = Tiny()
    with torch.no_grad():
        network.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0]])[:, :, None, None])
        network.classifier.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 2.0]]))
    # grey images of 1 and 3: features (1, 1) and (3, 3), logits (3, 2) and (9, 6)
    images = torch.stack([torch.ones(3, 2, 2), 3 * torch.ones(3, 2, 2)])
    values = taylor_values(
        network, trace_channels(network, 2), [(images, torch.tensor([0, 1]))], accelerator
    )
    # dL/dlogits is p - one-hot; p of class 0 is s(1) and s(3). Channel 1 reaches both logits
    # alike, so that its derivative is 2 (p0 - y0) + 2 (p1 - y1) = 0
    first, second = torch.sigmoid(torch.tensor([1.0, 3.0])).tolist()
    assert values == pytest.approx([(abs(first - 1) * 1 + second * 3) / 2, 0], abs=1e-6)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "eva02", "swin"])
def test_the_slope_of_the_loss_of_each_image(backbone, accelerator):
    """A thousandth of what each layer reads of an item goes, instead of all of it."""
    make = transformer if backbone in TRANSFORMERS else lively_chain
    network, side = make(backbone).double(), 64
    channels = trace_channels(network, side)
    images, labels = torch.randn(1, 3, side, side, dtype=torch.float64), torch.tensor([2])
    values = taylor_values(network, channels, [(images, labels)], accelerator)
    assert values.min() >= 0
    chosen = np.random.default_rng(0).choice(channels.count, 12, replace=False)
    chosen[:2] = [items[-1] for items in channels.heads.values()][:2] or chosen[:2]
    step = 1e-5
    for item in chosen:
        losses = []
        for factor in (1 - step, 1 + step):
            changed = copy.deepcopy(network)
            with torch.no_grad():
                for layer in channels.layers:
                    if layer.read is not None:
                        weight = changed.get_submodule(layer.name).weight
                        weight[:, torch.as_tensor(layer.read == item)] *= factor
                losses.append(float(F.cross_entropy(changed(images).logits, labels)))
        slope = abs(losses[1] - losses[0]) / (2 * step)
        assert values[item] == pytest.approx(slope, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "swin"])
def test_batches_count_by_their_images_and_nothing_moves(backbone, accelerator):
    make = transformer if backbone in TRANSFORMERS else lively_chain
    network = make(backbone).train().requires_grad_(False)
    channels = trace_channels(network, 64)
    images, labels = torch.randn(6, 3, 64, 64), torch.arange(6) % 5
    before = {name: value.clone() for name, value in network.state_dict().items()}
    together = taylor_values(network, channels, [(images, labels)], accelerator)
    parted = taylor_values(
        network, channels, [(images[:5], labels[:5]), (images[5:], labels[5:])], accelerator
    )
    np.testing.assert_allclose(together, parted, rtol=1e-3, atol=1e-7)
    assert network.training
    assert not any(module._forward_pre_hooks for module in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_nobody_hears_is_worth_nothing(accelerator):
    network = lively_chain("test_efficientnet")
    channels = trace_channels(network, 32)
    reader = next(layer for layer in channels.layers if layer.name == "classifier")
    with torch.no_grad():
        network.classifier.weight[:, 3] = 0
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    values = taylor_values(network, channels, [(images, labels)], accelerator)
    assert values[reader.read[3]] == 0
    assert (values[np.delete(reader.read, 3)] > 0).any()
