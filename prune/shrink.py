"""A student that shrinks as it trains: what the loss feels least goes next."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.statistics import Momenta
from nettailor.student.costs import PathShares
from nettailor.student.network import Student
from nettailor.student.wiring import Path

WITHIN = 0.02  # a budget is met when the cost is no more than this part of it below
DUST = 1e-4  # of the backbone's cost: what is no saving


class Removal(NamedTuple):
    """One thing that can be taken out.

    path: a block, or where all behind a node goes, the exit or head that the route then ends in.
    route: what is left. saved: share of the backbone's cost.
    """

    path: Path
    route: tuple[Path, ...]
    saved: float


def leanest_route(student: Student, shares: PathShares) -> float:
    """What a student costs, a share of the backbone's, when all is taken out that can be."""
    return Shrinking(student, shares, 0.0).leanest


class Shrinking(nn.Module):
    """One route through a student, at first all of the backbone, of which parts are taken out.

    A block goes for the identity in its place, or everything behind a node for the exit that reads
    it. What went is not computed any more, so each step costs what is left.

    Attributes:
        student: with every block, identities and exits. wiring: all its paths.
        least: the cost that is shrunk to, a scalar; it may be set anew.
        taken: which of its paths are on the route, (paths,). rises: what the loss rose by, in nats,
            when it was last tried without a block, or to end in an exit, (paths,); NaN before that.
        since: steps since something was taken out, a scalar. reached: the best of validation so
            far, in %, a scalar. All five are kept in states.
        dropped: nodes whose blocks a training step leaves out, for identities.
    """

    least: Tensor
    taken: Tensor
    rises: Tensor
    since: Tensor
    reached: Tensor

    def __init__(self, student: Student, shares: PathShares, least: float) -> None:
        """The whole backbone's route.

        Args:
            student: not trained; its modules are trained in place.
            shares: what its paths cost.
            least: a share of the backbone's. An exit that is leaner with all blocks before it than
                a later one that is leaner as well is left out.
        """
        super().__init__()
        self.student, self.shares, self.wiring = student, shares, student.wiring
        self.register_buffer("least", torch.tensor(least, dtype=torch.float64))
        paths = self.wiring.paths
        whole = [path.kind in ("block", "head") for path in paths]
        self.register_buffer("taken", torch.tensor(whole))
        self.register_buffer("rises", torch.full((len(paths),), math.nan))
        self.register_buffer("since", torch.tensor(0))
        self.register_buffer("reached", torch.tensor(0.0, dtype=torch.float64))
        self.dropped: frozenset[int] = frozenset()
        self._momenta = Momenta(student)
        self._cost = dict(zip(paths, shares.paths, strict=True))
        # as the buffers say, without waiting for the device
        self._route: tuple[Path, ...] | None = None
        self._since: int | None = None
        blocks = self.wiring.of_kind("block")
        dearest = {
            end: shares.of(self.wiring, [*blocks[: end.source], end])
            for end in paths
            if end.kind in ("head", "exit")
        }
        self.identities = {path.target: path for path in self.wiring.of_kind("identity")}
        # of the ends that are leaner whatever is kept before them, the dearest one is enough
        below = [cost for cost in dearest.values() if cost < least]
        self.ends = [end for end, cost in dearest.items() if cost >= max(below, default=0.0)]

    @property
    def route(self) -> tuple[Path, ...]:
        """The paths that are taken, from the stem to the logits."""
        if self._route is None:
            taken = self.taken.tolist()
            paths = zip(self.wiring.paths, taken, strict=True)
            self._route = tuple(path for path, is_taken in paths if is_taken)
        return self._route

    @property
    def whole(self) -> bool:
        """Whether nothing was taken out."""
        return all(path.kind in ("block", "head") for path in self.route)

    def take(self, route: Sequence[Path]) -> None:
        """Go another way from here on."""
        here = [path in set(route) for path in self.wiring.paths]
        self.taken.copy_(torch.tensor(here))
        self.since.zero_()
        self._route = self._since = None

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)
        self._route = self._since = None

    def settle(self) -> bool:
        """Before a step: running statistics begin anew after a change, and at the start.

        It moves what later layers see, and then they learn: n steps after it they follow a batch by
        3 / (n + 3), n a power of two, until a norm's own momentum is more. Returns whether one is
        another than at the last step.
        """
        if self._since is None:
            self._since = int(self.since)
        power = 1 << self._since.bit_length() >> 1
        self._since += 1
        self.since += 1
        return self._momenta.at_least(3 / (power + 3))

    def cut(self, name: str) -> Student:
        """A copy of what is left, as a network of its own."""
        side = self.student.side
        smaller = remove(self.student, PrunePlan.keeping(name, self.wiring, self.route, side))
        self._momenta.put_back(smaller)
        return smaller

    def end(self) -> None:
        """After the last step: the student's norms follow each batch as they did at first."""
        self._momenta.put_back(self.student)

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
        return self.cost_of(self.leanest_of(self.route))

    def leanest_of(self, route: tuple[Path, ...]) -> tuple[Path, ...]:
        """What is left of a route when all is taken out that can be."""
        ways = [route, *self.other_ends(route).values()]
        bare = [
            tuple(
                self.identities.get(one.target, one) if one.kind == "block" else one for one in way
            )
            for way in ways
        ]
        return min(bare, key=self.cost_of)

    def cost_of_path(self, path: Path) -> float:
        """A share of the backbone's."""
        return self._cost[path]

    def other_ends(self, route: Sequence[Path]) -> dict[Path, tuple[Path, ...]]:
        """By each end that would be a saving, a route as far as that.

        What is none now will be none whatever else goes: less is left then that could be saved.
        """
        most = self.cost_of(route) - DUST
        ways = {end: self.to_end(end, route) for end in self.ends if end != route[-1]}
        return {end: way for end, way in ways.items() if way and self.cost_of(way) < most}

    def to_end(self, end: Path, route: Sequence[Path]) -> tuple[Path, ...]:
        """A route as far as another end, along identities where that is a later one.

        Empty where a block on the way has no identity in its place.
        """
        way = route[:-1][: end.source]
        further = range(len(way) + 1, end.source + 1)
        if any(node not in self.identities for node in further):
            return ()
        return (*way, *(self.identities[node] for node in further), end)

    def path_weights(self) -> Tensor:
        """(paths,) in the wiring's order: 1 on the route, 0 beside it."""
        return self.taken.float()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> logits (B, classes) of the route."""
        return self.nodes(images)[-1]

    def at_ends(self, images: Tensor) -> list[Tensor]:
        """The logits of the route, and of its ways to other ends."""
        *nodes, logits = self.nodes(images)
        ways = self.other_ends(self.route).items()
        places = [min(end.source, len(nodes) - 1) for end, _ in ways]
        others = zip(places, ways, strict=True)
        return [logits, *(self.on(nodes[place], way[place:]) for place, (_, way) in others)]

    def nodes(self, images: Tensor) -> list[Tensor]:
        """The route's nodes from the stem's on, and its logits."""
        nodes = [self.student.begin(images)]
        for path in self.route:
            if self.training and path.kind == "block" and path.target in self.dropped:
                path = self.identities[path.target]
            nodes.append(self.student.step(path, nodes[-1]))
        return nodes

    def on(self, x: Tensor, paths: Sequence[Path]) -> Tensor:
        """From a node (B, …) along paths on."""
        for path in paths:
            x = self.student.step(path, x)
        return x

    @property
    def skippable(self) -> list[int]:
        """The nodes of the route whose blocks an identity can stand in for, in order."""
        blocks = (path.target for path in self.route if path.kind == "block")
        return [node for node in blocks if node in self.identities]

    def removals(self, route: tuple[Path, ...] | None = None) -> list[Removal]:
        """All that can be taken out of a route, None for the present one, and saves something."""
        route = self.route if route is None else route
        cost = self.cost_of(route)
        ways = {
            gone: tuple(self.identities[one.target] if one == gone else one for one in route)
            for gone in route
            if gone.kind == "block" and gone.target in self.identities
        } | self.other_ends(route)
        found = [Removal(path, way, cost - self.cost_of(way)) for path, way in ways.items()]
        return [one for one in found if one.saved > DUST]

    def price(self, removal: Removal) -> float:
        """Nats for all of the backbone's cost, as last tried; NaN where it never was."""
        rise = float(self.rises[self.wiring.paths.index(removal.path)])
        return max(rise, 0.0) / removal.saved
