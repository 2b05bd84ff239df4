"""Nodes of each layout: how it is found, how one is brought to another, widened and pooled."""

import random
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nettailor as nt
from nettailor.core.backbone import node_specs
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.layout import (
    Layout,
    NodeSpec,
    Seen,
    Stride,
    as_maps,
    bring,
    features_of,
    from_maps,
    specs_of,
    widen,
)

MAPS = torch.arange(2.0 * 3 * 4 * 4).view(2, 3, 4, 4)
# two prefix tokens of -1 and -2, then the positions row by row
PREFIX = torch.tensor([-1.0, -2.0])[None, :, None].expand(2, 2, 3)
FORMS: dict[Layout, Tensor] = {
    "nchw": MAPS,
    "nhwc": MAPS.permute(0, 2, 3, 1),
    "tokens": MAPS.flatten(2).transpose(1, 2),
}


@pytest.mark.parametrize("source", FORMS)
@pytest.mark.parametrize("target", FORMS)
@pytest.mark.parametrize("stride", [1, 2])
def test_each_layout_leads_to_each(source: Layout, target: Layout, stride: int) -> None:
    """The same numbers at the same positions; a stride of 2 is max-pooling of 3×3 windows."""
    found = bring(FORMS[source], NodeSpec(3, 8, source), NodeSpec(5, 8 * stride, target))
    maps = MAPS if stride == 1 else F.max_pool2d(MAPS, 3, 2, 1)
    expected = {
        "nchw": maps,
        "nhwc": maps.permute(0, 2, 3, 1),
        "tokens": maps.flatten(2).transpose(1, 2),
    }[target]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_prefix_tokens_go_along_or_stay_behind() -> None:
    tokens = torch.cat([PREFIX, FORMS["tokens"]], dim=1)
    before = NodeSpec(3, 8, "tokens", 2)
    along = bring(tokens, before, NodeSpec(3, 16, "tokens", 2))
    assert torch.equal(along[:, :2], PREFIX)
    assert torch.equal(along[:, 2:], F.max_pool2d(MAPS, 3, 2, 1).flatten(2).transpose(1, 2))
    assert torch.equal(bring(tokens, before, NodeSpec(3, 8, "nchw")), MAPS)
    assert bring(tokens, before, NodeSpec(9, 8, "tokens", 2)) is tokens


def test_what_has_no_meaning() -> None:
    """Positions are not made finer nor cut across, and prefix tokens are not made up."""
    node = NodeSpec(8, 8, "tokens", 1)
    assert node.leads_to(NodeSpec(4, 16, "tokens", 1))
    assert node.leads_to(NodeSpec(4, 8, "nchw"))
    assert not node.leads_to(NodeSpec(8, 4, "tokens", 1))
    assert not node.leads_to(NodeSpec(8, 12, "tokens", 1))
    assert not node.leads_to(NodeSpec(8, 8, "tokens", 2))
    assert not NodeSpec(8, 8).leads_to(node)


@pytest.mark.parametrize("layout", FORMS)
def test_maps_and_back(layout: Layout) -> None:
    x = FORMS[layout]
    maps = as_maps(x, layout)
    assert maps.data_ptr() == x.data_ptr(), "a view"
    assert torch.equal(maps.flatten(2), MAPS.flatten(2))
    assert torch.equal(from_maps(maps, layout), x)


@pytest.mark.parametrize("layout", FORMS)
def test_widened_by_zeros(layout: Layout) -> None:
    wide = as_maps(widen(FORMS[layout], 2, layout), layout).flatten(2)
    assert torch.equal(wide[:, :3], MAPS.flatten(2))
    assert torch.equal(wide[:, 3:], torch.zeros(2, 2, 16))
    assert widen(FORMS[layout], 0, layout) is FORMS[layout]


def test_features_by_hand() -> None:
    """Channel c of image b holds 48 b + 16 c + 0 … 15."""
    means = torch.tensor([[7.5, 23.5, 39.5], [55.5, 71.5, 87.5]])
    for layout, x in FORMS.items():
        assert torch.equal(features_of(x, layout, 0), means)
    tokens = torch.cat([PREFIX, FORMS["tokens"]], dim=1)
    assert torch.equal(features_of(tokens, "tokens", 2), means)


