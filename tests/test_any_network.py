"""Any network taken apart computes what it computed whole, in both modes."""

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise

import pytest
import timm
import torch
import torchvision
from layouts import images_for
from networks import enliven
from torch import Tensor, fx, nn

from nettailor.core.backbone import Backbone, backbone_of
from nettailor.core.chain import Chain, chain_of
from nettailor.core.cost import module_flops

CLASSES = 5
Make = Callable[[], nn.Module]


def of_timm(name: str, **options: object) -> Make:
    return lambda: timm.create_model(name, num_classes=CLASSES, **options)


def of_torchvision(name: str) -> Make:
    return lambda: torchvision.models.get_model(name, num_classes=CLASSES)


class Mixed(nn.Module):
    """Stages added by name and called with two arguments, with functions between them."""

    class Stage(nn.Module):
        def __init__(self, width: int, depth: int) -> None:
            super().__init__()
            for number in range(depth):
                self.add_module(f"b{number}", Mixed.Block(width))

        def forward(self, x: Tensor, size: tuple[int, int], scale: float = 1.0) -> Tensor:
            for block in self.children():
                x = block(x, size=size) * scale
            return x

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm, self.wide = nn.LayerNorm(width), nn.Linear(width, 2 * width)
            self.narrow, self.drop = nn.Linear(2 * width, width), nn.Dropout(0.3)
            self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)

        def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
            maps = x.transpose(1, 2).unflatten(2, size)
            x = x + self.conv(maps).flatten(2).transpose(1, 2)
            return x + self.narrow(self.drop(self.wide(self.norm(x)).relu()))

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.reduce = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 12, 2, 2)
        self.one, self.two = Mixed.Stage(8, 2), Mixed.Stage(12, 3)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, images: Tensor, features_only: bool = False) -> Tensor:
        x = self.stem(images)
        size = x.shape[-2:]
        x = self.one(x.flatten(2).transpose(1, 2), size)
        x = self.reduce(x.transpose(1, 2).reshape(len(x), -1, *size))
        size = x.shape[-2:]
        x = self.two(x.flatten(2).transpose(1, 2), size, scale=0.5)
        return x if features_only else self.head(x.mean(1))


DROPS = {"drop_rate": 0.2, "drop_path_rate": 0.3}
NETWORKS: dict[str, Make] = {
    "vit": of_timm("test_vit", **DROPS, attn_drop_rate=0.2, proj_drop_rate=0.1),
    "vit with registers": of_timm("test_vit2"),
    "vit with attention pooling": of_timm("test_vit3"),
    "eva": of_timm("eva02_tiny_patch14_224", img_size=28, embed_dim=24, depth=2, num_heads=2),
    "swin": of_timm(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=16, depths=(2, 2), num_heads=(1, 2)
    ),
    "mambaout": of_timm("test_mambaout", drop_path_rate=0.3),
    "nf": of_timm("test_nfnet"),
    "cait": of_timm("cait_xxs24_224", img_size=32, embed_dim=24, depth=2, num_heads=2),
    "mixer": of_timm("mixer_s32_224", img_size=64),
    "res2net": of_timm("res2net50_26w_4s", layers=(1, 2, 1, 1)),
    "ghostnet": of_timm("ghostnet_050"),
    "resnet18": of_torchvision("resnet18"),
    "mobilenet_v2": of_torchvision("mobilenet_v2"),
    "shufflenet": of_torchvision("shufflenet_v2_x0_5"),
    "squeezenet": of_torchvision("squeezenet1_1"),
    "alexnet": of_torchvision("alexnet"),
    "efficientvit": of_timm("efficientvit_m0", embed_dim=(16, 32, 32), img_size=64),
    "mixed": Mixed,
}


def taken_apart(network: nn.Module) -> Chain:
    """The chain for small images where a network says nothing of their size."""
    return chain_of(network, None if hasattr(network, "pretrained_cfg") else (3, 64, 64))


