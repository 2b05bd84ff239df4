"""The parameters of a student, by how they train."""

from typing import Any

from nettailor.core.schedule import Schedule, parameter_groups
from nettailor.student.network import Student


def student_groups(student: Student, schedule: Schedule, path_lr: float) -> list[dict[str, Any]]:
    """As `parameter_groups`, and the path weights by themselves, without weight decay.

    Args:
        student: whose parameters.
        schedule: of all others.
        path_lr: highest learning rate of the path weights.
    """
    own = [
        (name, parameter)
        for name, parameter in student.named_parameters()
        if not name.startswith("path_weights.")
    ]
    paths = {"params": [student.path_weights.logits], "weight_decay": 0.0, "lr": path_lr}
    return [*parameter_groups(own, schedule), paths]
