"""Doing what a plan says: a smaller student, its dropped modules really gone."""

import copy

import torch

from nettailor.core.errors import UserError
from nettailor.prune.plan import PrunePlan
from nettailor.student.network import Student
from nettailor.student.path_weights import PathWeights


def remove(student: Student, plan: PrunePlan) -> Student:
    """A copy of the student without the paths that the plan drops; the original stays as it was.

    Kept weights, path logits, frozen flags and statistics are the original's. The softmax runs
    over the paths that are left, so their weights grow.

    Raises UserError for a plan that was made for a student with other paths.
    """
    if student.wiring != plan.before:
        raise UserError(
            f"the plan {plan.name} is of a student with other paths: give one that was made for "
            "this student"
        )
    smaller = copy.deepcopy(student)
    kept = {path.key for path in plan.kept.paths} | {str(path.target) for path in plan.kept.paths}
    parts = (smaller.blocks, smaller.adapters, smaller.proxies, smaller.heads, smaller.activations)
    for modules in parts:
        for key in list(modules):
            if key not in kept:
                del modules[key]
    weights = PathWeights(plan.kept).to(student.path_weights.logits.device)
    positions = [student.wiring.paths.index(path) for path in plan.kept.paths]
    with torch.no_grad():
        weights.logits.copy_(student.path_weights.logits[positions])
    weights.requires_grad_(student.path_weights.logits.requires_grad)
    smaller.path_weights = weights
    smaller.wiring, smaller.side = plan.kept, plan.side
    return smaller
