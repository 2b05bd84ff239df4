"""The sizes that a student passed as it shrank, on disk: each a trained network."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from nettailor.core.errors import UserError
from nettailor.core.files import read_json, write_json
from nettailor.core.resize import at_side
from nettailor.core.training_state import Fitted
from nettailor.prune.plan import PrunePlan
from nettailor.share import Share
from nettailor.student.wiring import Path as Way
from nettailor.student.wiring import Wiring

FRONT_FILE = "front.json"
SIZES_FOLDER = "sizes"


class Point(NamedTuple):
    """A size that a student passed; its network is in `sizes/<name>`.

    paths: its route. cost: a share of the backbone's, in what the run goes by. flops, params:
    shares of the backbone's. accuracy, loss: on validation in % and in nats, as it stood.
    finetuned: accuracy after fine-tuning, for those that were. side: of its images in pixels, None
    where they are as large as the teacher's. wide: name of the size of which it is a copy with
    fewer channels.
    """

    name: str
    paths: tuple[Way, ...]
    cost: float
    flops: float
    params: float
    accuracy: float
    loss: float
    finetuned: float | None = None
    side: int | None = None
    wide: str | None = None

    def plan(self, student: Wiring) -> PrunePlan:
        """The cut of the student that leaves this route."""
        plan = PrunePlan.keeping(self.name, student, self.paths, self.side)
        return replace(plan, wide=self.wide, most=self.cost) if self.wide else plan


class Seconds(NamedTuple):
    """Time spent: in training steps, and with validation and the weighing of parts."""

    train: float
    total: float

    def plus(self, *stages: Fitted) -> "Seconds":
        """With that of further stages."""
        return Seconds(
            self.train + sum(stage.seconds for stage in stages),
            self.total + sum(stage.total_seconds for stage in stages),
        )


class Front(NamedTuple):
    """The points, the leanest first, and what they took."""

    points: list[Point]
    seconds: Seconds


def size_name(cost: float, side: int | None) -> str:
    """Such as `size-0.250`, by what it costs, or `size-0.250-48px`, by its images' side as well."""
    return at_side(f"size-{cost:#.3g}", side)


def pick(front: Front, share: Share, side: int | None = None) -> Point:
    """The dearest point within what is asked; UserError with the range when there is none.

    side: in pixels, of the network that the run kept, None for the images' own: what costs as much
    at another resolution is not as good.
    """
    points = [point for point in front.points if point.side == side] or front.points
    costs = [float(getattr(point, share.unit)) for point in points]
    within = [i for i, cost in enumerate(costs) if cost <= share.most]
    if not within:
        least = ceil(1000 * min(costs)) / 1000
        raise UserError(
            f"--pick {share.unit}={share.most:g}: the front of this run goes from {least:.3f} to "
            f"{max(least, *costs):.3f}; give a share in that range"
        )
    return points[max(within, key=lambda i: costs[i])]


def write_front(folder: Path, front: Front) -> None:
    """Write `front.json` into a run folder."""
    points = [
        {**point._asdict(), "paths": [list(path) for path in point.paths]} for point in front.points
    ]
    write_json(folder / FRONT_FILE, {"points": points, "seconds": front.seconds._asdict()})


def read_front(folder: Path, student: Wiring) -> Front:
    """The front of a run; UserError when it is missing, damaged or of another student.

    Args:
        folder: of the run.
        student: the paths of its student.
    """
    file = folder / FRONT_FILE
    content = read_json(file)
    try:
        points = [_read_point(row, student) for row in content["points"]]
        if not points:
            raise ValueError("no point is there")
        seconds = content["seconds"]
        return Front(points, Seconds(float(seconds["train"]), float(seconds["total"])))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{file}: is damaged; tailor again with --overwrite") from error


def _read_point(row: Mapping[str, Any], student: Wiring) -> Point:
    rows: Sequence[Sequence[int | str]] = row["paths"]
    paths = Wiring.from_json(student.depth, rows).paths
    sources = [path.source for path in paths]
    targets = [path.target for path in paths]
    if not set(paths) <= set(student.paths) or [0, *targets] != [*sources, student.depth]:
        raise ValueError(f"{rows!r} is no route through the student")
    name, finetuned, side, wide = row["name"], row["finetuned"], row.get("side"), row.get("wide")
    for one in (name, wide or name):
        if not isinstance(one, str) or one in ("", "..") or Path(one).name != one:
            raise ValueError(f"{one!r} is no folder's name")
    return Point(
        name,
        paths,
        float(row["cost"]),
        float(row["flops"]),
        float(row["params"]),
        float(row["accuracy"]),
        float(row["loss"]),
        None if finetuned is None else float(finetuned),
        None if side is None else int(side),
        wide,
    )
