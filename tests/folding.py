"""Networks whose every layer shows, to be folded, and how far off a folded one is."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from networks import enliven, images, lively_chain, settle, student_of
from timm.models.regnet import RegNet, RegNetCfg
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core.backbone import Backbone, backbone_of
from nettailor.prune.fold import fold
from nettailor.student.network import Student

CLASSES = 5
EXACT = 1e-12  # of the largest logit, in float64
_SHALLOW = RegNetCfg(depth=6, w0=16, wa=16.0, wm=2.0, group_size=8)
# timm's own of these have 13 blocks and more
SMALL = {
    "small-regnetx": _SHALLOW,
    "small-regnetv": replace(_SHALLOW, preact=True, se_ratio=0.25, act_layer="silu"),
}


def chain_of(backbone: str) -> Backbone:
    """A random chain whose every layer shows."""
    if backbone in SMALL:
        chain = backbone_of(RegNet(SMALL[backbone], num_classes=CLASSES))
        enliven(chain)
    else:
        chain = lively_chain(backbone, CLASSES)
    settle(chain)
    return chain


def lively(student: Student) -> Student:
    """Path weights spread as after training, and every layer shows in the output."""
    enliven(student)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        drawn = torch.randn(len(student.wiring.paths), generator=generator)
        student.path_weights.logits.copy_(drawn)
    settle(student)
    return student


def student_with(backbone: str, skips: int | str = 2, **settings: Any) -> Student:
    return lively(student_of(chain_of(backbone), skips, **settings))


def doubles(batch: int, side: int) -> Tensor:
    return images(batch, side, torch.float64)


@torch.inference_mode()
def apart(network: Backbone | Student, plain: nn.Module, batch: Tensor) -> float:
    """The largest difference of logits over the largest logit."""
    expected, found = network(batch).logits, plain(batch)
    assert found.shape == expected.shape == (len(batch), CLASSES)
    assert expected.isfinite().all()
    # else images would not show in the logits, and any network were as good
    assert len(batch) == 1 or float(expected.std(0).max()) > 1e-6 * float(expected.abs().max())
    return float((found - expected).abs().max() / expected.abs().max())


def check(network: Backbone | Student) -> nn.Module:
    """The network folded in float64, after comparing at two batch sizes and sides, and float32."""
    exact = deepcopy(network).double()
    plain, single = fold(exact), fold(network)
    for batch, side in ((1, 32), (7, 48)):
        assert apart(exact, plain, doubles(batch, side)) < EXACT
    assert apart(network, single, images(7, 48)) < 1e-4
    return plain


def norms(network: nn.Module) -> list[str]:
    return [name for name, part in network.named_modules() if isinstance(part, _BatchNorm)]
