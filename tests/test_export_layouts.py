"""Cut students of every layout as files: what they answer, and that nothing of them is missing."""

import random
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import timm
import torch
from networks import drawn_route, enliven
from torch import nn
from torchvision.models import get_model

import nettailor as nt
from nettailor.deploy.onnx_file import load_onnx, to_onnx
from nettailor.deploy.pt2_file import load_pt2, to_pt2
from nettailor.deploy.written import TOLERANCE, Loaded, difference

CLASSES = 5


def of_timm(name: str, **sizes: Any) -> Callable[[], nn.Module]:
    return partial(timm.create_model, name, num_classes=CLASSES, **sizes)


SMALL = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 32, "num_heads": 2}
MAKES: dict[str, Callable[[], nn.Module]] = {
    "tokens": of_timm("vit_tiny_patch16_224", **SMALL),
    # and registers
    "rotary": of_timm("vit_small_patch16_dinov3", **SMALL),
    # with stochastic depth
    "nhwc": of_timm(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=16, depths=(2, 1),
        num_heads=(2, 2),
    ),
    "convnextv2": of_timm("convnextv2_atto", depths=(1, 2, 1, 1), dims=(16, 16, 24, 24)),
    "branches": of_timm("fastvit_t8", layers=(2, 1), embed_dims=(16, 32), mlp_ratios=(2, 2)),
    "torchvision": partial(get_model, "mobilenet_v3_small", num_classes=CLASSES),
}  # fmt: skip


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@torch.no_grad()
def test_files_of_a_cut_student_answer_as_it_does(make: Callable[[], nn.Module]) -> None:
    backbone = nt.Backbone(enliven(make()), example=torch.zeros(1, 3, 32, 32)).eval()
    student = enliven(nt.Student(backbone)).eval()
    small = nt.cut(student, drawn_route(student, random.Random(0))).eval()
    batches = [torch.randn(count, 3, 32, 32) for count in (1, 3)]
    assert float(small(batches[1]).logits.std(0).max()) > 1e-4, "images must show"
    plain = nt.fold(small)
    assert difference(small, Loaded(plain), batches) < TOLERANCE
    whole, program = load_onnx(to_onnx(plain, 32, {})), load_pt2(to_pt2(plain, 32, {}))
    for again in (whole, program):
        assert difference(small, again, batches) < TOLERANCE


def test_comparing_leaves_the_mode_alone() -> None:
    """What is compared is written afterwards, and in training mode it would answer otherwise."""
    backbone = nt.Backbone(MAKES["nhwc"](), example=torch.zeros(1, 3, 32, 32))
    plain = nt.fold(backbone)
    difference(deepcopy(backbone), Loaded(plain), [torch.randn(2, 3, 32, 32)])
    assert not [name for name, part in plain.named_modules() if part.training]
