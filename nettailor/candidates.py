"""Which cuts of a trained student are tried, in which order, and when it is enough."""

from collections.abc import Sequence

from nettailor.core.cost import module_flops
from nettailor.core.errors import UserError
from nettailor.front import Front, Point, Seconds, write_front
from nettailor.path_shares import shares_of
from nettailor.tailoring import Candidate, Tailoring
from prune.depths import choose, default_depths
from prune.plan import PrunePlan, decide
from prune.remove import remove
from prune.routes import Route, Routes
from student.network import Student
from student.wiring import Wiring

_WITHIN = 0.02  # a budget is met when the cost is no more than this part of it below
_NEAR = 10.0  # points of accuracy that fine-tuning is trusted to bring back, for a first guess
_CORRECTIONS = 5  # of a latency budget, at most
_GROWTH = 1.08  # of the cost from one rung of the ladder to the next


def try_candidates(
    work: Tailoring, student: Student, target: float, spent: Seconds
) -> list[Candidate]:
    """Cut and fine-tune until the leanest cut that reaches `target` per cent is known.

    By rank: from the deepest cut on. By route: within the budget where there is one; else along a
    ladder of routes, each worth more and at least 8 % dearer than the one before, on the assumption
    that what a dearer route cannot reach a leaner one cannot either. The ladder is written down as
    the run's front.

    A candidate stops as soon as it is known whether it reaches the target; the one that is kept is
    then fine-tuned to its end. It is the first of those that are returned.

    Args:
        spent: on the student.
    """
    prune = work.config.prune
    if prune.by == "rank":
        depths = prune.remove or (*default_depths(len(work.session.stages)), 0)
        plans = _by_rank(student, depths, prune.threshold)
        return _keep(work, student, _leanest_first(work, student, plans, target), target)
    routes = work.routes(student)
    most = budget_share(work, student)
    rungs = _ladder(routes.frontier())
    if most is not None:
        within = _by_the_clock if prune.max_latency_ms is not None else _within
        rungs.append(within(work, student, routes, most))
    points = _points(work, student, sorted(rungs, key=lambda route: route.cost))
    write_front(work.folder.path, Front(points, spent))
    if most is None:
        candidates = _keep(work, student, _search(work, student, points, target), target)
    else:
        candidates = [_try(work, student, as_plan(student, rungs[-1]), None)]
    ends = {one.name: one.scores.accuracy for one in candidates if one.ended}
    points = [point._replace(finetuned=ends.get(point.name)) for point in points]
    write_front(work.folder.path, Front(points, spent))
    return candidates


def check_depths(asked: tuple[int, ...] | None, blocks: int) -> None:
    """Raise UserError for numbers of blocks that a backbone cannot lose."""
    if asked is not None and (not asked or max(asked) > blocks):
        raise UserError(
            f"prune.remove = {list(asked)}: give numbers from 0 to the backbone's {blocks} blocks"
        )


def check_budget(work: Tailoring) -> None:
    """Raise UserError, before anything is trained, for a budget that no route meets."""
    student = work.grown()
    most = budget_share(work, student)
    if most is None:
        return
    shares = work.shares(student)
    routes = Routes(student.wiring, [0.0] * len(shares.paths), shares.paths, fixed=shares.fixed)
    if routes.best(most, least=(1 - _WITHIN) * most) is None:
        leanest, dearest = routes.reach()
        given = work.config.prune.max_latency_ms
        unit = shares.whole if given is not None else 1.0
        name = "share of the backbone" if given is None else "ms"
        raise UserError(
            f"no network of this backbone costs {(1 - _WITHIN) * most * unit:.4g} to "
            f"{most * unit:.4g} ({name}): expected a budget from {leanest * unit:.4g} to "
            f"{dearest * unit:.4g}"
        )


def budget_share(work: Tailoring, student: Student) -> float | None:
    """The budget as a share of the whole backbone's cost; None where there is none."""
    budget = work.config.prune.budget
    if budget is None:
        return None
    cost, most = budget
    return most / work.shares(student).whole if cost == "latency_ms" else most


