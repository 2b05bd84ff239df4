"""Which cuts of a trained student are tried, in which order, and when it is enough."""

import time
from collections.abc import Sequence

from nettailor.core.backbone import create_chain
from nettailor.core.config import PruneConfig
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.ranks import from_main
from nettailor.front import FRONT_FILE, Front, Point, Seconds, read_front, write_front
from nettailor.latency_budget import WITHIN, keep_by_the_clock
from nettailor.path_shares import PathCosts, PathShares, shares_of
from nettailor.session import Session
from nettailor.tailoring import Candidate, Tailoring, grow_student
from prune.depths import choose, default_depths, find_leanest
from prune.plan import PrunePlan, decide
from prune.reachability import fewest_blocks
from prune.remove import remove
from prune.routes import Route, Routes
from student.network import Student

_NEAR = 10.0  # points of accuracy that fine-tuning is trusted to bring back, for a first guess
_GROWTH = 1.08  # of the cost from one rung of the ladder to the next


def try_candidates(
    work: Tailoring, student: Student, target: float, spent: Seconds
) -> tuple[list[Candidate], Seconds]:
    """Cut and fine-tune until the leanest cut that reaches `target` per cent is known.

    By rank: from the deepest cut on. By route: within the budget where there is one; else along a
    ladder of routes, each worth more and, the last one apart, at least 8 % dearer than the one
    before, on the assumption that what a dearer route cannot reach a leaner one cannot either. The
    ladder is written down as the run's front.

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
    if front.chosen is None:
        candidates = _keep(work, student, _search(work, student, front.points, target), target)
    else:
        (point,) = (point for point in front.points if point.name == front.chosen)
        candidates = [
            _try(work, student, PrunePlan.keeping(point.name, student.wiring, point.paths), None)
        ]
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
    rungs = _ladder(routes.frontier())
    most = _budget_share(work.config.prune, work.costs.shares(student))
    chosen = None
    if most is not None:
        timed = work.config.prune.max_latency_ms is not None
        route = (_by_the_clock if timed else _within)(work, student, routes, most)
        chosen = _name(route)
        rungs = [rung for rung in rungs if _name(rung) != chosen] + [route]
    rungs.sort(key=lambda route: route.cost)
    points = _points(work, student, rungs)
    spent = Seconds(spent.train, spent.total + time.perf_counter() - started)
    front = Front(points, spent, chosen)
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
    wiring = grow_student(config, create_chain(config.backbone, len(session.task.classes))).wiring
    blocks, needed = len(wiring.of_kind("block")), fewest_blocks(wiring)
    if max(asked) > blocks - needed:
        raise UserError(
            f"prune.remove = {list(asked)}: at most {blocks - needed} of the {blocks} blocks can "
            "go, beside the others there is no path; give fewer, or more --skips"
        )


def check_budget(session: Session, costs: PathCosts) -> None:
    """Raise UserError, before anything is trained, for a budget that no route meets."""
    config = session.config
    if config.prune.budget is None:
        return
    chain = create_chain(config.backbone, len(session.task.classes))
    student = place(grow_student(config, chain), session.accelerator.device)
    shares = costs.shares(student)
    most = _budget_share(config.prune, shares)
    assert most is not None, "there is a budget"
    routes = Routes(student.wiring, [0.0] * len(shares.paths), shares.paths, fixed=shares.fixed)
    if _best_within(routes, most) is not None:
        return
    in_ms = config.prune.max_latency_ms is not None
    unit, name = (shares.whole, " ms") if in_ms else (1.0, " of the backbone's")
    leanest, dearest = (cost * unit for cost in routes.reach())
    # a budget may be up to 2 % above what is there: three digits, rounded up
    lowest, highest = f"{leanest * 1.005:.3g}", f"{dearest * 1.005:.3g}"
    advice = f"give a budget from {lowest} to {highest}{name}"
    if leanest <= most * unit <= dearest:
        below, above = (f"{cost * unit:.4g}" for cost in routes.nearest(most))
        advice = f"the nearest cost {below} and {above}{name}"
    raise UserError(
        f"no network of this backbone costs {(1 - WITHIN) * most * unit:.4g} to "
        f"{most * unit:.4g}{name}: {advice}"
    )


def _budget_share(prune: PruneConfig, shares: PathShares) -> float | None:
    """The budget as a share of the whole backbone's cost; None where there is none."""
    if prune.budget is None:
        return None
    cost, most = prune.budget
    return most / shares.whole if cost == "latency_ms" else most


