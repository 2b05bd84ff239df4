"""A student that shrinks as it trains: what the loss feels least goes next."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core.modes import training
from nettailor.core.schedule import Schedule, parameter_groups
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.routes import Routes
from nettailor.student.costs import PathShares
from nettailor.student.network import Student
from nettailor.student.wiring import Path, Wiring

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits, labels, the teacher's logits)
WITHIN = 0.02  # a budget is met when the cost is no more than this part of it below
_EXITS = 3  # times the learning rate of the others, at which exits train
_DUST = 1e-4  # of the backbone's cost: what is no saving


class Removal(NamedTuple):
    """A route that is left when one thing is taken out.

    loss: by how much the loss rises, in nats. saved: share of the backbone's cost.
    """

    route: tuple[Path, ...]
    loss: float
    saved: float

    @property
    def price(self) -> float:
        """Nats for all of the backbone's cost, at least 0."""
        return max(self.loss, 0.0) / max(self.saved, _DUST)


class Shrinking(nn.Module):
    """One route through a student, at first all of the backbone, of which parts are taken out.

    A block goes for the identity in its place, or everything behind a node for the exit that reads
    it. What went is not computed any more, so each step costs what is left.

    Attributes:
        student: with every block, identities and exits.
        least: the cost that is shrunk to, a scalar; it may be set anew.
        taken: which of its paths are on the route, (paths,). prices: what the loss rose by, for
            all of the backbone's cost, when a block was last tried without, or an exit as the end,
            (paths,); NaN before that.
        since: steps since something was taken out, a scalar. All four are kept in states.
    """

    least: Tensor
    taken: Tensor
    prices: Tensor
    since: Tensor

    def __init__(self, student: Student, shares: PathShares, least: float) -> None:
        """The whole backbone's route.

        Args:
            student: not trained; its modules are trained in place.
            shares: what its paths cost.
            least: a share of the backbone's. An exit that is leaner with all blocks before it than
                a later one that is leaner as well is left out.
        """
        super().__init__()
        self.student, self.shares = student, shares
        self.register_buffer("least", torch.tensor(least, dtype=torch.float64))
        paths = student.wiring.paths
        whole = [path.kind in ("block", "head") for path in paths]
        self.register_buffer("taken", torch.tensor(whole))
        self.register_buffer("prices", torch.full((len(paths),), math.nan))
        self.register_buffer("since", torch.tensor(0))
        self._momenta = {
            name: norm.momentum
            for name, norm in student.named_modules()
            if isinstance(norm, _BatchNorm)
        }
        self._cost = dict(zip(paths, shares.paths, strict=True))
        self._route: tuple[Path, ...] | None = None
        blocks = student.wiring.of_kind("block")
        dearest = {
            end: shares.of(student, [*blocks[: end.source], end])
            for end in paths
            if end.kind in ("head", "exit")
        }
        self._identities = {path.target: path for path in student.wiring.of_kind("identity")}
        # of the ends that are leaner whatever is kept before them, the dearest one is enough
        below = [cost for cost in dearest.values() if cost < least]
        self._ends = [end for end, cost in dearest.items() if cost >= max(below, default=0.0)]

    @property
    def wiring(self) -> Wiring:
        """All that there was at first."""
        return self.student.wiring

    @property
    def route(self) -> tuple[Path, ...]:
        """The paths that are taken, from the stem to the logits."""
        if self._route is None:
            taken = self.taken.tolist()
            paths = zip(self.student.wiring.paths, taken, strict=True)
            self._route = tuple(path for path, is_taken in paths if is_taken)
        return self._route

    def take(self, route: Sequence[Path]) -> None:
        """Go another way from here on."""
        here = [path in set(route) for path in self.student.wiring.paths]
        self.taken.copy_(torch.tensor(here))
        self.since.zero_()
        self._route = None

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)
        self._route = None

    def settle(self) -> bool:
        """Before a step: running statistics are plain averages over the first ones after a change.

        A change moves what later layers see, and at a momentum of 0.1 the statistics of before
        would count for ten steps and more. Returns whether they are still.
        """
        share = 1 / (int(self.since) + 1)
        self.since += 1
        own = [one or 0.0 for one in self._momenta.values()]
        self._set_momenta(self.student, share)
        return share > min(own, default=1.0)

    def _set_momenta(self, student: Student, least: float) -> None:
        for name, norm in student.named_modules():
            if isinstance(norm, _BatchNorm):
                own = self._momenta[name]
                norm.momentum = own if own is None else max(own, least)

    def cut(self, name: str) -> Student:
        """A copy of what is left, as a network of its own."""
        smaller = remove(self.student, PrunePlan.keeping(name, self.wiring, self.route))
        self._set_momenta(smaller, 0.0)
        return smaller

    @property
    def cost(self) -> float:
        """Of the route, a share of the backbone's."""
        return self.cost_of(self.route)

    def cost_of(self, route: Sequence[Path]) -> float:
        """Of a route, a share of the backbone's."""
        return self.shares.fixed + math.fsum(self._cost[path] for path in route)

    @property
    def leanest(self) -> float:
        """What it costs when all is taken out that can be."""
        blocks = [
            one
            for one in self.student.wiring.of_kind("block")
            if one.target not in self._identities
        ]
        return min(
            self.cost_of([*(one for one in blocks if one.target <= end.source), end])
            for end in self._ends
        )

    @property
    def exits(self) -> list[Path]:
        """The other ends that the route can lead to."""
        return [end for end in self._ends if end != self.route[-1] and self.to_end(end)]

    def to_end(self, end: Path) -> tuple[Path, ...]:
        """The route as far as another end, on along identities where that is a later one.

        Empty where a block on the way has no identity in its place.
        """
        way = self.route[:-1][: end.source]
        further = range(len(way) + 1, end.source + 1)
        if any(node not in self._identities for node in further):
            return ()
        return (*way, *(self._identities[node] for node in further), end)

    def path_weights(self) -> Tensor:
        """(paths,) in the wiring's order: 1 on the route, 0 beside it."""
        return self.taken.float()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> logits (B, classes) of the route."""
        return self.at_ends(images, [])[0]

    def at_ends(self, images: Tensor, others: Sequence[Path]) -> list[Tensor]:
        """The logits of the route, and of routes to other ends."""
        nodes = self._nodes(images)
        logits = [nodes.pop()]
        for end in others:
            place = min(end.source, len(nodes) - 1)
            logits.append(self._on(nodes[place], self.to_end(end)[place:]))
        return logits

    def _nodes(self, images: Tensor) -> list[Tensor]:
        """The route's nodes from the stem's on, and its logits."""
        nodes: list[Tensor] = [self.student.stem(images)]
        for path in self.route:
            nodes.append(self.student.step(path, nodes[-1]))
        return nodes

    def _on(self, x: Tensor, paths: Sequence[Path]) -> Tensor:
        for path in paths:
            x = self.student.step(path, x)
        return x

    def routes_after(self) -> Iterator[tuple[int, tuple[Path, ...]]]:
        """Each route with one change, and the place in it of the first path that is new."""
        route = self.route
        for place, path in enumerate(route):
            if path.kind == "block" and path.target in self._identities:
                identity = self._identities[path.target]
                yield place, (*route[:place], identity, *route[place + 1 :])
        for end in self.exits:
            yield min(end.source, len(route) - 1), self.to_end(end)

    @torch.no_grad()
    def removals(
        self, batches: Sequence[tuple[Tensor, Tensor, Tensor]], loss: Loss
    ) -> list[Removal]:
        """What each thing's removal does to the loss, with the statistics of each batch.

        Args:
            batches: images, labels and the teacher's logits.
            loss: its mean over a batch.
        """
        after = list(self.routes_after())
        rises = torch.zeros(len(after), dtype=torch.float64)
        with training(self), _statistics_kept(self):
            for images, labels, target in batches:
                nodes = self._nodes(images)
                now = loss(nodes[-1], labels, target)
                for number, (place, route) in enumerate(after):
                    x = self._on(nodes[place], route[place:])
                    rises[number] += (loss(x, labels, target) - now).double().cpu() / len(batches)
        cost = self.cost
        found = [
            Removal(route, rise, cost - self.cost_of(route))
            for (_, route), rise in zip(after, rises.tolist(), strict=True)
        ]
        here, paths = self.route, self.student.wiring.paths
        for (place, route), one in zip(after, found, strict=True):
            gone = route[-1] if route[-1] != here[-1] else here[place]
            self.prices[paths.index(gone)] = one.price
        return found

    def best(self, removals: Sequence[Removal], goal: float) -> Removal | None:
        """Of those that save something the one that the loss rises least for, by the cost saved.

        What is saved beyond the goal counts for nothing: a large thing whose removal the network
        would not get over is not taken for many small ones that it would, one after the other.
        Nothing is taken after which what is left of `least` unused would have to be more than 2 %,
        or more than it has to be anyway.

        Args:
            removals: as measured.
            goal: the cost to be at soon, from `least` to less than the cost now.

        Returns None where nothing is left to take out.
        """
        most = max(self.cost - goal, _DUST)

        def price(one: Removal) -> float:
            return max(one.loss, 0.0) / min(one.saved, most)

        saving = sorted((one for one in removals if one.saved > _DUST), key=price)
        aim = min(self.dearest_within(self.route), (1 - WITHIN) * float(self.least))
        fitting = (one for one in saving if self.dearest_within(one.route) >= aim - _DUST)
        return next(fitting, saving[0] if saving else None)

    def dearest_within(self, route: Sequence[Path]) -> float:
        """The highest cost up to `least` of what a route can still shrink to; 0 where none is."""
        blocks = [one for one in route if one.kind == "block"]
        paths = (*blocks, *self._identities.values(), *self._ends)
        wiring = Wiring(self.student.wiring.depth, paths)
        cost = [self._cost[one] for one in wiring.paths]
        found = Routes(wiring, cost, cost, fixed=self.shares.fixed).best(float(self.least))
        return 0.0 if found is None else found.cost


def shrinking_groups(network: Shrinking, schedule: Schedule) -> list[dict[str, Any]]:
    """As `parameter_groups`, but exits train at three times the rate.

    They are fresh, and what they read is not.
    """
    keys = tuple(f"student.heads.{path.key}." for path in network.wiring.of_kind("exit"))
    named = list(network.named_parameters())
    exits = [one for one in named if one[0].startswith(keys)]
    others = [one for one in named if not one[0].startswith(keys)]
    quick = parameter_groups(exits, schedule)
    for group in quick:
        group["lr"] = _EXITS * schedule.lr
    return [*parameter_groups(others, schedule), *quick]


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Inside, batch norms normalise by the batch and their running statistics stay."""
    norms = [one for one in network.modules() if isinstance(one, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