def as_plan(student: Student, route: Route) -> PrunePlan:
    """The cut that leaves a route, named by its cost."""
    kept = Wiring(student.wiring.depth, route.paths)
    return PrunePlan(f"route-{route.cost:.3f}", student.wiring, kept)


def _within(work: Tailoring, student: Student, routes: Routes, most: float) -> Route:
    """The best route that costs `most` of the backbone, or up to 2 % of that less."""
    route = routes.best(most, least=(1 - _WITHIN) * most)
    assert route is not None, "the budget was checked before training"
    return route


def _by_the_clock(work: Tailoring, student: Student, routes: Routes, most: float) -> Route:
    """The best route that keeps a latency budget when the cut network itself is timed.

    The table of paths adds up to a few per cent more or less than a whole network takes, so the
    budget that the table is given is corrected by what the last route really took.

    Args:
        most: the budget as a share of the whole backbone's time, beside which the route is timed.
    """
    tried: list[tuple[float, Route]] = []
    aim = most
    for _ in range(_CORRECTIONS):
        route = routes.best(aim, least=(1 - _WITHIN) * aim) or routes.best(aim)
        if route is None:
            break
        share = work.share_of_time(remove(student, as_plan(student, route)))
        tried.append((share, route))
        if (1 - _WITHIN) * most <= share <= most:
            break
        aim *= (1 - _WITHIN / 2) * most / share
    assert tried, "the budget was checked before training"
    return min(tried, key=lambda one: abs(one[0] / most - 1 + _WITHIN / 2))[1]


def _by_rank(student: Student, depths: Sequence[int], threshold: float) -> list[PrunePlan]:
    """A plan per depth that differs from the others, the deepest first."""
    alpha = student.path_weights().tolist()
    plans: dict[object, PrunePlan] = {}
    for depth in sorted(set(depths), reverse=True):
        plan = decide(student.wiring, alpha, threshold=threshold, remove=depth)
        plans.setdefault(plan.kept.paths, plan)
    return list(plans.values())


def _ladder(frontier: Sequence[Route]) -> list[Route]:
    """The routes of a frontier that are clearly dearer than the rung before, the best one too."""
    rungs: list[Route] = []
    for route in frontier:
        if not rungs or route.cost >= _GROWTH * rungs[-1].cost:
            rungs.append(route)
    if rungs[-1] is not frontier[-1]:
        rungs.append(frontier[-1])
    return rungs


def _keep(
    work: Tailoring, student: Student, candidates: Sequence[Candidate], target: float
) -> list[Candidate]:
    """Choose on validation and fine-tune the choice to its end; it comes first."""
    size = work.config.image_size
    costs = [module_flops(candidate.network, (3, size, size)) for candidate in candidates]
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
        if candidates[-1].reaches(target):
            break
    return candidates


def _search(
    work: Tailoring, student: Student, points: Sequence[Point], target: float
) -> list[Candidate]:
    """Fine-tune points of a ladder until the leanest that reaches the target is known.

    Begins with the leanest that is near the target straight after the cut, goes on in steps that
    double, and halves what is left once both sides are known.
    """
    candidates = []
    short, enough = -1, len(points)  # the dearest known to fall short, the leanest known to reach
    near = [i for i, point in enumerate(points) if point.straight_after >= target - _NEAR]
    position, step = near[0] if near else len(points) - 1, 1
    while enough - short > 1:
        kept = Wiring(student.wiring.depth, points[position].paths)
        plan = PrunePlan(points[position].name, student.wiring, kept)
        candidates.append(_try(work, student, plan, target))
        if candidates[-1].reaches(target):
            enough = position
            position -= step
        else:
            short = position
            position += step
        step *= 2
        if not short < position < enough:
            position = (short + enough) // 2
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
        plan = as_plan(student, route)
        _, scores = work.cut(student, plan)
        flops, params = by_flops.of(student, route.paths), by_params.of(student, route.paths)
        points.append(Point(plan.name, route.paths, flops, params, scores.accuracy))
    return points
