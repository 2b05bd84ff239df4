"""What each path of a trained student is worth, measured."""

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from nettailor.core.memory import room_for
from nettailor.core.modes import training
from nettailor.student.loss import expected_cross_entropy
from nettailor.student.network import Student

_ALONE = 40.0  # a logit above all others by so much leaves them e⁻⁴⁰ of the weight


def measured_on(
    student: Student, batches: Sequence[tuple[Tensor, Tensor]], accelerator: Accelerator
) -> list[float]:
    """`measured` by the cross-entropy over batches, with the statistics of each batch.

    Args:
        student: on the accelerator's device; its running statistics are put back afterwards.
        batches: images (B, C, S, S) and labels (B,).
        accelerator: says where, and in which precision.
    """
    device = accelerator.device

    def loss() -> float:
        total = 0.0
        for images, labels in batches:
            with accelerator.autocast(), room_for(len(images), "weighing paths"):
                output = student(images.to(device, memory_format=torch.channels_last))
            by_head, heads = torch.stack(output.by_head), student.of_heads(output.alpha)
            total += float(expected_cross_entropy(by_head.float(), heads, labels.to(device)))
        return total / len(batches)

    before = {name: value.clone() for name, value in student.state_dict().items()}
    with training(student):
        values = measured(student, loss)
    student.load_state_dict(before)
    return values


@torch.no_grad()
def measured(student: Student, loss: Callable[[], float]) -> list[float]:
    """By how much the loss falls when a node takes one path alone, by path; mostly below 0.

    Each path is tried with the rest of the student as it is: what a route loses in all is taken to
    be the sum of what its paths lose. A node's only path is worth 0.

    Args:
        student: its path weights are put back afterwards.
        loss: of the student as it stands, in nats, on the same images each time.
    """
    logits = student.path_weights.logits
    before = logits.clone()
    as_it_is = loss()
    values = [0.0] * len(student.wiring.paths)
    for group in student.wiring.incoming:
        for position in group if len(group) > 1 else ():
            logits[position] = before[list(group)].max() + _ALONE
            values[position] = as_it_is - loss()
            logits.copy_(before)
    return values
