"""Training steps to be counted and timed: a plain fine-tune step, the default and the published
student's."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nettailor.core.backbone import create_backbone
from nettailor.core.device import place
from nettailor.core.families import make_network
from nettailor.core.latency import sample
from nettailor.prune.shrink import Shrinking
from nettailor.prune.shrink_loss import ShrinkLoss
from nettailor.shrinking import FLOOR
from nettailor.student.costs import shares_of
from nettailor.student.loss import TailorLoss
from nettailor.student.network import Student

CLASSES = 10


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators; views and bare allocations, which compute nothing, are left out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if not (func.is_view or name in ("empty", "new_empty", "new_empty_strided", "as_strided_")):
            self.counted[name] += 1
        return func(*args, **(kwargs or {}))


class Steps(NamedTuple):
    """A network and what its steps minimise, which gives the terms of the loss."""

    network: nn.Module
    objective: Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]

    @property
    def trained(self) -> list[nn.Parameter]:
        """What an optimizer steps."""
        return [one for one in self.network.parameters() if one.requires_grad]

    def backward(self, images: Tensor, labels: Tensor) -> None:
        """The gradients of a step."""
        terms = self.objective(self.network, images, labels)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]

    def operations(self, images: Tensor, labels: Tensor) -> int:
        """Forward and backward of one step, views, allocations and the optimizer left out."""
        self.network.zero_grad()
        with Operations() as seen:
            self.backward(images, labels)
        return int(seen.counted.total())


def cross_entropy(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The objective of a plain fine-tune step on timm's own network."""
    return {"cross_entropy": F.cross_entropy(network(images), labels)}


def plain_steps(backbone: str, device: torch.device) -> Steps:
    """Fine-tuning timm's own network."""
    return Steps(place(make_network(backbone, CLASSES), device).train(), cross_entropy)


def student_steps(
    backbone: str, *, published: bool, side: int, device: torch.device, skips: int = 3
) -> Steps:
    """Training the default student, still whole, or the published one, from random weights."""
    teacher = place(create_backbone(backbone, CLASSES), device)
    chain = create_backbone(backbone, CLASSES)
    if not published:
        student = Student(chain)
        network = Shrinking(student, shares_of(student, chain, side, "flops"), FLOOR)
        return Steps(place(network, device).train(), ShrinkLoss(teacher))
    student = Student(
        chain, skips=skips, identities=False, exits=False, batch_norm="follow", shared=True
    )
    place(student, device)
    objective = TailorLoss(teacher, distill=0.0, mimic=1.0, complexity="published")
    # drawn on the CPU: the same on any device
    drawn = sample(2, 3, side, torch.device("cpu")).to(device)
    objective.calibrate([drawn])
    return Steps(student.train(), objective)


def stepper(steps: Steps, images: Tensor, labels: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """A function that takes one SGD step, under autocast where dtype is not float32."""
    optimizer = torch.optim.SGD(steps.trained, lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            steps.backward(images, labels)
        optimizer.step()

    return step
