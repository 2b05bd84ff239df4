"""Which paths a student has: structure as data, apart from any network."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

Kind = Literal["block", "identity", "proxy", "head", "exit"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Path(NamedTuple):
    """One way into a node.

    Into a node x_l: the pretrained block G_l (source l-1), the identity in its place (source l-1),
    which costs nothing, or a proxy A_pl. Into the logits: the pretrained head (source L), or an
    exit, a lean head that reads an earlier node.
    """

    source: int
    target: int
    kind: Kind

    @property
    def key(self) -> str:
        """A name that is also valid as a module's, such as `proxy-2-5`."""
        return f"{self.kind}-{self.source}-{self.target}"


@dataclass(frozen=True)
class Wiring:
    """The living paths between the nodes x_0 (the stem's output) … x_L and the logits.

    The logits are the last node, number depth = L + 1. Paths are ordered by target, then by kind as
    in `KINDS`, then by source; every tensor "of paths" in this package follows that order.
    """

    depth: int
    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        ordered = tuple(
            sorted(set(self.paths), key=lambda p: (p.target, KINDS.index(p.kind), p.source))
        )
        for path in ordered:
            if not 0 <= path.source < path.target <= self.depth:
                raise ValueError(f"{path} does not lead forward within {self.depth} nodes")
            if path.kind in ("block", "identity", "head") and path.source != path.target - 1:
                raise ValueError(f"{path}: {path.kind} leads from a node to the next one")
            if (path.kind in ("head", "exit")) != (path.target == self.depth):
                raise ValueError(f"{path}: heads and exits, and nothing else, lead to the logits")
        object.__setattr__(self, "paths", ordered)

    @cached_property
    def incoming(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the positions in `paths` of the paths that lead into it."""
        return self._grouped("target")

    @cached_property
    def outgoing(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the positions in `paths` of the paths that leave it."""
        return self._grouped("source")

    def _grouped(self, end: Literal["source", "target"]) -> tuple[tuple[int, ...], ...]:
        groups: list[list[int]] = [[] for _ in range(self.depth + 1)]
        for position, path in enumerate(self.paths):
            groups[getattr(path, end)].append(position)
        return tuple(tuple(group) for group in groups)

    def of_kind(self, kind: Kind) -> tuple[Path, ...]:
        """The paths of one kind, in order."""
        return tuple(path for path in self.paths if path.kind == kind)

    def without(self, excluded: Iterable[Path]) -> "Wiring":
        """The same nodes with some paths excluded."""
        gone = set(excluded)
        return Wiring(self.depth, tuple(path for path in self.paths if path not in gone))

    def to_json(self) -> list[list[int | str]]:
        """Rows of [source, target, kind]."""
        return [list(path) for path in self.paths]

    @classmethod
    def from_json(cls, depth: int, rows: Sequence[Sequence[int | str]]) -> "Wiring":
        """The inverse of `to_json`; raises ValueError for rows that are no paths."""
        paths = []
        for row in rows:
            if len(row) != 3:
                raise ValueError(f"{row!r} is no [source, target, kind]")
            source, target, name = row
            kind = next((known for known in KINDS if known == name), None)
            if type(source) is not int or type(target) is not int or kind is None:
                raise ValueError(f"{row!r} is no [source, target, kind]")
            paths.append(Path(source, target, kind))
        if len(set(paths)) != len(paths):
            raise ValueError("a path is listed twice")
        return cls(depth, tuple(paths))


def full_wiring(
    blocks: int,
    skips: int | Literal["dense"],
    *,
    identities: Iterable[int] = (),
    exits: Iterable[int] = (),
) -> Wiring:
    """Every block, the head, and into node l proxies from the `skips` nodes before it.

    Args:
        blocks: the paper's L.
        skips: the paper's k: p runs from max(l - k, 0) to l - 1; dense: from all earlier nodes.
        identities: the nodes that the identity leads into as well.
        exits: the nodes that an exit reads.
    """
    reach = blocks if skips == "dense" else skips
    paths = [Path(node - 1, node, "block") for node in range(1, blocks + 1)]
    for node in range(1, blocks + 1):
        paths += [Path(source, node, "proxy") for source in range(max(node - reach, 0), node)]
    paths += [Path(node - 1, node, "identity") for node in identities]
    paths += [Path(node, blocks + 1, "exit") for node in exits]
    paths.append(Path(blocks, blocks + 1, "head"))
    return Wiring(blocks + 1, tuple(paths))
