"""Expected complexity of a student from its path weights: pure tensor arithmetic.

Each form is made once for a wiring and its costs, on their device, and is then a function of the
path weights: α, shape (paths,) -> E[C], a scalar. `published` takes each path as open with
probability α, independently of the others; `route` takes α as the odds with which a node chooses
one of its paths.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nettailor.student.wiring import KINDS, Wiring

ExpectedComplexity = Callable[[Tensor], Tensor]


def published(cost: Tensor, wiring: Wiring) -> ExpectedComplexity:
    """E[C] as the paper has it (NetTailor, equation 8), with its events taken as disjoint.

    For a path from node i into node j, with r = 1 - α:
    E[C_ij] = C_ij (1 - r_ij - Π_{paths into i} r - Π_{paths out of j} r).
    The input is always there and the output always read, so their products count as zero.

    Args:
        cost: cost of each path over the pretrained network's total, shape (paths,).
        wiring: the paths, in the same order.

    Returns:
        α -> a scalar, at most Σ C; it can be negative, because the events do overlap.
    """
    # Sum over the products instead of the paths: what closes a node takes the cost of all that
    # leaves it, and what closes its way out the cost of all that leads into it.
    into, out_of = wiring.incoming[1:-1], wiring.outgoing[1:-1]
    groups, charged = [*into, *out_of], [*out_of, *into]
    prices = torch.stack([cost.new_zeros(()), *(cost[list(group)].sum() for group in charged)])
    # one padded row per product; the padding is the number after the last path, where r is 1
    width = max([len(group) for group in groups], default=1)
    width = 1 << (width - 1).bit_length()
    rows = [[*group, *[len(wiring.paths)] * (width - len(group))] for group in [(), *groups]]
    table = torch.tensor(rows, device=cost.device)

    def expected(alpha: Tensor) -> Tensor:
        products = F.pad(1 - alpha, (0, 1), value=1.0)[table]
        # halves times halves, because the gradient of Tensor.prod looks at values on the host
        while products.shape[1] > 1:
            left, right = products.chunk(2, dim=1)
            products = left * right
        return (cost * alpha).sum() - (prices * products.squeeze(1)).sum()

    return expected


def route(cost: Tensor, wiring: Wiring) -> ExpectedComplexity:
    """E[C] of a route drawn backwards from the logits, where each node takes one path by its α.

    O = 1 at the logits and O_i = Σ_{paths i→j} α_ij O_j are the odds that node i lies on the route;
    E[C] = Σ C_ij α_ij O_j. Exact, and within the costs of the leanest and the dearest route.

    With A_ij = Σ α over the paths i→j, O solves (I - A) O = e, where e is 1 at the logits. A is
    strictly upper triangular, because paths lead forward.

    Args and returns as for `published`.
    """
    nodes = wiring.depth + 1
    shape = (len(KINDS), nodes, nodes)
    places = [
        (KINDS.index(path.kind) * nodes + path.source) * nodes + path.target
        for path in wiring.paths
    ]
    table = torch.tensor(places, device=cost.device)

    def spread(of_paths: Tensor) -> Tensor:
        """(paths,) -> (kinds, sources, targets); no two paths share a place."""
        return of_paths.new_zeros(shape).flatten().scatter(0, table, of_paths).view(shape)

    prices = spread(cost)
    logits = cost.new_zeros(nodes, 1)
    logits[-1] = 1

    def expected(alpha: Tensor) -> Tensor:
        weights = spread(alpha)
        odds = torch.linalg.solve_triangular(
            -weights.sum(dim=0), logits, upper=True, unitriangular=True
        )
        by_target: Tensor = (prices * weights).sum(dim=(0, 1)) * odds.squeeze(1)
        return by_target.sum()

    return expected


FORMS: dict[str, Callable[[Tensor, Wiring], ExpectedComplexity]] = {
    "published": published,
    "route": route,
}
