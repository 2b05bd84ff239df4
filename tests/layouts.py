"""Small networks, cut by hand, whose nodes are tokens, (B, H, W, C), windows or of odd sides."""

from collections import OrderedDict
from functools import cache
from math import isqrt

import timm
import torch
from conftest import enliven
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

import nettailor as nt
from nettailor.core.chain import Chain

CLASSES = 4


class Tokens(nn.Module):
    """What a vision transformer of timm does before its blocks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.patch_embed, self.norm_pre = network.patch_embed, network.norm_pre
        self.pos_embed, self.cls_token = network.pos_embed, network.cls_token
        self.reg_token = network.reg_token

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images)
        first = [] if self.cls_token is None else [self.cls_token]
        others = [] if self.reg_token is None else [self.reg_token]
        tokens = [token.expand(x.shape[0], -1, -1) for token in (*first, *others)]
        return self.norm_pre(torch.cat([*tokens, x], dim=1) + self.pos_embed)


class Branch(nn.Module):
    """x + scale(layer(norm(x))): the attention or the MLP of a block."""

    def __init__(self, norm: nn.Module, layer: nn.Module, scale: nn.Module) -> None:
        super().__init__()
        self.norm, self.layer, self.scale = norm, layer, scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale(self.layer(self.norm(x)))


class Pool(nn.Module):
    """Global pooling of timm's vision transformers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.token, self.prefix = network.global_pool == "token", network.num_prefix_tokens

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0] if self.token else x[:, self.prefix :].mean(dim=1)


def branches(network: nn.Module) -> list[nn.Module]:
    """The residual sums of timm's vision transformer, two a block."""
    found: list[nn.Module] = []
    for block in network.blocks:
        found.append(Branch(block.norm1, block.attn, block.ls1))
        found.append(Branch(block.norm2, block.mlp, block.ls2))
    return found


@cache
def _vit(name: str, size: int, reg_tokens: int, class_token: bool) -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(
        name, img_size=size, num_classes=CLASSES, depth=3, reg_tokens=reg_tokens,
        class_token=class_token, global_pool="token" if class_token else "avg",
        dynamic_img_size=False,
    )  # fmt: skip
    return enliven(network).eval()


def vit(
    size: int = 64, reg_tokens: int = 0, *, class_token: bool = True
) -> tuple[nn.Module, nt.Backbone]:
    """timm's test_vit of three blocks, and the same in parts; it takes one size of images."""
    network = _vit("test_vit", size, reg_tokens, class_token)
    head = nn.Sequential(network.norm, Pool(network), network.fc_norm, network.head)
    example = torch.zeros(1, 3, size, size)
    return network, nt.Backbone(Tokens(network), branches(network), head, example=example).eval()


class Down(nn.Module):
    """A downsampling with the block after it."""

    def __init__(self, downsample: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.downsample, self.block = downsample, block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.downsample(x))


class Mean(nn.Module):
    """(B, H, W, C) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2))


@cache
def _swin() -> nn.Module:
    torch.manual_seed(0)
    network = SwinTransformer(
        img_size=64, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4),
        num_classes=CLASSES,
    )  # fmt: skip
    return enliven(network).eval()


def swin() -> tuple[nn.Module, nt.Backbone]:
    """A small Swin transformer, nodes (B, H, W, C), with a downsampling between its stages."""
    network = _swin()
    blocks: list[nn.Module] = []
    for stage in network.layers:
        first, *others = stage.blocks
        plain = isinstance(stage.downsample, nn.Identity)
        blocks += [first if plain else Down(stage.downsample, first), *others]
    head = nn.Sequential(network.norm, Mean(), network.head.fc)
    example = torch.zeros(1, 3, 64, 64)
    return network, nt.Backbone(network.patch_embed, blocks, head, example=example).eval()


class ToTokens(nn.Module):
    """(B, C, H, W) -> (B, H·W, C'), and then a norm."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 2, 2)
        self.norm = nn.LayerNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        return self.norm(maps.view(*maps.shape[:2], -1).transpose(1, 2))


def hybrid() -> tuple[nn.Module, nt.Backbone]:
    """Convolutions first and tokens afterwards, without prefix."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    filters = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    conv = nn.Sequential(filters, nn.BatchNorm2d(8), nn.ReLU())

    def mlp(channels: int) -> nn.Module:
        layers = nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        return Branch(nn.LayerNorm(channels), nn.Sequential(*layers), nn.Identity())

    blocks = [conv, ToTokens(8, 12), mlp(12), mlp(12)]
    head = nn.Sequential(
        OrderedDict(norm=nn.LayerNorm(12), pool=TokenMean(), fc=nn.Linear(12, CLASSES))
    )
    network = enliven(nn.Sequential(stem, *blocks, head)).eval()
    example = torch.zeros(1, 3, 32, 32)
    return network, nt.Backbone(stem, blocks, head, example=example).eval()


class TokenMean(nn.Module):
    """(B, N, C) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def odd() -> tuple[nn.Module, nt.Backbone]:
    """Maps of 15, 7 and 4 pixels for images of 32: none divides, and 15 cannot be pooled to 7."""
    torch.manual_seed(0)

    def conv(channels_in: int, channels_out: int, stride: int, padding: int) -> nn.Module:
        layer = nn.Conv2d(channels_in, channels_out, 3, stride, padding, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(channels_out), nn.ReLU())

    stem = conv(3, 8, 2, 0)
    blocks = [conv(8, 8, 1, 1), conv(8, 12, 2, 0), conv(12, 12, 1, 1), conv(12, 16, 2, 1)]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))
    network = enliven(nn.Sequential(stem, *blocks, head)).eval()
    example = torch.zeros(1, 3, 32, 32)
    return network, nt.Backbone(stem, blocks, head, example=example).eval()


class ToWindows(nn.Module):
    """(B, C, 8, 8) -> (B, 4, 16, C), windows of 4×4 and the positions in each, and then a norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        # (B, C, rows of windows, 4, columns of windows, 4)
        windows = x.unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).permute(0, 2, 4, 3, 5, 1)
        return self.norm(windows.flatten(3, 4).flatten(1, 2))


class ToMaps(nn.Module):
    """The inverse of `ToWindows`, and then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        side = isqrt(x.shape[1])
        windows = x.unflatten(2, (4, 4)).unflatten(1, (side, side)).permute(0, 5, 1, 3, 2, 4)
        return self.conv(windows.flatten(4, 5).flatten(2, 3))


def windowed() -> tuple[nn.Module, nt.Backbone]:
    """Maps of 8×8, two MLPs on windows of them, and maps again."""
    torch.manual_seed(0)

    def mlp() -> nn.Module:
        layers = nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)
        return Branch(nn.LayerNorm(8), nn.Sequential(*layers), nn.Identity())

    stem, blocks = nn.Conv2d(3, 8, 4, 4), [ToWindows(8), mlp(), mlp(), ToMaps(8)]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))
    network = enliven(nn.Sequential(stem, *blocks, head)).eval()
    example = torch.zeros(1, 3, 32, 32)
    return network, nt.Backbone(stem, blocks, head, example=example).eval()


def images_for(backbone: nt.Backbone | Chain, count: int = 2) -> Tensor:
    """Random images of the size that a backbone was measured with."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, *backbone.example, generator=generator)


NETWORKS = {
    "vit": vit,
    "swin": swin,
    "hybrid": hybrid,
    "odd": odd,
    "windowed": windowed,
}