def specs(
    shape: Sequence[int], twice: Sequence[int] | None = None, reader: int | None = None
) -> NodeSpec:
    """Of one node of images of 64 pixels."""
    other = None if twice is None else [Seen((2, *twice), None)]
    return specs_of(64, [Seen((2, *shape), reader)], lambda: other)[0]


def test_the_layout_is_measured() -> None:
    assert specs((8, 16, 16)) == NodeSpec(8, 4, "nchw")
    assert specs((16, 16, 8)) == NodeSpec(8, 4, "nhwc")
    assert specs((16, 16, 16), (16, 32, 32)) == NodeSpec(16, 4, "nchw")
    assert specs((16, 16, 16), (32, 32, 16)) == NodeSpec(16, 4, "nhwc")
    assert specs((16, 16, 16), reader=3) == NodeSpec(16, 4, "nhwc")
    assert specs((16, 12), (64, 12)) == NodeSpec(12, 16, "tokens")
    # 18 = 2 + 4², 66 = 2 + 8²
    assert specs((18, 12), (66, 12)) == NodeSpec(12, 16, "tokens", 2)
    # 13 = 9 + 2² and 25 = 9 + 4², although 13 = 4 + 3²
    assert specs((13, 12), (25, 12)) == NodeSpec(12, 32, "tokens", 9)
    assert specs((17, 16), reader=2) == NodeSpec(16, 16, "tokens", 1)


def test_windows_are_positions_without_a_map() -> None:
    """4 windows of 16 positions are as many as a map of 8×8: a stride of 8."""
    found = specs((4, 16, 12), (16, 16, 12), reader=3)
    assert found == NodeSpec(12, 8, "nhwc", 0, (4, 16))
    assert found.leads_to(found._replace(channels=20))
    for other in (NodeSpec(12, 8, "nhwc"), found._replace(stride=16, windows=(1, 16))):
        assert not found.leads_to(other)
        assert not other.leads_to(found)
    # (B, C, H, W), where the first axis alone does not grow
    assert specs((12, 4, 16), (12, 8, 32)) == NodeSpec(12, 8, "nchw", 0, (4, 16))


def strides(image: int, *sides: int) -> list[Stride]:
    found = specs_of(image, [Seen((2, 999, side, side), None) for side in sides], lambda: None)
    return [spec.stride for spec in found]


def test_sides_that_do_not_divide_the_image() -> None:
    # layers that pad: each side is half of the one before, rounded up
    assert strides(100, 50, 25, 13, 7, 4) == [2, 4, 8, 16, 32]
    # 56 = 224 / 4 although 4 = ceil(7 / 2), since all divide
    assert strides(224, 14, 7, 4) == [16, 32, 56]
    # 31 = (224 - 16) / 7 + 1, then padded: 16 and 8, which divide, are half of the one before
    assert strides(224, 31, 31, 16, 8) == [Fraction(224 * n, 31) for n in (1, 1, 2, 4)]
    # layers that do not pad: no pooling leads from one side to another
    assert strides(128, 31, 15, 7, 7) == [Fraction(128, side) for side in (31, 15, 7, 7)]
    # 7 = ceil(128 / 19) and 3 = ceil(7 / 3)
    assert strides(128, 7, 3) == [19, 57]


