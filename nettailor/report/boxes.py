"""Where labels go so that none covers another, a marker or a line."""

from collections.abc import Sequence
from math import cos, hypot, pi, sin
from random import Random
from typing import NamedTuple

_DIRECTIONS = 24
_ORDERS = 12  # in which the labels of a crowd choose their places


class Box(NamedTuple):
    """A rectangle, in any unit."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        """Whether the two share more than an edge."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def within(self, other: "Box") -> bool:
        """Whether this box lies inside the other."""
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.bottom <= self.bottom
            and self.top <= other.top
        )

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)


def crosses(start: tuple[float, float], end: tuple[float, float], box: Box) -> bool:
    """Whether the line from start to end runs through a box."""
    # Liang and Barsky: the stretch of the line that lies between both pairs of edges
    enter, leave = 0.0, 1.0
    for origin, step, low, high in (
        (start[0], end[0] - start[0], box.left, box.right),
        (start[1], end[1] - start[1], box.bottom, box.top),
    ):
        if step == 0:
            if not low < origin < high:
                return False
            continue
        first, second = sorted(((low - origin) / step, (high - origin) / step))
        enter, leave = max(enter, first), min(leave, second)
    return enter < leave


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    bounds: Box,
    gap: float,
) -> list[Box | None]:
    """A place for each point's label, as near to the point as there is room.

    Args:
        points: what is labelled.
        sizes: width and height of each label.
        obstacles: what no label may cover; each point's own marker is one of them.
        bounds: where labels may lie.
        gap: from a marker's centre to its label.

    Returns:
        A box for each point, or None where there is no room at all. No box overlaps another or an
        obstacle. The line from a point to its box runs through no other box and, where that can
        be helped, no obstacle; in a crowd it may run through a box rather than leave a label out.
    """
    candidates = [
        [
            box
            for box in _candidates(point, size, gap, bounds)
            if not any(box.overlaps(other) for other in obstacles)
        ]
        for point, size in zip(points, sizes, strict=True)
    ]

    def crowd(position: int) -> int:
        x, y = points[position]
        reach = 4 * gap + sizes[position][0]
        return sum(hypot(x - other[0], y - other[1]) < reach for other in points)

    def far(placed: Sequence[Box | None]) -> tuple[int, float]:
        """How many labels have no place, and how far all others are from their points."""
        distances = [
            hypot(*(a - b for a, b in zip(point, box.nearest(*point), strict=True)))
            for point, box in zip(points, placed, strict=True)
            if box
        ]
        return len(points) - len(distances), sum(distances)

    # those with most neighbours choose first; where that leaves one out, others may go before
    order = sorted(range(len(points)), key=lambda i: (-crowd(i), i))
    shuffle = Random(0).sample  # the same in every run
    orders = [order, order[::-1], *(shuffle(order, len(order)) for _ in range(_ORDERS))]
    best: list[Box | None] = [None] * len(points)
    for order in orders:
        placed = _place_in_order(order, points, candidates, obstacles)
        best = min(best, placed, key=far)
        if order is orders[0] and all(placed):
            break
    for position, point in enumerate(points):
        if best[position] is None:
            taken = [box for box in best if box]
            free = [box for box in candidates[position] if not any(map(box.overlaps, taken))]
            clear = (
                box
                for box in free
                if not any(crosses(point, box.nearest(*point), other) for other in taken)
            )
            best[position] = next(clear, free[0] if free else None)
    return best


def _place_in_order(
    order: Sequence[int],
    points: Sequence[tuple[float, float]],
    candidates: Sequence[Sequence[Box]],
    obstacles: Sequence[Box],
) -> list[Box | None]:
    """Each label in turn takes the nearest candidate where no line and no label cross."""
    placed: list[Box | None] = [None] * len(points)
    lines: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for position in order:
        point, taken = points[position], [box for box in placed if box]
        others = [box for box in obstacles if box.nearest(*point) != point]
        chosen = None
        for box in candidates[position]:
            line = (point, box.nearest(*point))
            if (
                any(box.overlaps(other) for other in taken)
                or any(crosses(*other, box) for other in lines)
                or any(crosses(*line, other) for other in taken)
            ):
                continue
            if not any(crosses(*line, other) for other in others):
                chosen = box
                break
            chosen = chosen or box  # the nearest, unless one without a line across a marker comes
        placed[position] = chosen
        if chosen:
            lines.append((point, chosen.nearest(*point)))
    return placed


def _candidates(
    point: tuple[float, float], size: tuple[float, float], gap: float, bounds: Box
) -> list[Box]:
    """Boxes around a point within bounds, the nearest first."""
    (x, y), (width, height) = point, size
    found = []
    steps = int(hypot(bounds.right - bounds.left, bounds.top - bounds.bottom) / gap) + 1
    for ring in range(1, steps):
        for direction in range(_DIRECTIONS):
            angle = 2 * pi * direction / _DIRECTIONS
            dx, dy = ring * gap * cos(angle), ring * gap * sin(angle)
            # the side of the box that faces the point is the one that is held at the ring
            left = x + dx - width * (1 - cos(angle)) / 2
            bottom = y + dy - height * (1 - sin(angle)) / 2
            box = Box(left, bottom, left + width, bottom + height)
            if box.within(bounds):
                found.append(box)
    return found


def spread_out(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places moved as little as needed to be `gap` apart and within low … high.

    Their order is kept. Where they do not fit, they are as far apart as there is room.
    """
    if not places:
        return []
    gap = min(gap, (high - low) / max(len(places) - 1, 1))
    order = sorted(range(len(places)), key=lambda i: (places[i], i))
    # blocks of neighbours that touch, each centred on the mean of where its members want to be
    blocks: list[list[float]] = []  # [sum of wishes for the first member, members]
    for rank in order:
        blocks.append([places[rank], 1])
        while len(blocks) > 1 and _start(blocks[-2], gap, low, high) + gap * blocks[-2][1] > _start(
            blocks[-1], gap, low, high
        ):
            total, members = blocks.pop()
            blocks[-1][0] += total - members * gap * blocks[-1][1]
            blocks[-1][1] += members
    moved = [0.0] * len(places)
    rank = 0
    for block in blocks:
        start = _start(block, gap, low, high)
        for member in range(int(block[1])):
            moved[order[rank]] = start + member * gap
            rank += 1
    return moved


def _start(block: Sequence[float], gap: float, low: float, high: float) -> float:
    """Where a block's first member stands."""
    total, members = block
    return min(max(total / members, low), high - gap * (members - 1))
