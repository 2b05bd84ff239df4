"""Costs against counts made by hand."""

import pytest
import torch
from timm import create_model
from timm.layers import Attention
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from nettailor.core.backbone import Backbone, create_backbone
from nettailor.core.cost import Cost, chain_costs, layers, module_flops, parameters
from nettailor.core.errors import UserError


@pytest.mark.parametrize(
    ("module", "shape", "flops", "numbers"),
    [
        (nn.Conv2d(16, 32, 3, padding=1), (16, 8, 8), 9 * 16 * 32 * 64, 9 * 16 * 32 + 32),
        (nn.Conv2d(16, 32, 3, stride=2, padding=1), (16, 8, 8), 9 * 16 * 32 * 16, 9 * 16 * 32 + 32),
        (nn.Conv2d(16, 16, 5, groups=16, padding=2, bias=False), (16, 8, 8), 25 * 16 * 64, 25 * 16),
        (nn.Conv2d(16, 32, 1, groups=4, bias=False), (16, 8, 8), 4 * 32 * 64, 4 * 32),
        (nn.Linear(10, 7), (10,), 70, 77),
        (nn.Linear(10, 7), (4, 4, 10), 16 * 70, 77),
        (nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)), (16, 8, 8), 0, 32),
    ],
)
def test_counts_made_by_hand(module, shape, flops, numbers):
    assert module_flops(module, shape) == flops
    assert parameters(module) == numbers


class Einsum(nn.Module):
    """Attention of tokens (B, 10, 16) to themselves, in one head and without weights."""

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.einsum("bic,bjc->bij", x, x).softmax(dim=-1)
        return torch.einsum("bij,bjc->bic", weights, x)


class SelfAttention(nn.MultiheadAttention):
    """torch's own, which has a fast path that is one operator."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x, x, need_weights=False)[0]


def fused_or_not(fused: bool) -> nn.Module:
    attention = Attention(16, num_heads=4)
    attention.fused_attn = fused
    return attention


PRODUCTS = 2 * 10 * 10 * 16  # of queries and keys, and of what they weigh, over all heads
FOUR = 4 * 10 * 16 * 16  # layers: queries, keys, values, output


@pytest.mark.parametrize(
    ("module", "flops"),
    [
        (Einsum(), PRODUCTS),
        (fused_or_not(True), PRODUCTS + FOUR),
        (fused_or_not(False), PRODUCTS + FOUR),
        (SelfAttention(16, 4, batch_first=True), PRODUCTS + FOUR),
        (
            nn.TransformerEncoderLayer(16, 4, dim_feedforward=32, batch_first=True),
            PRODUCTS + FOUR + 2 * 10 * 16 * 32,
        ),
    ],
    ids=["einsum", "timm fused", "timm", "torch", "torch's layer"],
)
def test_attention_of_ten_tokens_by_hand(module, flops):
    """16 channels, 4 heads."""
    assert module_flops(module.eval(), (10, 16)) == flops


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", "resnet50", "vit_b_16", "swin_v2_t", "maxvit_t", "convnext_tiny"]
)
def test_as_torchvision_counts_its_networks(name):
    """It gives thousand millions of multiply-adds, attention's included, in three decimals."""
    weights = get_model_weights(name).DEFAULT
    side = weights.transforms().crop_size[0]
    with torch.device("meta"):
        network = get_model(name)
    assert parameters(network) == weights.meta["num_params"]
    counted = module_flops(network, (3, side, side)) / 1e9
    assert counted == pytest.approx(weights.meta["_ops"], rel=0.002, abs=0.0005)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("eva02_tiny_patch14_224", 1697.71),
        ("fastvit_t8", 685.16),
        ("levit_128s", 304.66),
        ("mobilevit_s", 2000.83),
        ("repvgg_a0", 1361.45),
    ],
)
def test_as_fvcore_counts_networks_of_timm(name, millions):
    """Its convolutions, linear layers and matrix products, branches fused; by version 0.1.5."""
    with torch.device("meta"):
        network = create_model(name, num_classes=1000)
    side = network.pretrained_cfg["input_size"][1]
    assert module_flops(network, (3, side, side)) / 1e6 == pytest.approx(millions, abs=0.01)


def test_resnet18_at_224_pixels():
    stem = 112**2 * 7 * 7 * 3 * 64
    first_stage = 4 * 56**2 * 9 * 64 * 64
    # Later stages: half the side, twice the channels. The first convolution reads half as many
    # channels as the three others, and a 1×1 convolution carries its shortcut.
    later_stage = 28**2 * (9 * 64 * 128 + 64 * 128 + 3 * 9 * 128 * 128)
    costs = chain_costs(create_backbone("resnet18", 1000), 224)
    assert costs.stem.flops == stem
    assert [sum(cost.flops for cost in costs.blocks[i : i + 2]) for i in (0, 2, 4, 6)] == [
        first_stage,
        later_stage,
        later_stage,
        later_stage,
    ]
    assert costs.neck == Cost(0, 0)
    assert costs.classifier == Cost(512 * 1000, 513 * 1000)
    assert costs.total == Cost(stem + first_stage + 3 * later_stage + 512_000, 11_689_512)
    assert costs.total.flops == 1_814_073_344


def test_a_batch_of_one_pixel_can_be_counted():
    block = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8)).train()
    assert module_flops(block, (4, 1, 1)) == 32


def test_parameters_count_once_and_frozen():
    linear = nn.Linear(3, 2)
    linear.requires_grad_(False)
    assert parameters(nn.ModuleList([linear, linear])) == 8
    assert parameters(nn.BatchNorm2d(5)) == 10


def test_what_blocks_share_counts_with_the_first_of_them():
    """CoaT's blocks have their positional encodings in common: 8 channels of 3×3 weights, bias."""
    shared = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    blocks = [nn.Sequential(shared, nn.Conv2d(8, 8, 1)) for _ in range(2)]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    chain = Backbone(nn.Conv2d(3, 8, 1), blocks, head)
    costs = chain_costs(chain, 32)
    assert [cost.parameters for cost in costs.blocks] == [8 * 9 + 8 + 72, 72]
    assert [cost.flops for cost in costs.blocks] == [32**2 * (72 + 64)] * 2
    assert costs.total.parameters == parameters(chain)


def test_layers():
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Identity(), nn.Sequential(), nn.ReLU())
    assert layers(plain) == 2
    # test_resnet's first block: two convolutions with their norms, and the ReLU between.
    assert layers(create_backbone("test_resnet", 7).blocks[0]) == 5
    # Lite0's first block: two convolutions; two norms, the first with its activation inside.
    assert layers(create_backbone("tf_efficientnet_lite0", 7).blocks[0]) == 5


def test_images_that_are_too_small():
    chain = create_backbone("convnext_atto", 7)
    assert chain_costs(chain, 32).total.flops > 0
    with pytest.raises(UserError, match=r"image size 16 is too small .* at least 32 pixels"):
        chain_costs(chain, 16)
    with pytest.raises(UserError, match="image size 0: expected"):
        chain_costs(chain, 0)


def test_padded_networks_take_images_below_their_stride():
    assert chain_costs(create_backbone("test_resnet", 7), 16).total.flops > 0
