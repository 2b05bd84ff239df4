"""Any network taken apart computes what it computed whole, in both modes, under its own names."""

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, fx, nn

from nettailor.core.backbone import Backbone, backbone_of, create_backbone
from nettailor.core.chain import Chain, chain_of
from nettailor.core.cost import module_flops
from nettailor.core.errors import UserError
from nettailor.core.families import classifier_prefixes, data_defaults, family, make_network
from nettailor.core.timm_names import to_chain, to_timm
from nettailor.core.weights import load_pretrained

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


def images_for(chain: Chain | Backbone, count: int = 3) -> Tensor:
    return torch.randn(count, *chain.example, generator=torch.Generator().manual_seed(1))


def taken_apart(network: nn.Module) -> Chain:
    """The chain for small images where a network says nothing of their size."""
    return chain_of(network, None if hasattr(network, "pretrained_cfg") else (3, 64, 64))


def scattered(network: nn.Module) -> nn.Module:
    """With values under which every block shows."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def composed(chain: Chain) -> nn.Sequential:
    return nn.Sequential(chain.stem, *chain.blocks, chain.neck, chain.classifier)


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_compute_what_the_whole_does(name: str) -> None:
    network = scattered(NETWORKS[name]())
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
    assert all(len(shape) > 2 and shape[0] == 3 for shape in shapes)
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


# Names


def own_names(name: str, chain: Backbone, image_size: int | None = None) -> Any:
    """The chain's name of each tensor by the network's."""
    names: Any = {own: own for own in chain.state_dict()}
    return to_timm(name, names, image_size)


@pytest.mark.parametrize(
    "name",
    # CoaT has tensors that several of its blocks share
    [
        "test_vit",
        "test_mambaout",
        "torchvision:resnet18",
        "coat_lite_tiny",
        "torchvision:squeezenet1_1",
    ],
)
def test_names_go_in_and_out(name: str) -> None:
    network = scattered(make_network(name, CLASSES)).eval()
    state = network.state_dict()
    chain = create_backbone(name, CLASSES).eval()
    chain.load_state_dict(to_chain(name, state))
    images = images_for(chain)
    with torch.no_grad():
        assert torch.equal(chain(images).logits, network(images))
    back = to_timm(name, chain.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())
    prefixes = classifier_prefixes(network)
    fresh = [own for theirs, own in own_names(name, chain).items() if theirs.startswith(prefixes)]
    assert fresh
    assert all(key.startswith("classifier.") for key in fresh)


def test_names_of_torchvision() -> None:
    assert family("torchvision:resnet18") == "own"
    defaults = data_defaults("torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1")
    assert (defaults.image_size, defaults.interpolation, defaults.crop_pct) == (384, "bicubic", 1.0)
    with pytest.raises(UserError, match=r"torchvision has no such .*did you mean 'resnet18'"):
        family("torchvision:resnet81")
    with pytest.raises(UserError, match=r"unknown weights tag .*IMAGENET1K_V1"):
        family("torchvision:resnet18.V9")


def test_a_network_that_computes_with_values_is_made_without_any() -> None:
    with torch.device("meta"):
        network = make_network("torchvision:regnet_y_400mf", CLASSES)
    assert all(tensor.is_meta for tensor in network.state_dict().values())
    assert chain_of(network).shapes[-1] == (440, 8, 8)


def test_a_network_of_one_size_is_made_for_another() -> None:
    chain = create_backbone("test_vit", CLASSES, 96)
    assert chain.example == (3, 96, 96)
    with torch.no_grad():
        assert chain(torch.randn(2, 3, 96, 96)).logits.shape == (2, CLASSES)
    assert create_backbone("test_vit", CLASSES).example == (3, 160, 160)


@pytest.mark.parametrize(
    ("name", "image_size"), [("torchvision:googlenet", None), ("test_vit3", 96), ("test_vit", None)]
)
def test_files_of_weights_go_in(tmp_path: Path, name: str, image_size: int | None) -> None:
    torch.manual_seed(0)
    *_, architecture = name.split(":")
    whole = (
        torchvision.models.get_model(architecture, init_weights=False)
        if name.startswith("torchvision")
        else timm.create_model(name)
    )
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    chain, source = load_pretrained(name, CLASSES, f"{tmp_path}/weights.safetensors", image_size)
    assert source.origin == f"file {tmp_path}/weights.safetensors"
    assert chain.classes == CLASSES
    given = whole.state_dict()
    for theirs, own in own_names(name, chain, image_size).items():
        if not own.startswith("classifier.") and "pos_embed" not in theirs:
            assert torch.equal(chain.state_dict()[own], given[theirs]), theirs
