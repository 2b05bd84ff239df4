"""Learning rates step by step, and which parameters are decayed."""

from dataclasses import replace
from math import cos, pi

import pytest
import torch
from small_stages import COSINE, PLAIN, student_and_objective
from torch import nn

from nettailor.core.schedule import Schedule, make_optimizer, make_scheduler, parameter_groups


def test_biases_norms_and_path_weights_are_not_decayed() -> None:
    """A step at a gradient of zero shrinks what is decayed by 1 - lr · decay and nothing else."""
    student, _ = student_and_objective(1)
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    schedule = replace(PLAIN, optimizer="momentum", lr=0.5, weight_decay=0.1)
    groups = parameter_groups(student.named_parameters(), schedule)
    listed = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(n for n, p in student.named_parameters() if p.requires_grad)
    decayed = {names[id(parameter)] for parameter in groups[0]["params"]}
    convolutions = {
        f"proxies.{name}.weight"
        for name, module in student.proxies.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    assert decayed == convolutions | {"heads.head-4-5.classifier.1.weight"}
    assert len(convolutions) >= len(student.proxies)

    optimizer = make_optimizer(groups, schedule)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    for parameter in student.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    for name, parameter in student.named_parameters():
        factor = 1 - 0.5 * 0.1 if name in decayed else 1
        torch.testing.assert_close(parameter.detach(), factor * before[name])


def rates(schedule: Schedule, steps: int) -> list[list[float]]:
    """The learning rate of both groups before each step."""
    groups = [
        {"params": [nn.Parameter(torch.zeros(2, 2))]},
        {"params": [nn.Parameter(torch.zeros(1))], "lr": 2 * schedule.lr},
    ]
    optimizer = make_optimizer(groups, schedule)
    scheduler = make_scheduler(optimizer, schedule, steps)
    seen = []
    for step in range(schedule.epochs * steps):
        scheduler.step_update(step)
        seen.append([group["lr"] for group in optimizer.param_groups])
    return seen


def test_learning_rates_by_hand() -> None:
    """4 epochs of 3 steps; every group keeps its own highest rate."""
    cosine = [0.05 * 0.5 * (1 + cos(pi * step / 12)) for step in range(12)]
    found = rates(replace(COSINE, warmup_epochs=0), 3)
    assert [row[0] for row in found] == pytest.approx(cosine)
    assert [row[1] for row in found] == pytest.approx([2 * rate for rate in cosine])

    drops = [0.05] * 6 + [0.005] * 6
    found = rates(replace(COSINE, shape="step-2", warmup_epochs=0), 3)
    assert [row[0] for row in found] == pytest.approx(drops)

    found = rates(replace(COSINE, shape="constant", warmup_epochs=0), 3)
    assert [row[0] for row in found] == pytest.approx([0.05] * 12)

    # warm-up climbs in equal parts from a hundredth of the rate, then joins the cosine
    found = rates(COSINE, 3)
    climb = [0.0005 + step * (0.05 - 0.0005) / 3 for step in range(3)]
    assert [row[0] for row in found] == pytest.approx(climb + cosine[3:])
