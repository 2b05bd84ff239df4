"""Batch-norm statistics after a cut, against sums worked out apart from any batch norm."""

from copy import deepcopy

import pytest
import torch
from conftest import enliven
from networks import student_of
from torch import Tensor, nn

from nettailor.prune.plan import decide
from nettailor.prune.remove import remove
from nettailor.prune.statistics import reestimate, statistics_kept
from nettailor.student.network import BatchNormPolicy, Student
from nettailor.student.proxy import ScaledBatchNorm2d


def cut_student(batch_norm: BatchNormPolicy) -> Student:
    student = student_of("test_resnet", 3, batch_norm=batch_norm)
    enliven(student.proxies)
    alpha = student.path_weights().tolist()
    plan = decide(student.wiring, alpha, threshold=0.01, remove=1)
    return remove(student, plan)


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    labels = torch.zeros(6, dtype=torch.long)
    return [
        (offset + torch.randn(6, 3, 32, 32, generator=generator), labels) for offset in (0, 1, 3)
    ]


def norms(module: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    }


def test_every_moving_norm_by_hand(accelerator):
    """Each batch's mean and unbiased variance per channel, averaged over the batches.

    Of proxies' scaled norms too, whose forward is this project's own.
    """
    student = cut_student("follow")
    seen: dict[str, list[Tensor]] = {name: [] for name in norms(student)}
    handles = [
        norm.register_forward_pre_hook(
            lambda _m, inputs, name=name: seen[name].append(inputs[0].detach())
        )
        for name, norm in norms(student).items()
    ]
    reestimate(student, batches(), accelerator)
    for handle in handles:
        handle.remove()
    assert any(name.startswith("proxies.") for name in seen)
    for name, norm in norms(student).items():
        assert len(seen[name]) == 3
        assert isinstance(norm, ScaledBatchNorm2d) or int(norm.num_batches_tracked) == 3
        means = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen[name]]).mean(dim=0)
        variances = torch.stack([x.var(dim=(0, 2, 3)) for x in seen[name]]).mean(dim=0)
        torch.testing.assert_close(norm.running_mean, means, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(norm.running_var, variances, rtol=1e-3, atol=1e-4)


def test_what_was_before_leaves_no_trace(accelerator):
    one = cut_student("follow")
    other = deepcopy(one)
    for norm in norms(other).values():
        norm.running_mean.add_(100)
        norm.num_batches_tracked.fill_(77)
    reestimate(one, batches(), accelerator)
    reestimate(other, batches(), accelerator)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("batch_norm", ["follow", "frozen"])
def test_frozen_norms_keep_theirs_and_no_weight_moves(batch_norm, accelerator):
    student = cut_student(batch_norm)
    before = deepcopy(student.state_dict())
    reestimate(student, batches(), accelerator)
    after = student.state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    statistics = {
        f"{name}.{key}"
        for name, norm in norms(student).items()
        for key, _ in norm.named_buffers()
        if not (isinstance(norm, ScaledBatchNorm2d) and key == "num_batches_tracked")
    }
    proxies = {name for name in statistics if name.startswith("proxies.")}
    assert proxies
    assert proxies < statistics
    assert moved == (statistics if batch_norm == "follow" else proxies)
    assert all(parameter.grad is None for parameter in student.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_norm", ["follow", "frozen"])
def test_momentum_and_modes_are_put_back(batch_norm, training, accelerator):
    student = cut_student(batch_norm).train(training)
    for number, norm in enumerate(norms(student).values()):
        norm.momentum = 0.01 * (number + 1)
    modes = {name: module.training for name, module in student.named_modules()}
    reestimate(student, batches(), accelerator)
    assert {name: module.training for name, module in student.named_modules()} == modes
    for number, norm in enumerate(norms(student).values()):
        assert norm.momentum == 0.01 * (number + 1)


@pytest.mark.parametrize("skips", [0, 3])
@pytest.mark.parametrize("value", [float("inf"), 7.0])
def test_what_is_only_tried_leaves_no_trace(value, skips):
    """Not even a batch that is not finite; and each batch is normalised by its own statistics."""
    student = student_of("test_resnet", skips).train()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    (images, _), *_ = batches()
    shifted = images.clone()
    shifted[0] = value
    with statistics_kept(student):
        student(shifted)
        tried = student(images).logits
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    torch.testing.assert_close(student(images).logits, tried)
    name = next(name for name in before if name.endswith("running_mean"))
    assert not torch.equal(student.state_dict()[name], before[name])
