"""Expected complexity of a student from its path weights: pure tensor arithmetic.

`published` and `reachability` take each path as open with probability α, independently of the
others; `route` takes α as the odds with which a node chooses one of its paths.
"""

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from student.wiring import Wiring

ExpectedComplexity = Callable[[Tensor, Tensor, Wiring], Tensor]


def published(alpha: Tensor, cost: Tensor, wiring: Wiring) -> Tensor:
    """E[C] as the paper has it (NetTailor, equation 8), with its events taken as disjoint.

    For a path from node i into node j, with r = 1 - α:
    E[C_ij] = C_ij (1 - r_ij - Π_{paths into i} r - Π_{paths out of j} r).
    The input is always there and the output always read, so their products count as zero.

    Args:
        alpha: path weights, shape (paths,).
        cost: cost of each path over the pretrained network's total, shape (paths,).
        wiring: the paths, in the same order.

    Returns:
        A scalar, at most Σ C; it can be negative, because the events do overlap.
    """
    closed = 1 - alpha
    ways = closed.unbind()
    one, zero = closed.new_ones(()), closed.new_zeros(())

    def all_closed(group: tuple[int, ...]) -> Tensor:
        # a chain of products, because the gradient of Tensor.prod looks at values on the host
        return reduce(torch.mul, (ways[position] for position in group), one)

    into = torch.stack([zero, *(all_closed(group) for group in wiring.incoming[1:])])
    out_of = torch.stack([*(all_closed(group) for group in wiring.outgoing[:-1]), zero])
    sources = [path.source for path in wiring.paths]
    targets = [path.target for path in wiring.paths]
    return (cost * (1 - closed - into[sources] - out_of[targets])).sum()


def reachability(alpha: Tensor, cost: Tensor, wiring: Wiring) -> Tensor:
    """E[C] by the odds that a path is open, its source is reached and its target is read.

    R_0 = 1, R_j = 1 - Π_{paths i→j} (1 - α_ij R_i);
    O = 1 at the logits, O_i = 1 - Π_{paths i→j} (1 - α_ij O_j);
    E[C] = Σ C_ij α_ij R_i O_j.
    Exact where no two routes share a path; always within [0, Σ C].

    Args and returns as for `published`.
    """
    weights = alpha.unbind()
    one = alpha.new_ones(())
    reached: list[Tensor] = [one]
    for node in range(1, wiring.depth + 1):
        missed = one
        for position in wiring.incoming[node]:
            missed = missed * (1 - weights[position] * reached[wiring.paths[position].source])
        reached.append(1 - missed)
    read: list[Tensor] = [one] * (wiring.depth + 1)
    for node in range(wiring.depth - 1, -1, -1):
        missed = one
        for position in wiring.outgoing[node]:
            missed = missed * (1 - weights[position] * read[wiring.paths[position].target])
        read[node] = 1 - missed
    sources = torch.stack([reached[path.source] for path in wiring.paths])
    targets = torch.stack([read[path.target] for path in wiring.paths])
    return (cost * alpha * sources * targets).sum()


def route(alpha: Tensor, cost: Tensor, wiring: Wiring) -> Tensor:
    """E[C] of a route drawn backwards from the logits, where each node takes one path by its α.

    O = 1 at the logits and O_i = Σ_{paths i→j} α_ij O_j are the odds that node i lies on the route;
    E[C] = Σ C_ij α_ij O_j. Exact, and within the costs of the leanest and the dearest route.

    Args and returns as for `published`.
    """
    weights = alpha.unbind()
    zero = alpha.new_zeros(())
    taken: dict[int, Tensor] = {}
    on_route: list[Tensor] = [zero] * wiring.depth + [alpha.new_ones(())]
    for node in range(wiring.depth, 0, -1):
        for position in wiring.incoming[node]:
            taken[position] = weights[position] * on_route[node]
            source = wiring.paths[position].source
            on_route[source] = on_route[source] + taken[position]
    return (cost * torch.stack([taken[position] for position in range(len(wiring.paths))])).sum()


FORMS: dict[str, ExpectedComplexity] = {
    "published": published,
    "reachability": reachability,
    "route": route,
}
