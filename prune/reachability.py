"""What an exclusion leaves dead or cut off."""

import math
from collections.abc import Sequence

from nettailor.student.wiring import Path, Wiring


def closure(wiring: Wiring) -> Wiring:
    """Drop paths out of nodes that nothing leads into and into nodes that nothing reads.

    The second and third exclusion rules of the paper (section 3.4), swept until nothing changes.
    The stem's node always counts as led into, the logits as read. Empty when the two are cut
    apart.
    """
    while True:
        dead = [
            path
            for path in wiring.paths
            if (path.source > 0 and not wiring.incoming[path.source])
            or (path.target < wiring.depth and not wiring.outgoing[path.target])
        ]
        if not dead:
            return wiring
        wiring = wiring.without(dead)


def fewest_blocks(wiring: Wiring) -> int:
    """How many pretrained blocks a route from stem to logits has at least; a route must exist."""
    fewest: list[float] = [0.0]
    for node in range(1, wiring.depth + 1):
        ways = [wiring.paths[position] for position in wiring.incoming[node]]
        fewest.append(
            min((fewest[way.source] + (way.kind == "block") for way in ways), default=math.inf)
        )
    return int(fewest[-1])


def strongest_route(wiring: Wiring, alpha: Sequence[float]) -> tuple[Path, ...]:
    """The route from stem to logits with the greatest product of path weights.

    Args:
        wiring: the paths to choose from; a route must exist.
        alpha: their weights, each in (0, 1].

    Raises:
        ValueError: no path leads from the stem to the logits.
    """
    best: list[tuple[float, tuple[Path, ...]] | None] = [(1.0, ())]
    for node in range(1, wiring.depth + 1):
        options = []
        for position in wiring.incoming[node]:
            path = wiring.paths[position]
            before = best[path.source]
            if before is not None:
                options.append((before[0] * alpha[position], (*before[1], path)))
        best.append(max(options, key=lambda option: option[0]) if options else None)
    route = best[-1]
    if route is None:
        raise ValueError("no path leads from the stem to the logits")
    return route[1]
