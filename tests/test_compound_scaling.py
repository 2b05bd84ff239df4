"""Compound scaling: the published members to the digit, and the formula between them."""

import re

import pytest
import timm
import torch

from nettailor.core.backbone import Backbone, backbone_of, create_backbone, node_specs
from nettailor.core.compound_scaling import (
    PUBLISHED,
    Coefficients,
    Scaling,
    make_scaled,
    scaling_of,
)
from nettailor.core.cost import module_flops, parameters
from nettailor.core.errors import UserError

# Tan and Le, ICML 2019, table 2: parameters in millions, multiply-adds in billions.
PAPER = {
    0: (5.3, 0.39), 1: (7.8, 0.70), 2: (9.2, 1.0), 3: (12, 1.8),
    4: (19, 4.2), 5: (30, 9.9), 6: (43, 19), 7: (66, 37),
}  # fmt: skip
# What is counted where the paper says less, and what its own table 1 adds up to layer by layer.
ABOVE = {4: 4.3938, 5: 10.2664, 7: 37.7459}
FAMILIES = {
    "efficientnet_b": 8, "tf_efficientnet_b": 8, "efficientnet_lite": 5, "tf_efficientnet_lite": 5,
}  # fmt: skip
# of the families whose convolutions pad as PyTorch's do, the ends and the first step
MEMBERS = [
    (stem, number)
    for stem, count in FAMILIES.items()
    for number in (range(count) if stem.startswith("tf_") else (0, 1, count - 1))
]


def on_meta(scaling: Scaling, backbone: str) -> Backbone:
    with torch.device("meta"):
        return backbone_of(make_scaled(backbone, 1000, depth=scaling.depth, width=scaling.width))


def b(number: int) -> tuple[Backbone, Scaling]:
    """A published member, reached by its φ from B0 at 224 pixels."""
    scaling = scaling_of("tf_efficientnet_b0", number, PUBLISHED, 224)
    return on_meta(scaling, "tf_efficientnet_b0"), scaling


@pytest.mark.parametrize("number", PAPER)
def test_parameters_and_multiply_adds_are_the_published_ones(number):
    """At the published resolutions. Of B4, B5 and B7 the paper says 4.4, 3.6 and 2.0 % less than
    the convolutions of the networks with the published channels, blocks and images take; no
    rounding of the published figures spans that."""
    chain, scaling = b(number)
    assert parameters(chain) == pytest.approx(1e6 * PAPER[number][0], rel=0.02)
    assert scaling.image_size == (224, 240, 260, 300, 380, 456, 528, 600)[number]
    flops = module_flops(chain, (3, scaling.image_size, scaling.image_size))
    published = 1e9 * PAPER[number][1]
    if number in ABOVE:
        assert flops == pytest.approx(1e9 * ABOVE[number], rel=1e-4)
        assert 1.02 < flops / published < 1.05
    else:
        assert flops == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(("stem", "number"), MEMBERS)
def test_a_member_is_timms_network_of_that_name(stem, number):
    scaling = scaling_of(f"{stem}0", number, PUBLISHED, 224)
    assert scaling.member == f"{stem}{number}"
    with torch.device("meta"):
        named = create_backbone(scaling.member, 1000)
    made = on_meta(scaling, f"{stem}0")
    assert made.stages == named.stages
    assert [(name, value.shape) for name, value in made.state_dict().items()] == [
        (name, value.shape) for name, value in named.state_dict().items()
    ]
    # padding, epsilons and activations, too
    assert repr(made) == repr(named)


def test_a_weights_tag_is_kept_where_the_member_has_it():
    assert scaling_of("tf_efficientnet_b0.ns_jft_in1k", 3, PUBLISHED, 224).member == (
        "tf_efficientnet_b3.ns_jft_in1k"
    )
    # timm has no B6 with this tag
    assert not timm.is_model_pretrained("efficientnet_b6.ra_in1k")
    assert scaling_of("efficientnet_b0.ra_in1k", 6, PUBLISHED, 224).member == "efficientnet_b6"


