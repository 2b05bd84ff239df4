"""Which cuts of a trained student are tried, in which order, and when it is enough."""

import time
from collections.abc import Mapping, Sequence

from nettailor.budget import within_budget
from nettailor.candidate import Candidate
from nettailor.core.backbone import create_backbone
from nettailor.core.errors import UserError
from nettailor.core.ranks import from_main
from nettailor.front import FRONT_FILE, Front, Point, Seconds, read_front, write_front
from nettailor.prune.depths import choose, decided, default_depths, find_leanest
from nettailor.prune.ladder import NEAR, end_of, ladder, route_name
from nettailor.prune.plan import PrunePlan, decide
from nettailor.prune.reachability import fewest_blocks
from nettailor.prune.routes import Route
from nettailor.race import race
from nettailor.session import Session
from nettailor.student.costs import shares_of
from nettailor.student.network import Student
from nettailor.tailoring import Tailoring, grow_student


def try_candidates(
    work: Tailoring, student: Student, target: float, spent: Seconds
) -> tuple[list[Candidate], Seconds]:
    """Cut and fine-tune until the leanest cut that reaches `target` per cent is known.

    By rank: from the deepest cut on. By route: with a budget, the routes within it race; else along
    a ladder of routes, each worth more and, the last one apart, at least 8 % dearer than the one
    before, on the assumption that what a dearer route cannot reach a leaner one cannot either. The
    ladder is written down as the run's front, with the routes that race.

    A candidate stops as soon as it is known whether it reaches the target; the one that is kept is
    then fine-tuned to its end.

    Args:
        spent: on the student.

    Returns:
        The candidates, the one that is kept first; what was spent before they were fine-tuned.
    """
    prune = work.config.prune
    if prune.by == "rank":
        depths = prune.remove or (*default_depths(len(work.session.stages)), 0)
        plans = _by_rank(work, student, depths)
        return _keep(work, student, _leanest_first(work, student, plans, target), target), spent
    front = from_main(lambda: _front(work, student, spent))
    if front.contenders:
        within = [point for point in front.points if point.name in front.contenders]
        candidates = _race(work, student, within)
    else:
        candidates = _keep(work, student, _search(work, student, front.points, target), target)
    ends = {one.name: one.scores.accuracy for one in candidates if one.ended}
    points = [point._replace(finetuned=ends.get(point.name)) for point in front.points]
    write_front(work.folder.path, front._replace(points=points))
    return candidates, front.seconds


def _front(work: Tailoring, student: Student, spent: Seconds) -> Front:
    """The ladder of a student, and what the budget asks for; written down once."""
    if (work.folder.path / FRONT_FILE).exists():
        return read_front(work.folder.path, student.wiring)
    started = time.perf_counter()
    routes = work.routes(student)
    rungs = ladder(routes.frontier())
    within = within_budget(work, student, routes)
    there = [route.paths for route in within]
    named = {route_name(rung): rung for rung in rungs if rung.paths not in there}
    contenders = {f"{route_name(route)}-{end_of(route)}": route for route in within}
    points = _points(work, student, named | contenders)
    spent = Seconds(spent.train, spent.total + time.perf_counter() - started)
    front = Front(points, spent, tuple(contenders))
    write_front(work.folder.path, front)
    return front


def check_depths(asked: tuple[int, ...] | None, blocks: int) -> None:
    """Raise UserError for numbers of blocks that a backbone cannot lose."""
    if asked is not None and (not asked or max(asked) > blocks):
        raise UserError(
            f"prune.remove = {list(asked)}: give numbers from 0 to the backbone's {blocks} blocks"
        )


def check_routes(session: Session) -> None:
    """Raise UserError where more blocks are to be removed by rank than any student can lose."""
    config, asked = session.config, session.config.prune.remove
    if config.prune.by != "rank" or asked is None:
        return
    wiring = grow_student(
        config, create_backbone(config.backbone, len(session.task.classes), config.image_size)
    ).wiring
    blocks, needed = len(wiring.of_kind("block")), fewest_blocks(wiring)
    if max(asked) > blocks - needed:
        raise UserError(
            f"prune.remove = {list(asked)}: at most {blocks - needed} of the {blocks} blocks can "
            "go, beside the others there is no path; give fewer, or more --skips"
        )


