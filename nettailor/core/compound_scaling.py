"""EfficientNet's compound scaling (Tan and Le, ICML 2019): one number φ for a family of sizes.

    depth = α^φ        width = β^φ        resolution = γ^φ        published: α 1.2, β 1.1, γ 1.15

Depth multiplies each stage's number of blocks (rounded up), width every number of channels (to a
multiple of 8, and never down by more than a tenth), resolution the side of the image. The networks
are timm's own definitions. EfficientNet-Lite keeps the stem, the head, and the depth of the first
and the last stage.

The published members B1 to B7 and Lite1 to Lite4 stand for φ = 1, 2, … but were given multipliers
of their own: B7 has 3.1, 2.0 and 600 / 224 where the formula says 3.6, 1.9 and 2.7. So, under the
published coefficients, a φ that is the number of a member is that member; every other φ is the
formula's. φ = 0 is the base of the family, B0 or Lite0, whichever member is given.
"""

import re
from collections.abc import Callable
from functools import cache
from math import ceil, floor, log
from typing import NamedTuple

import timm
import torch
from timm.models import efficientnet as timm_efficientnet
from torch import nn

from nettailor.core.architecture import LEAST_MULTIPLIER, MOST_MULTIPLIER, MOST_PIXELS_A_SIDE
from nettailor.core.backbone import backbone_of, node_specs
from nettailor.core.classification import start_small
from nettailor.core.errors import UserError
from nettailor.core.families import family

# Every published resolution is 224 and some steps of this.
_STEP_PIXELS = 4


class Coefficients(NamedTuple):
    """The multipliers α, β and γ for φ = 1, each at least 1 and one of them above."""

    depth: float
    width: float
    resolution: float


PUBLISHED = Coefficients(1.2, 1.1, 1.15)


class Scaling(NamedTuple):
    """What a φ asks for.

    depth, width: multipliers over the family's base. image_size: side of the input in pixels.
    member: its name in timm, with the weights' tag if any, where it was published; else None.
    """

    depth: float
    width: float
    image_size: int
    member: str | None


class _Family(NamedTuple):
    """make: timm's definition of a name and two multipliers. members: those of φ = 0, 1, … as
    depth, width and side of the image in pixels."""

    make: Callable[..., nn.Module]
    members: tuple[tuple[float, float, int], ...]


_TEST = "test_efficientnet"  # timm's tiny one, which has no sizes but the formula's
_FAMILIES = {
    "efficientnet_b": _Family(
        timm_efficientnet._gen_efficientnet,
        (
            (1.0, 1.0, 224), (1.1, 1.0, 240), (1.2, 1.1, 260), (1.4, 1.2, 300),
            (1.8, 1.4, 380), (2.2, 1.6, 456), (2.6, 1.8, 528), (3.1, 2.0, 600),
        ),
    ),
    "efficientnet_lite": _Family(
        timm_efficientnet._gen_efficientnet_lite,
        ((1.0, 1.0, 224), (1.1, 1.0, 240), (1.2, 1.1, 260), (1.4, 1.2, 280), (1.8, 1.4, 300)),
    ),
    _TEST: _Family(timm_efficientnet._gen_test_efficientnet, ((1.0, 1.0, 160),)),
}  # fmt: skip
_PATTERN = re.compile(rf"(tf_)?(?:(efficientnet_(?:b|lite))\d+|({_TEST}))")
# How the networks that came from TensorFlow differ from timm's own.
_TENSORFLOW = {"bn_eps": 1e-3, "pad_type": "same"}


def scaling_of(backbone: str, phi: float, coefficients: Coefficients, image_size: int) -> Scaling:
    """What φ makes of the base of a backbone's family.

    The side of the image moves from the base's in whole steps of 4 pixels, to the nearest: all
    published members do so from 224.

    Args:
        image_size: of the base, pixels a side.

    Raises:
        UserError: the backbone is of no family that scales, or φ leads out of the range that is
            told: less than a pixel at the last node, more than an image may have, a depth or width
            below a tenth or above ten times the base's.
    """
    found, stem = _family_of(backbone)
    least = _largest_stride(backbone)
    low, high = _phi_range(coefficients, least / image_size, MOST_PIXELS_A_SIDE / image_size)
    if not low <= phi <= high:
        raise UserError(
            f"phi {phi:g} is out of range: with an image_size of {image_size} pixels for phi 0, "
            f"phi can be {low:g} to {high:g}, where images have {least} to {MOST_PIXELS_A_SIDE} "
            f"pixels a side, and depth and width are {LEAST_MULTIPLIER:g} to {MOST_MULTIPLIER:g} "
            "times those of phi 0"
        )
    members = found.members if coefficients == PUBLISHED else found.members[:1]
    depth, width, resolution = (factor**phi for factor in coefficients)
    member = None
    if phi in range(len(members)):
        depth, width, side = members[int(phi)]
        resolution = side / members[0][2]
        member = _member(stem, int(phi))
        tagged = f"{member}.{backbone.partition('.')[2]}"
        member = tagged if timm.is_model_pretrained(tagged) else member
    steps = round(image_size * (resolution - 1) / _STEP_PIXELS)
    side = min(max(image_size + _STEP_PIXELS * steps, least), MOST_PIXELS_A_SIDE)
    return Scaling(depth, width, side, member)


def make_scaled(backbone: str, classes: int, *, depth: float, width: float) -> nn.Module:
    """The timm model of a backbone's family and these multipliers, with random weights.

    It is ready for `backbone_of`. Raises UserError for a backbone of no family that scales.
    """
    found, stem = _family_of(backbone)
    network = found.make(
        _member(stem, 0),
        depth_multiplier=depth,
        channel_multiplier=width,
        num_classes=classes,
        **(_TENSORFLOW if stem.startswith("tf_") else {}),
    )
    start_small(network.get_classifier())  # type: ignore[operator]
    return network


def _family_of(backbone: str) -> tuple[_Family, str]:
    """A backbone's family, and how the names of its members in timm begin.

    Raises UserError for a backbone of no family that scales.
    """
    family(backbone)
    match = _PATTERN.fullmatch(backbone.partition(".")[0])
    if match is None:
        raise UserError(
            f"backbone {backbone!r} cannot be scaled: expected one of timm's EfficientNets, "
            "efficientnet_b0 to b7 or efficientnet_lite0 to lite4, with tf_ before the name or "
            "without"
        )
    tensorflow, sized, plain = match.groups(default="")
    kind = sized or plain
    return _FAMILIES[kind], tensorflow + kind


def _member(stem: str, number: int) -> str:
    return stem if stem == _TEST else f"{stem}{number}"


@cache
def _largest_stride(backbone: str) -> int:
    """Input pixels per pixel of the last node, which scaling leaves as they are."""
    with torch.device("meta"):
        base = backbone_of(make_scaled(backbone, 1, depth=1.0, width=1.0))
    return ceil(max(spec.stride for spec in node_specs(base)))


def _phi_range(
    coefficients: Coefficients, least_resolution: float, most_resolution: float
) -> tuple[float, float]:
    """The least and the greatest φ within all bounds, to two decimals."""
    size = (LEAST_MULTIPLIER, MOST_MULTIPLIER)
    bounds = (size, size, (least_resolution, most_resolution))
    limits = [
        (log(least) / log(factor), log(most) / log(factor))
        for factor, (least, most) in zip(coefficients, bounds, strict=True)
        if factor > 1
    ]
    low, high = max(low for low, _ in limits), min(high for _, high in limits)
    return ceil(100 * low) / 100, floor(100 * high) / 100