def test_between_the_members_and_below_them_the_formula_holds():
    half = scaling_of("efficientnet_b0", 0.5, PUBLISHED, 224)
    assert half.member is None
    assert half.depth == pytest.approx(1.0954, abs=1e-4)
    assert half.width == pytest.approx(1.0488, abs=1e-4)
    assert half.image_size == 240  # 224 · 1.0724 = 240.2
    below = scaling_of("efficientnet_b0", -2, PUBLISHED, 224)
    assert (below.depth, below.width) == pytest.approx((1 / 1.44, 1 / 1.21))
    assert below.image_size == 168  # 224 / 1.3225 = 169.4
    above = scaling_of("efficientnet_lite0", 5, PUBLISHED, 64)
    assert above.member is None
    assert above.depth == pytest.approx(2.48832)


def test_depth_and_channels_by_hand():
    """φ = -2: blocks × 0.694 rounded up, channels × 0.826 to the nearest 8, at least 0.9 of it."""
    chain = on_meta(scaling_of("efficientnet_b0", -2, PUBLISHED, 64), "efficientnet_b0")
    assert [chain.stages.count(stage) for stage in range(7)] == [1, 2, 2, 3, 3, 3, 1]
    # 32, 16, 24, 40, 80, 112, 192 and 320 times 0.826: 26.4, 13.2, 19.8, 33.1, 66.1, 92.6, 158.7,
    # 264.5
    specs = node_specs(chain)
    assert specs[0].channels == 24
    widths = [specs[1 + chain.stages.index(stage)].channels for stage in range(7)]
    assert widths == [16, 24, 32, 64, 96, 160, 264]
    assert chain.classifier.in_features == 1056  # 1280 · 0.826 = 1057.9


def test_lite_keeps_stem_and_head():
    chain = on_meta(scaling_of("tf_efficientnet_lite0", -2, PUBLISHED, 64), "tf_efficientnet_lite0")
    assert node_specs(chain)[0].channels == 32
    assert chain.classifier.in_features == 1280
    # the first and the last stage keep their one block at any depth
    deep = on_meta(Scaling(3, 1, 64, None), "tf_efficientnet_lite0")
    assert [deep.stages.count(stage) for stage in range(7)] == [1, 6, 6, 9, 9, 12, 1]


@pytest.mark.parametrize(
    ("phi", "size", "coefficients", "told"),
    [
        # log(32 / 64) / log 1.15 = -4.96; log 10 / log 1.2 = 12.63
        (-5, 64, PUBLISHED, "-4.95 to 12.62"),
        (13, 64, PUBLISHED, "-4.95 to 12.62"),
        (1e9, 64, PUBLISHED, "-4.95 to 12.62"),
        (-1e9, 64, PUBLISHED, "-4.95 to 12.62"),
        # log(4096 / 2000) / log 1.15 = 5.13
        (6, 2000, PUBLISHED, "-12.62 to 5.12"),
        # below 32 pixels the last node has none; log(32 / 16) / log 1.15 = 4.96
        (0, 16, PUBLISHED, "4.96 to 12.62"),
        # log 10 / log 2 = 3.32: images stay as they are
        (-4, 64, Coefficients(2.0, 1.0, 1.0), "-3.32 to 3.32"),
    ],
)
def test_phi_out_of_range_is_refused_with_the_range(phi, size, coefficients, told):
    with pytest.raises(UserError, match=f"phi can be {re.escape(told)}, where images") as caught:
        scaling_of("tf_efficientnet_lite0", phi, coefficients, size)
    assert f"image_size of {size} pixels" in str(caught.value)
    low, high = map(float, told.split(" to "))
    for bound in (low, high):
        scaling_of("tf_efficientnet_lite0", bound, coefficients, size)


@pytest.mark.parametrize(
    "backbone",
    ["resnet18", "efficientnet_b1_pruned", "efficientnet_b0_gn", "tf_efficientnetv2_s"],
)
def test_backbones_without_a_family_are_refused(backbone):
    for make in (
        lambda: scaling_of(backbone, 0, PUBLISHED, 64),
        lambda: make_scaled(backbone, 5, depth=1, width=1),
    ):
        with pytest.raises(UserError, match=f"'{backbone}' cannot be scaled: expected one of"):
            make()