def _by_rank(work: Tailoring, student: Student, depths: Sequence[int]) -> list[PrunePlan]:
    """A plan per depth that differs from the others, the deepest first.

    A depth that would leave no path from stem to logits is left out.

    Raises UserError where none is left.
    """
    alpha = student.path_weights().tolist()
    threshold = work.config.prune.threshold
    plans: dict[object, PrunePlan] = {}
    for depth in sorted(set(depths), reverse=True):
        try:
            plan = decide(student.wiring, alpha, threshold=threshold, remove=depth)
        except ValueError:
            work.session.screen.say(f"no path is left without the {depth} least blocks")
        else:
            plans.setdefault(plan.kept.paths, plan)
    if not plans:
        raise UserError(
            f"prune.remove = {sorted(set(depths))}: no such cut of this student leaves a path from "
            "stem to logits; give smaller numbers"
        )
    return list(plans.values())


def _keep(
    work: Tailoring, student: Student, candidates: Sequence[Candidate], target: float
) -> list[Candidate]:
    """Choose on validation and fine-tune the choice to its end; it comes first."""
    shares = work.costs.shares(student)
    costs = [shares.of(student, candidate.plan.kept.paths) for candidate in candidates]
    standings = [candidate.scores.standing for candidate in candidates]
    chosen = candidates[choose(standings, costs, target)]
    others = [candidate for candidate in candidates if candidate is not chosen]
    if not chosen.ended:
        chosen = work.cut_and_finetune(student, chosen.plan)
        _tell(work, chosen, "kept")
    return [chosen, *others]


def _leanest_first(
    work: Tailoring, student: Student, plans: Sequence[PrunePlan], target: float
) -> list[Candidate]:
    candidates = []
    for plan in plans:
        candidates.append(_until_decided(work, student, plan, target))
        if candidates[-1].reached(target):
            break
    return candidates


def _search(
    work: Tailoring, student: Student, points: Sequence[Point], target: float
) -> list[Candidate]:
    """Fine-tune points of a ladder until the leanest that reaches the target is known.

    Begins with the leanest that is near the target straight after the cut.
    """
    candidates = []

    def reaches(position: int) -> bool:
        plan = points[position].plan(student.wiring)
        candidates.append(_until_decided(work, student, plan, target))
        return candidates[-1].reached(target)

    near = [i for i, point in enumerate(points) if point.straight_after >= target - NEAR]
    find_leanest(len(points), near[0] if near else len(points) - 1, reaches)
    return candidates


def _until_decided(work: Tailoring, student: Student, plan: PrunePlan, target: float) -> Candidate:
    epochs = work.config.prune.epochs
    work.session.screen.say(f"{plan.name}: {plan.describe()}")
    candidate = work.cut_and_finetune(
        student, plan, lambda epoch, best: decided(epoch, epochs, best.standing, target, best.error)
    )
    _tell(work, candidate, candidate.verdict(target))
    return candidate


def _race(work: Tailoring, student: Student, points: Sequence[Point]) -> list[Candidate]:
    """Fine-tune all a little, the better half further, and so on; the first to the end.

    What a route is worth says little about routes of other ends: an early exit that was trained
    with everything before it answers straight after the cut, while a deep route of few blocks
    answers only after some epochs, and then better.
    """
    plans = {point.name: point.plan(student.wiring) for point in points}
    for plan in plans.values():
        work.session.screen.say(f"{plan.name}: {plan.describe()}")

    def train(name: str, epochs: int) -> Candidate:
        candidate = work.cut_and_finetune(student, plans[name], lambda epoch, _: epoch >= epochs)
        _tell(work, candidate)
        return candidate

    return race(list(plans), train, work.config.prune.epochs)


def _tell(work: Tailoring, candidate: Candidate, verdict: str = "") -> None:
    work.session.screen.say(
        f"{candidate.name}: straight after the cut {candidate.straight_after.accuracy:.2f} %, "
        f"after {len(candidate.fitted.history)} epochs {candidate.scores.accuracy:.2f} %"
        + (f": {verdict}" if verdict else "")
    )


def _points(work: Tailoring, student: Student, routes: Mapping[str, Route]) -> list[Point]:
    """Routes by name with both of their costs and their accuracy before any fine-tuning.

    The leanest in what the run goes by comes first.
    """
    size = work.config.image_size
    by_flops = shares_of(student, work.teacher, size, "flops")
    by_params = shares_of(student, work.teacher, size, "params")
    points = []
    by_cost = sorted(routes.items(), key=lambda item: item[1].cost)
    for name, route in work.session.screen.each("trying cuts", by_cost, len(by_cost)):
        _, scores = work.cut(student, PrunePlan.keeping(name, student.wiring, route.paths))
        flops, params = by_flops.of(student, route.paths), by_params.of(student, route.paths)
        points.append(Point(name, route.paths, flops, params, scores.accuracy))
    return points
