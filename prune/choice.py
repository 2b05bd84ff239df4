"""Where a student that shrinks goes: of the routes within a cost the one that loses least."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nettailor.core.modes import training
from nettailor.prune.routes import Routes
from nettailor.prune.shrink import DUST, Shrinking
from nettailor.prune.statistics import statistics_kept
from nettailor.student.wiring import Path, Wiring

Batches = Sequence[tuple[Tensor, Tensor, Tensor]]  # images, labels and the teacher's logits
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits, labels, the teacher's logits)
# (network, batches, loss, target, goal) -> a route
Choice = Callable[[Shrinking, Batches, Loss, float, float], tuple[Path, ...]]

_USED = 0.8  # of a goal, by an aim
_MOST = 1e6  # nats, of a block without which the loss is not a number


@torch.no_grad()
def least_lost(
    network: Shrinking, batches: Batches, loss: Loss, target: float, goal: float
) -> tuple[Path, ...]:
    """The route to go on with: as far as `target` on the way to the best one within `goal`.

    To each end leads the route within the goal whose blocks that are gone raise the loss least, by
    the sum of what each raises alone: an exact knapsack, which leaves as little unused as the costs
    of blocks allow. All of these are tried as they are, and the one that loses least is the aim. On
    the way to it the change goes first that raises the loss least by the cost that it saves.

    Where others can be, no route is an aim that could not shrink as far as the present one any
    more, that ends in an exit of the first quarter of the backbone, or that leaves more than a
    fifth of the goal unused: straight after a cut such short ones lose least, and then learn least.

    Args:
        network: in which parts can go; what is found of the rise of each is noted there.
        batches: images, labels and the teacher's logits; blocks alone are tried on the first.
        loss: its mean over a batch; normalised by the statistics of each batch.
        target: what the route may cost.
        goal: what the aim may cost, at most the target.

    Returns the leanest route where none is within the target.
    """
    route, paths = network.route, network.wiring.paths
    rises = dict(zip(paths, network.rises.tolist(), strict=True))
    with training(network), statistics_kept(network):
        passes = [network.nodes(images) for images, *_ in batches]

        def lost(way: Sequence[Path], on: int = len(passes)) -> float:
            """Of a route, over some batches; what it shares with the present one is there."""
            pairs = enumerate(zip(way, route, strict=False))
            place = next((at for at, (new, old) in pairs if new != old), len(route) - 1)
            ends = (network.on(nodes[place], way[place:]) for nodes in passes[:on])
            each = zip(ends, batches, strict=False)
            return float(torch.stack([loss(end, *others) for end, (_, *others) in each]).mean())

        now, now_on_one = lost(route), lost(route, on=1)
        for one in network.removals():
            if one.path.kind == "block":
                rises[one.path] = lost(one.route, on=1) - now_on_one
        aims = [way for end in network.ends if (way := _to(network, end, rises, goal))]
        for fits in _wanted(network, goal):
            aims = [one for one in aims if fits(one)] or aims
        losses = [_or_inf(lost(way)) for way in aims]
        aim = aims[losses.index(min(losses))] if aims else network.leanest_of(route)
        if aim[-1] != route[-1]:
            rises[aim[-1]] = lost(network.to_end(aim[-1], route)) - now
    network.rises.copy_(torch.tensor([rises[path] for path in paths]))
    return aim if target <= goal else _towards(network, aim, target)


def _towards(network: Shrinking, aim: tuple[Path, ...], target: float) -> tuple[Path, ...]:
    """As far as a cost on the way to a route: the lowest price first, of what leads there."""
    route = network.route
    while network.cost_of(route) > target:
        steps = [
            one
            for one in network.removals(route)
            if (one.path not in aim if one.path.kind == "block" else one.path == aim[-1])
        ]
        if not steps:
            return aim
        route = min(steps, key=lambda one: _or_inf(network.price(one))).route
    return route


def _to(
    network: Shrinking, end: Path, rises: dict[Path, float], most: float
) -> tuple[Path, ...] | None:
    """The route to an end within a cost whose blocks that are gone raise the loss least."""
    blocks = {path.target: path for path in network.route if path.kind == "block"}
    before = [path for path in network.route[:-1] if path.target <= end.source]
    identities = [path for node, path in network.identities.items() if node <= end.source]
    left = Wiring(network.wiring.depth, tuple(dict.fromkeys([*before, *identities, end])))
    value = [
        -min(max(_or_inf(rises[blocks[path.target]]), 0) + DUST, _MOST)
        if path.kind == "identity" and path.target in blocks
        else 0.0
        for path in left.paths
    ]
    cost = [network.cost_of_path(path) for path in left.paths]
    found = Routes(left, value, cost, fixed=network.shares.fixed).best(most)
    return None if found is None else found.paths


def _wanted(network: Shrinking, goal: float) -> list[Callable[[tuple[Path, ...]], bool]]:
    """What an aim should be, where it can be; what comes first counts most."""
    least = max(network.leanest, float(network.least)) + DUST
    blocks = network.wiring.depth - 1
    return [
        lambda route: network.cost_of(network.leanest_of(route)) <= least,
        lambda route: route[-1].source >= blocks / 4,
        lambda route: network.cost_of(route) >= _USED * goal,
    ]


def _or_inf(value: float) -> float:
    """What is not a number counts as the worst: nothing is known of it."""
    return math.inf if math.isnan(value) else value