def test_what_leads_on_is_pooled_to_the_side_of_its_target() -> None:
    """Of any sides in any order; those of one side that follow each other are alike."""
    generator = random.Random(0)
    for image in range(1, 60):
        sides = [generator.randint(1, image) for _ in range(4)]
        sides += [sides[-1], -(-sides[-1] // 2)]
        nodes = [Seen((2, 99, side, side), None) for side in sides]
        specs = specs_of(image, nodes, lambda: None)
        assert specs[3].places == specs[4].places
        assert specs[4].leads_to(specs[5]) or specs[5].stride == Fraction(image, sides[5])
        for (source, one), (target, other) in product(zip(specs, sides, strict=True), repeat=2):
            assert source.fits((2, 99, one, one), image)
            if source.leads_to(target):
                found = bring(torch.empty(1, 1, one, one), source, target)
                assert found.shape == (1, 1, other, other)


def test_nodes_of_one_shape_are_read_alike() -> None:
    nodes = [Seen((2, 17, 16), None), Seen((2, 17, 16), 2), Seen((2, 17, 16), None)]
    assert specs_of(64, nodes, lambda: None) == (NodeSpec(16, 16, "tokens", 1),) * 3


@pytest.mark.parametrize(
    ("shape", "twice", "reader", "said"),
    [
        ((17, 16), None, None, r"the stem gives \(2, 17, 16\), where it cannot be told which axis"),
        ((16, 17), (16, 65), None, "axis 1 holds the channels"),
        ((16, 17), (64, 65), 2, "cannot be told which axis"),
        ((16, 16, 16), None, None, "cannot be told which axis"),
        ((16, 8, 16), (32, 8, 32), None, "axis 2 holds the channels"),
        ((18, 12), (70, 12), None, "18 tokens, and 70 for images of twice the side"),
    ],
)  # fmt: skip
def test_what_is_refused(shape: Sequence[int], twice: Any, reader: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        specs(shape, twice, reader)


class Turned(nn.Module):
    """(B, C, H, W) -> (N, B, C), as some transformers have it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).permute(2, 0, 1)


def test_the_first_axis_is_of_the_images() -> None:
    stem, head = nn.Sequential(nn.Conv2d(3, 8, 16, 16), Turned()), nn.Linear(8, 4)
    with pytest.raises(UserError, match=r"the stem gives \(16, 1, 8\), expected a tensor"):
        nt.Backbone(stem, [nn.Linear(8, 8)], head, example=torch.zeros(1, 3, 64, 64))


def test_square_images_only() -> None:
    parts = nn.Conv2d(3, 8, 1), [nn.ReLU()], nn.Linear(8, 4)
    with pytest.raises(UserError, match="images are 64×32: expected square images"):
        nt.Backbone(*parts, example=torch.zeros(1, 3, 64, 32))


class Flat(nn.Module):
    """A view that the channels-last order does not allow."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1)


def test_a_view_of_ones_own_keeps_the_order() -> None:
    """The order in memory is chosen once, by what the network itself can do."""
    torch.manual_seed(0)
    stem, block = nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 6, 3, padding=1)
    example = torch.zeros(1, 3, 16, 16)
    for flat, order in ((Flat(), False), (nn.Flatten(), True)):
        head = nn.Sequential(flat, nn.Linear(96, 4))
        backbone = nt.Backbone(stem, [block], head, example=example)
        assert backbone.channels_last is order
        student = place(nt.Student(backbone).eval(), torch.device("cpu"))
        images = torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            expected = nt.fold(student)(images.contiguous())
            torch.testing.assert_close(student(images).logits, expected, rtol=1e-4, atol=1e-5)


class Positions(nn.Module):
    """Tokens of images of 64 pixels and of no others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.positions = nn.Conv2d(3, 12, 16, 16), nn.Parameter(torch.randn(1, 16, 12))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(2).transpose(1, 2) + self.positions


class Mean(nn.Module):
    """(B, N, C) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def test_the_classifier_tells_of_the_last_node() -> None:
    """Of one size of images, and read by no norm: the axis as long as the classifier is wide."""
    block, example = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 20)), torch.zeros(1, 3, 64, 64)
    head = nn.Sequential(Mean(), nn.Linear(20, 4))
    found = node_specs(nt.Backbone(Positions(), [block], head, example=example))
    assert found == (NodeSpec(12, 16, "tokens"), NodeSpec(20, 16, "tokens"))
    with pytest.raises(UserError, match=r"block 1 gives \(2, 16, 20\), where it cannot be told"):
        nt.Backbone(Positions(), [block], nn.Sequential(head, nn.Identity()), example=example)
