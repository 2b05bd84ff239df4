"""The routes that are worth trying, from lean to dear, and what they are called."""

from collections.abc import Sequence

from nettailor.prune.routes import Route

_GROWTH = 1.08  # of the cost from one rung of the ladder to the next
NEAR = 10.0  # points of accuracy that fine-tuning is trusted to bring back, for a first guess


def route_name(route: Route) -> str:
    """Such as `route-0.250`, by its cost."""
    # three digits that count tell rungs apart, each 8 % dearer than the one before
    return f"route-{route.cost:#.3g}"


def end_of(route: Route) -> str:
    """Where it leads into the logits, such as `exit5` or `head16`."""
    *_, end = route.paths
    return f"{end.kind}{end.source}"


def ladder(frontier: Sequence[Route]) -> list[Route]:
    """The routes of a frontier that are clearly dearer than the rung before, the best one too.

    No two of them have one name.
    """
    rungs: list[Route] = []
    for route in frontier:
        if not rungs or route.cost >= _GROWTH * rungs[-1].cost:
            rungs.append(route)
    best = frontier[-1]
    if rungs[-1] is not best:
        if route_name(rungs[-1]) == route_name(best):
            rungs.pop()
        rungs.append(best)
    return rungs
