"""How many operations a training step takes, and that none of them waits for the device."""

from functools import partial
from typing import Any

import pytest
import torch
from steps import plain_steps, student_steps
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
IMAGES, LABELS = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
DEFAULT = partial(student_steps, "tf_efficientnet_lite0", published=False, side=64, device=CPU)
PUBLISHED = partial(student_steps, "resnet34", published=True, side=64, device=CPU)


@pytest.mark.parametrize(
    ("make", "most"),
    [(DEFAULT, 1000), (PUBLISHED, 890), (partial(plain_steps, "tf_efficientnet_lite0", CPU), 400)],
)
def test_operations_of_a_step(make, most):
    """The second of two steps: what is made once is no part of it."""
    steps = make()
    steps.operations(IMAGES, LABELS)
    assert 300 < steps.operations(IMAGES, LABELS) <= most


class FromTheHost(TorchDispatchMode):
    """Collects what would copy from the host to a GPU in the midst of a step, or wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        # a list that becomes a tensor, a number that is read, a choice whose size is unknown
        if name in ("lift_fresh", "_local_scalar_dense", "nonzero", "masked_select"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("make", [DEFAULT, PUBLISHED])
def test_no_operation_of_a_step_copies_from_the_host(make):
    steps = make()
    steps.backward(IMAGES, LABELS)
    with FromTheHost() as watch:
        steps.backward(IMAGES, LABELS)
    assert watch.seen == []


def test_the_watch_sees_an_index_from_a_list():
    """The check above would say little if it saw nothing."""
    with FromTheHost() as watch:
        torch.arange(4.0)[[0, 2]]
        float(torch.ones(3).sum())
    assert watch.seen == ["lift_fresh", "_local_scalar_dense"]
