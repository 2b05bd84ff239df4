"""Adapters beside shared blocks, and norms that are the task's own."""

import pytest
import torch
from conftest import lively_chain
from networks import student_of
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core.cost import chain_costs
from nettailor.figures import structure
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.student.costs import path_costs
from nettailor.student.network import BatchNormPolicy, Student
from nettailor.student.wiring import Path as Way
from nettailor.student.wiring import Wiring

BACKBONES = ["test_resnet", "test_efficientnet", "test_convnext"]


def grown(
    backbone: str, *, adapters: bool = True, batch_norm: BatchNormPolicy = "train"
) -> Student:
    chain = lively_chain(backbone)
    return student_of(chain, 0, batch_norm=batch_norm, adapters=adapters)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_adapters_begin_as_nothing_and_then_count(backbone):
    torch.manual_seed(0)
    with_them, without = grown(backbone).eval(), grown(backbone, adapters=False).eval()
    without.load_state_dict(
        {k: v for k, v in with_them.state_dict().items() if not k.startswith("adapters.")}
    )
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(with_them(images).logits, without(images).logits)
    for adapter in with_them.adapters.values():
        nn.init.ones_(adapter.norm.weight)
    assert not torch.allclose(with_them(images).logits, without(images).logits)


def test_an_adapter_is_added_to_its_blocks_output():
    student = grown("test_resnet").eval()
    key = "block-0-1"
    nn.init.constant_(student.adapters[key].norm.weight, 0.5)
    route = (Way(0, 1, "block"), Way(1, student.wiring.depth, "exit"))
    cut = remove(student, PrunePlan("cut", student.wiring, Wiring(student.wiring.depth, route)))
    assert list(cut.adapters) == [key]
    images = torch.randn(2, 3, 32, 32)
    stem = cut.stem(images)
    # the first block of test_resnet keeps the resolution, so nothing is pooled
    by_hand = cut.activations["1"](cut.blocks[key](stem) + cut.adapters[key](stem))
    torch.testing.assert_close(cut(images).nodes[1], by_hand)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_convnext"])
def test_what_they_cost(backbone):
    """A 1×1 convolution C_in × C_out at the target's resolution, and its norm's 2 C_out numbers."""
    chain, student = lively_chain(backbone), grown(backbone)
    plain = chain_costs(chain, 32)
    costs, total = path_costs(student, chain, 32)
    assert total == plain.total
    for path, cost in zip(student.wiring.paths, costs, strict=True):
        if path.kind == "block":
            before, after = student.specs[path.source], student.specs[path.target]
            side = -(-32 // after.stride)
            extra = before.channels * after.channels
            assert cost.flops == plain.blocks[path.target - 1].flops + extra * side**2
            numbers = plain.blocks[path.target - 1].parameters + extra + 2 * after.channels
            assert cost.parameters == numbers


@pytest.mark.parametrize("batch_norm", ["train", "follow", "frozen"])
def test_which_numbers_are_the_tasks_own(batch_norm):
    student = grown("test_efficientnet", batch_norm=batch_norm)
    norms = [
        module
        for part in student.universal()
        for module in part.modules()
        if isinstance(module, _BatchNorm)
    ]
    assert norms
    assert all(norm.weight.requires_grad == (batch_norm == "train") for norm in norms)
    frozen = [
        parameter
        for part in student.universal()
        for module in part.modules()
        if batch_norm != "train" or not isinstance(module, _BatchNorm)
        for parameter in module.parameters(recurse=False)
    ]
    assert not any(parameter.requires_grad for parameter in frozen)
    counted = structure(student, 32)["params"]
    assert counted["universal"] == sum(parameter.numel() for parameter in frozen)
    student.train()
    assert all(norm.training == (batch_norm != "frozen") for norm in norms)