def composed(chain: Chain) -> nn.Sequential:
    return nn.Sequential(chain.stem, *chain.blocks, chain.neck, chain.classifier)


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_compute_what_the_whole_does(name: str) -> None:
    network = enliven(NETWORKS[name]())
    chain = taken_apart(deepcopy(network))
    parts, images = composed(chain), images_for(chain)
    with torch.no_grad():
        assert torch.equal(parts.eval()(images), network.eval()(images))
    network.train()
    parts.train()
    outputs, gradients = [], []
    for module in (network, parts):
        torch.manual_seed(7)
        logits = module(images)
        logits.square().sum().backward()
        outputs.append(logits)
        gradients.append({id(p): p.grad for p in module.parameters() if p.grad is not None})
    assert torch.equal(*outputs)
    assert len(gradients[0]) == len(gradients[1])
    running = [
        sorted(float(t.sum()) for name, t in module.named_buffers() if "running" in name)
        for module in (network, parts)
    ]
    assert running[0] == running[1]
    assert len(chain.blocks) > 1
    assert chain.total == module_flops(network, chain.example)


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_lead_from_node_to_node(name: str) -> None:
    chain = taken_apart(NETWORKS[name]())
    with torch.no_grad():
        nodes = [chain.stem.eval()(images_for(chain))]
        for block in chain.blocks:
            before = nodes[-1].clone()
            nodes.append(block.eval()(nodes[-1]))
            assert torch.equal(nodes[-2], before), "a block leaves its input alone"
    shapes = [node.shape for node in nodes]
    assert all(len(shape) > 2 and shape[0] == 2 for shape in shapes)
    same = [one == other for one, other in pairwise(shapes)]
    assert list(chain.skippable) == same
    assert len(chain.stages) == len(chain.blocks)
    changes = [one != other for one, other in pairwise(shapes[1:])]
    assert [after - before for before, after in pairwise(chain.stages)] == changes


def test_attention_and_mlp_are_two_blocks() -> None:
    chain = chain_of(NETWORKS["vit"]())
    assert len(chain.blocks) == 12
    assert all(chain.skippable)
    names = [{name for name, _ in block.named_parameters()} for block in chain.blocks]
    assert all("attn" in name or "norm1" in name or "ls1" in name for name in names[0])
    assert isinstance(chain.classifier, nn.Linear)
    assert sum(chain.flops) / chain.total > 0.8


def test_stages_of_any_kind_are_opened() -> None:
    chain = chain_of(Mixed())
    # each block is two sums; between the stages the convolution that changes the shape
    assert len(chain.blocks) == 2 * 2 + 1 + 3 * 2
    assert chain.skippable.count(True) == 10


class Cut(nn.Module):
    """Patches of 8×8 pixels by their columns, (B, H, W, 3, 8, 8), then blocks on (B, H, W, C)."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(16)
            self.wide, self.narrow = nn.Linear(16, 32), nn.Linear(32, 16)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.narrow(self.wide(self.norm(x)).relu())

    def __init__(self) -> None:
        super().__init__()
        self.columns = nn.Linear(8, 8)
        self.rows = nn.Sequential(nn.Flatten(3), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 16))
        self.one, self.two, self.head = Cut.Block(), Cut.Block(), nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        patches = images.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).permute(0, 2, 4, 1, 3, 5)
        x = self.rows(self.columns(patches))
        return self.head(self.two(self.one(x)).mean((1, 2)))


def test_values_of_six_axes_are_no_nodes() -> None:
    network, images = Cut().eval(), torch.randn(2, 3, 32, 32)
    backbone = Backbone(network, example=torch.zeros(1, 3, 32, 32)).eval()
    assert [tuple(node.shape) for node in backbone.nodes(images)] == [(2, 4, 4, 16)] * 3
    torch.testing.assert_close(backbone(images).logits, network(images))


def test_a_block_that_is_one_module_is_that_module() -> None:
    network = NETWORKS["resnet18"]()
    chain = chain_of(network)
    assert list(chain.blocks) == [
        block for stage in (1, 2, 3, 4) for block in network.get_submodule(f"layer{stage}")
    ]
    assert chain.stages == (0, 0, 1, 1, 2, 2, 3, 3)
    assert chain.classifier is network.fc


def test_a_chain_can_be_copied() -> None:
    chain = backbone_of(NETWORKS["vit"]()).eval()
    copy, images = deepcopy(chain), images_for(chain)
    assert any(isinstance(block, fx.GraphModule) for block in copy.blocks)
    with torch.no_grad():
        expected = chain(images).logits
        for parameter in chain.parameters():
            parameter.zero_()
        assert torch.equal(copy(images).logits, expected)
