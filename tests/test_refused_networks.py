"""Networks that are no chain are refused in one line; modules that ask for the mode stay closed."""

import re
from collections.abc import Callable
from copy import deepcopy

import pytest
import timm
import torch
from shell import DIGITS, Shell
from torch import Tensor, nn

from nettailor.core.backbone import Backbone, backbone_of
from nettailor.core.chain import chain_of
from nettailor.core.errors import UserError

CLASSES = 5


class TwoBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.deep = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4)))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.deep(self.left(x)), self.deep(self.right(x))
        return self.fc(torch.cat([one.mean((2, 3)), other.mean((2, 3))], dim=1))


class Gives(nn.Module):
    """A chain whose output is made by a function."""

    def __init__(self, output: Callable[[Tensor, nn.Module], object]) -> None:
        super().__init__()
        self.output = output
        blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)) for _ in "ab"]
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), *blocks)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> object:
        return self.output(self.body(x), self)


def pooled(x: Tensor, network: nn.Module) -> Tensor:
    return network.get_submodule("fc")(x.mean((2, 3)))


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "two branches": (
        TwoBranches(),
        "TwoBranches is no chain of blocks: from left to the logits it needs several values",
    ),
    "a tuple": (
        Gives(lambda x, network: (pooled(x, network), x)),
        r"its output is a tuple, expected logits \(B, classes\)",
    ),
    "maps": (Gives(lambda x, network: x), r"its output is \(2, 4, 256, 256\), expected logits"),
    "a few images at a time": (
        Gives(lambda x, network: torch.cat([pooled(images, network) for images in x.split(253)])),
        "Gives makes other calls for another number of images, outside its layers",
    ),
    "an auxiliary loss": (
        Gives(lambda x, network: pooled(x.relu() if network.training else x, network)),
        "Gives makes other calls in training mode, outside its layers",
    ),
    "values": (
        Gives(lambda x, network: pooled(x if x.mean() > 0 else -x, network)),
        r"for images \(3, 256, 256\) it fails with RuntimeError: .*by hand as Backbone",
    ),
    "no images": (nn.Linear(2, 2), "Linear: for images .* it fails with RuntimeError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_one_line_that_says_why(name: str) -> None:
    network, text = REFUSED[name]
    with pytest.raises(UserError, match=text) as error:
        backbone_of(network)
    assert "\n" not in str(error.value)


def sized() -> nn.Module:
    """Made for 96 pixels, as it says, and for no other size."""
    network = nn.Sequential(*Gives(pooled).body, nn.Flatten(), nn.Linear(4 * 96 * 96, CLASSES))
    network.img_size = 96
    return network


@pytest.mark.parametrize(
    ("network", "side", "text"),
    [
        (
            timm.create_model("test_vit"),
            100,
            r"does not take images of \(3, 100, 100\) .*it takes \(3, 160, 160\): give an example",
        ),
        (sized(), 64, r"does not take images of \(3, 64, 64\) .*it takes \(3, 96, 96\)"),
        (Gives(lambda x, network: x), 32, r"for images \(3, 256, 256\) its output is \(2, 4, 256"),
    ],
)
def test_another_size_is_named(network: nn.Module, side: int, text: str) -> None:
    with pytest.raises(UserError, match=text):
        Backbone(network, example=torch.zeros(1, 3, side, side))


def test_the_size_that_a_network_says_is_its_example() -> None:
    assert Backbone(sized()).example == (3, 96, 96)


@pytest.mark.parametrize(
    ("name", "side", "text"),
    [
        ("crossvit_9_240", 240, r"from patch_embed\.0\.proj to the logits it needs several values"),
        ("qwen3_vit_88m_enc", 100, r"its output is \(2, 576, 1024\), expected logits"),
        ("torchvision:alexnet", 32, r"does not work on images of 32×32 .*weights have 224×224"),
        ("torchvision:vit_b_16", 100, r"does not work on images of 100×100 .*weights have 224×224"),
    ],
)
def test_commands_refuse_in_one_line(shell: Shell, name: str, side: int, text: str) -> None:
    flags = ("--backbone", name, "--image-size", str(side), "--dry-run")
    assert re.search(text, shell.refusal(*DIGITS, *flags))
    assert not shell.out.exists()


def test_a_module_that_asks_for_the_mode_is_not_opened() -> None:
    class Stage(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.rand_like(x) if self.training else x)

    network = Gives(pooled)
    network.body = nn.Sequential(
        nn.Conv2d(3, 4, 1), Stage(*list(network.body)[1:]), nn.Conv2d(4, 6, 1),
        nn.Sequential(nn.Conv2d(6, 6, 3), nn.Conv2d(6, 4, 3)),
    )  # fmt: skip
    chain = chain_of(deepcopy(network))
    assert any(type(block) is Stage for block in chain.blocks)
    parts = nn.Sequential(chain.stem, *chain.blocks, chain.neck, chain.classifier).train()
    images = torch.randn(2, 3, 16, 16)
    torch.manual_seed(0)
    expected = network.train()(images)
    torch.manual_seed(0)
    assert torch.equal(parts(images), expected)
