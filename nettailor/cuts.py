"""The cuts that a run of `tailor` tries: by rank, or of the routes that it writes down."""

import time
from collections.abc import Mapping

from nettailor.budget import within_budget
from nettailor.candidate import Candidate
from nettailor.candidates import by_rank, keep_leanest, keep_winner, of_each_end, on_the_ladder
from nettailor.core.backbone import create_backbone
from nettailor.core.config import RunConfig
from nettailor.core.errors import UserError
from nettailor.core.ranks import from_main
from nettailor.front import FRONT_FILE, Front, Point, Seconds, read_front, write_front
from nettailor.prune.depths import default_depths
from nettailor.prune.plan import PrunePlan
from nettailor.prune.reachability import fewest_blocks
from nettailor.prune.routes import Route
from nettailor.share import UNITS
from nettailor.student.costs import shares_of
from nettailor.tailoring import Tailoring, grow_student


def try_cuts(work: Tailoring, target: float, spent: Seconds) -> tuple[list[Candidate], Seconds]:
    """Cut and fine-tune a run's student until it is known which cut is kept.

    By rank: from the deepest cut on. By route: with a budget, the routes within it race; else the
    leanest of a ladder of routes that reaches `target` per cent. The ladder is written down as the
    run's front, with the routes that race.

    Returns the candidates, the one that is kept first, and what was spent before they were
    fine-tuned: `spent`, on the student, and on the front.
    """
    student, prune = work.student, work.config.prune
    if prune.by == "rank":
        depths = prune.remove or (*default_depths(len(work.session.stages)), 0)
        plans = by_rank(work, depths, prune.threshold)
        return keep_leanest(work, plans, work.costs.shares(student), target), spent
    front = from_main(lambda: _front(work, spent))
    if front.contenders:
        within = [point for point in front.points if point.name in front.contenders]
        candidates = keep_winner(work, [point.plan(student.wiring) for point in within])
    else:
        plans = [point.plan(student.wiring) for point in front.points]
        at_once = [point.straight_after for point in front.points]
        candidates = keep_leanest(work, plans, work.costs.shares(student), target, at_once)
    ends = {one.name: one.scores.accuracy for one in candidates if one.ended}
    points = [point._replace(finetuned=ends.get(point.name)) for point in front.points]
    write_front(work.folder.path, front._replace(points=points))
    return candidates, front.seconds


def _front(work: Tailoring, spent: Seconds) -> Front:
    """The ladder of a student, and what the budget asks for; written down once."""
    if (work.folder.path / FRONT_FILE).exists():
        return read_front(work.folder.path, work.student.wiring)
    started = time.perf_counter()
    routes = work.routes(work.student)
    contenders = of_each_end(within_budget(work, routes))
    there = [route.paths for route in contenders.values()]
    rungs = {name: one for name, one in on_the_ladder(routes).items() if one.paths not in there}
    points = _points(work, rungs | contenders)
    spent = Seconds(spent.train, spent.total + time.perf_counter() - started)
    front = Front(points, spent, tuple(contenders))
    write_front(work.folder.path, front)
    return front


def _points(work: Tailoring, routes: Mapping[str, Route]) -> list[Point]:
    """Routes by name with both of their costs and their accuracy before any fine-tuning.

    The leanest in what the run goes by comes first.
    """
    student, size = work.student, work.config.image_size
    shares = [shares_of(student, work.teacher, size, unit) for unit in UNITS]
    points = []
    by_cost = sorted(routes.items(), key=lambda item: item[1].cost)
    for name, route in work.session.screen.each("trying cuts", by_cost, len(by_cost)):
        _, scores = work.cut(PrunePlan.keeping(name, student.wiring, route.paths))
        flops, params = (share.of(student, route.paths) for share in shares)
        points.append(Point(name, route.paths, flops, params, scores.accuracy))
    return points


def check_depths(asked: tuple[int, ...] | None, blocks: int) -> None:
    """Raise UserError for numbers of blocks that a backbone cannot lose."""
    if asked is not None and (not asked or max(asked) > blocks):
        raise UserError(
            f"prune.remove = {list(asked)}: give numbers from 0 to the backbone's {blocks} blocks"
        )


def check_routes(config: RunConfig, classes: int) -> None:
    """Raise UserError where more blocks are to be removed by rank than any student can lose."""
    asked = config.prune.remove
    if config.prune.by != "rank" or asked is None:
        return
    wiring = grow_student(
        config, create_backbone(config.backbone, classes, config.image_size)
    ).wiring
    blocks, needed = len(wiring.of_kind("block")), fewest_blocks(wiring)
    if max(asked) > blocks - needed:
        raise UserError(
            f"prune.remove = {list(asked)}: at most {blocks - needed} of the {blocks} blocks can "
            "go, beside the others there is no path; give fewer, or more --skips"
        )
