"""What goes next of a student that shrinks: what the loss misses least by its cost."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from nettailor.core.modes import training
from nettailor.prune.shrink import DUST, WITHIN, Removal, Shrinking
from nettailor.prune.statistics import statistics_kept
from nettailor.student.wiring import Path

Batches = Sequence[tuple[Tensor, Tensor, Tensor]]  # images, labels and the teacher's logits
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits, labels, the teacher's logits)
Choice = Callable[[Shrinking, Batches, Loss, float], Removal | None]


@torch.no_grad()
def cheapest(network: Shrinking, batches: Batches, loss: Loss, goal: float) -> Removal | None:
    """What the loss rises least for, by the cost that it saves.

    What is saved beyond the goal counts for nothing: a large thing whose removal the network
    would not get over is not taken for many small ones that it would, one after the other.
    Nothing is taken after which what is left of `least` unused would have to be more than 2 %,
    or more than it has to be anyway.

    Exits are all tried. A block is tried anew while it is, as last tried, the cheapest thing of
    all: the price of a block rises as others go (lazy greedy: Minoux, 1978).

    Args:
        network: in which parts can go; what is found of the rise of each is noted there.
        batches: images, labels and the teacher's logits.
        loss: its mean over a batch; normalised by the statistics of each batch.
        goal: the cost to be at soon, from `least` to less than the cost now.

    Returns None where nothing is left to take out.
    """
    most = max(network.cost - goal, DUST)
    aim = min(network.dearest_within(network.route), (1 - WITHIN) * float(network.least)) - DUST
    paths, options = network.wiring.paths, network.removals()
    rises = dict(zip(paths, network.rises.tolist(), strict=True))
    with training(network), statistics_kept(network):
        passes = [network.nodes(images) for images, *_ in batches]

        def lost(ends: Iterable[Tensor]) -> Tensor:
            each = zip(ends, batches, strict=True)
            return torch.stack([loss(x, *others) for x, (_, *others) in each]).mean()

        now = lost(nodes[-1] for nodes in passes)

        def measure(one: Removal) -> None:
            ends = (network.on(nodes[one.place], one.route[one.place :]) for nodes in passes)
            rises[one.path] = float(lost(ends) - now)

        def price(one: Removal) -> float:
            rise = rises[one.path]  # where the loss is not a number, nothing is known for it
            return math.inf if math.isnan(rise) else max(rise, 0.0) / min(one.saved, most)

        tried = {
            one.path for one in options if one.path.kind != "block" or math.isnan(rises[one.path])
        }
        for one in options:
            if one.path in tried:
                measure(one)
        left, fitting = list(options), set[Path]()
        found = None
        while left and found is None:
            best = min(left, key=price)
            path = best.path
            if path not in fitting and network.dearest_within(best.route) < aim:
                left.remove(best)
            elif path in tried:
                found = best
            else:
                measure(best)
                tried.add(path)
                fitting.add(path)
    network.rises.copy_(torch.tensor([rises[path] for path in paths]))
    return found or min(options, key=lambda one: one.saved, default=None)
