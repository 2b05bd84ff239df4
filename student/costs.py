"""What each path of a student costs, and its share of the whole backbone's cost."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from nettailor.core.backbone import Backbone
from nettailor.core.cost import Cost, chain_costs, module_cost
from nettailor.core.layout import bring
from nettailor.core.sections import Unit
from nettailor.student.network import Student
from nettailor.student.wiring import Path, Wiring


def path_costs(student: Student, chain: Backbone, image_size: int) -> tuple[tuple[Cost, ...], Cost]:
    """What each path costs on one image, in the wiring's order, and the whole chain's total.

    Args:
        student: grown from a chain of the same backbone.
        chain: the whole pretrained network.
        image_size: side of the input in pixels.

    Raises:
        UserError: the image is too small for the backbone.
    """
    costs = chain_costs(chain, image_size)
    specs = student.specs

    def alone(module: nn.Module, path: Path) -> Cost:
        node = costs.nodes[path.source]
        if path.target < student.wiring.depth:
            # a proxy pools first, so its convolutions run at the target's resolution
            node = bring(node, specs[path.source], specs[path.target])
        return module_cost(module, tuple(node.shape[1:]))

    result = []
    for path in student.wiring.paths:
        if path.kind == "block":
            cost = costs.blocks[path.target - 1]
            if path.key in student.adapters:
                cost = _sum(cost, alone(student.adapters[path.key], path))
        elif path.kind == "head":
            cost = _sum(costs.neck, costs.classifier)
        elif path.kind == "exit":
            cost = alone(student.heads[path.key], path)
        elif path.kind == "proxy":
            cost = alone(student.proxies[path.key], path)
        else:
            cost = Cost(0, 0)
        result.append(cost)
    return tuple(result), costs.total


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(one.flops + other.flops, one.parameters + other.parameters)


class PathShares(NamedTuple):
    """Shares of the whole backbone's cost.

    paths: of each path, in the wiring's order. fixed: of the stem. whole: the backbone's cost, in
    multiply-adds, parameters or milliseconds.
    """

    paths: list[float]
    fixed: float
    whole: float

    def of(self, wiring: Wiring, route: Iterable[Path]) -> float:
        """The share of a network that keeps only these paths of a student."""
        share = dict(zip(wiring.paths, self.paths, strict=True))
        return self.fixed + math.fsum(share[path] for path in route)


def shares_of(student: Student, chain: Backbone, image_size: int, unit: Unit) -> PathShares:
    """Shares of the multiply-adds or of the parameters, counted.

    image_size: side in pixels of the backbone's images; the student's have its own `side`.
    """
    column, side = (0 if unit == "flops" else 1), student.side or image_size
    costs, total = path_costs(student, chain, side)
    stem = chain_costs(chain, side).stem
    whole = (total if side == image_size else chain_costs(chain, image_size).total)[column]
    return PathShares([cost[column] / whole for cost in costs], stem[column] / whole, whole)