def _name(route: Route) -> str:
    # three digits that count tell rungs apart, each 8 % dearer than the one before
    return f"route-{route.cost:#.3g}"


def _plan(student: Student, route: Route) -> PrunePlan:
    return PrunePlan.keeping(_name(route), student.wiring, route.paths)


def _within(work: Tailoring, student: Student, routes: Routes, most: float) -> Route:
    """The best route that costs `most` of the backbone, or up to 2 % of that less."""
    route = _best_within(routes, most)
    assert route is not None, "the budget was checked before training"
    return route


def _best_within(routes: Routes, most: float) -> Route | None:
    return routes.best(most, least=(1 - WITHIN) * most)


def _by_the_clock(work: Tailoring, student: Student, routes: Routes, most: float) -> Route:
    """The best route that keeps a latency budget when the cut network itself is timed.

    A student was trained for it by now: where no route keeps the budget, the quickest is taken.

    Args:
        most: the budget as a share of the whole backbone's time, beside which the route is timed.
    """
    leanest, _ = routes.reach()

    def choose(aim: float) -> Route:
        route = _best_within(routes, aim) or routes.best(max(aim, leanest))
        assert route is not None, "there is a leanest route"
        return route

    route, share = keep_by_the_clock(
        most, choose, lambda route: work.share_of_time(remove(student, _plan(student, route)))
    )
    if share > most:
        asked = work.config.prune.max_latency_ms
        assert asked is not None, "there is a budget of time"
        work.session.screen.say(
            f"warning: no cut keeps {asked:g} ms by the clock; the quickest that was timed takes "
            f"{share / most * asked:.4g} ms and is kept"
        )
    return route


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


def _ladder(frontier: Sequence[Route]) -> list[Route]:
    """The routes of a frontier that are clearly dearer than the rung before, the best one too.

    No two of them have one name.
    """
    rungs: list[Route] = []
    for route in frontier:
        if not rungs or route.cost >= _GROWTH * rungs[-1].cost:
            rungs.append(route)
    best = frontier[-1]
    if rungs[-1] is not best:
        if _name(rungs[-1]) == _name(best):
            rungs.pop()
        rungs.append(best)
    return rungs


def _keep(
    work: Tailoring, student: Student, candidates: Sequence[Candidate], target: float
) -> list[Candidate]:
    """Choose on validation and fine-tune the choice to its end; it comes first."""
    shares = work.costs.shares(student)
    costs = [shares.of(student, candidate.plan.kept.paths) for candidate in candidates]
    accuracies = [candidate.scores.accuracy for candidate in candidates]
    chosen = candidates[choose(accuracies, costs, target)]
    others = [candidate for candidate in candidates if candidate is not chosen]
    if not chosen.ended:
        chosen = _try(work, student, chosen.plan, None)
    return [chosen, *others]


def _leanest_first(
    work: Tailoring, student: Student, plans: Sequence[PrunePlan], target: float
) -> list[Candidate]:
    candidates = []
    for plan in plans:
        candidates.append(_try(work, student, plan, target))
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
        point = points[position]
        candidates.append(
            _try(work, student, PrunePlan.keeping(point.name, student.wiring, point.paths), target)
        )
        return candidates[-1].reached(target)

    near = [i for i, point in enumerate(points) if point.straight_after >= target - _NEAR]
    find_leanest(len(points), near[0] if near else len(points) - 1, reaches)
    return candidates


def _try(work: Tailoring, student: Student, plan: PrunePlan, target: float | None) -> Candidate:
    say = work.session.screen.say
    say(f"{plan.name}: {plan.describe()}")
    candidate = work.cut_and_finetune(student, plan, target)
    verdict = "kept" if target is None else candidate.verdict(target)
    say(
        f"{plan.name}: straight after the cut {candidate.straight_after.accuracy:.2f} %, after "
        f"{len(candidate.fitted.history)} epochs {candidate.scores.accuracy:.2f} %: {verdict}"
    )
    return candidate


def _points(work: Tailoring, student: Student, routes: Sequence[Route]) -> list[Point]:
    """Routes with both of their costs, and their accuracy before any fine-tuning."""
    size = work.config.image_size
    by_flops = shares_of(student, work.teacher, size, "flops")
    by_params = shares_of(student, work.teacher, size, "params")
    points = []
    for route in routes:
        _, scores = work.cut(student, _plan(student, route))
        flops, params = by_flops.of(student, route.paths), by_params.of(student, route.paths)
        points.append(Point(_name(route), route.paths, flops, params, scores.accuracy))
    return points
