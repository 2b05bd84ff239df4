"""A budget of FLOPs, parameters or milliseconds: whether a route keeps it, and which ones do."""

from collections.abc import Callable
from functools import partial

from nettailor.core.backbone import create_backbone
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.sections import BudgetConfig
from nettailor.latency_budget import WITHIN, keep_by_the_clock
from nettailor.path_shares import PathCosts
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.routes import Route, Routes
from nettailor.session import Session
from nettailor.student.costs import PathShares
from nettailor.tailoring import Tailoring, grow_student


def check_budget(session: Session, costs: PathCosts) -> None:
    """Raise UserError, before anything is trained, for a budget that no route meets."""
    config = session.config
    if config.budget.given is None:
        return
    chain = create_backbone(config.backbone, len(session.task.classes), config.image_size)
    student = place(grow_student(config, chain), session.accelerator.device)
    shares = costs.shares(student)
    most = _budget_share(config.budget, shares)
    assert most is not None, "there is a budget"
    routes = Routes(student.wiring, [0.0] * len(shares.paths), shares.paths, fixed=shares.fixed)
    if _best_within(routes, most) is not None:
        return
    in_ms = config.budget.max_latency_ms is not None
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


def _budget_share(budget: BudgetConfig, shares: PathShares) -> float | None:
    """The budget as a share of the whole backbone's cost; None where there is none."""
    if budget.given is None:
        return None
    cost, most = budget.given
    return most / shares.whole if cost == "latency_ms" else most


def within_budget(work: Tailoring, routes: Routes) -> list[Route]:
    """Of each end, head or exit, the best route that uses a run's budget but for 2 % at most.

    Empty where there is no budget; ends that no such route leads to are left out. A student was
    trained for it by now: where no network keeps a budget of time, the quickest is taken.
    """
    budget, screen, student = work.config.budget, work.session.screen, work.student
    most = _budget_share(budget, work.costs.shares(student))
    if most is None:
        return []
    if budget.max_latency_ms is None:
        found = [_best_within(by_end, most) for by_end in routes.by_end().values()]
        within = [route for route in found if route is not None]
        assert within, "the budget was checked before training"
        return within

    in_ms = budget.max_latency_ms / most

    def share_of_time(route: Route) -> float:
        plan = PrunePlan.keeping("timed", student.wiring, route.paths)
        share = work.share_of_time(remove(student, plan))
        screen.say(f"a cut of {len(route.paths)} paths takes {share * in_ms:.4g} ms by the clock")
        return share

    timed = by_the_clock(routes, most, share_of_time)
    for _, share in timed:
        if share > most:
            screen.say(
                f"warning: no cut keeps {budget.max_latency_ms:g} ms by the clock; the quickest "
                f"that was timed takes {share / most * budget.max_latency_ms:.4g} ms and is kept"
            )
    return [route for route, _ in timed]


def by_the_clock(
    routes: Routes, most: float, share_of_time: Callable[[Route], float]
) -> list[tuple[Route, float]]:
    """Of each end, the best route that keeps a latency budget when its network itself is timed.

    Args:
        routes: by what their paths take on their own; there is one within the budget.
        most: the budget as a share of the whole backbone's time.
        share_of_time: what a route's network takes over the whole backbone, timed in turn.

    Returns:
        Routes and their shares of the time. Where some use the budget but for 2 %, only those;
        where none keeps it, the quickest alone.
    """

    def choice(routes: Routes, aim: float) -> Route:
        route = _best_within(routes, aim) or routes.best(max(aim, routes.reach()[0]))
        assert route is not None, "there is a leanest route"
        return route

    timed = [
        keep_by_the_clock(most, partial(choice, by_end), share_of_time)
        for by_end in routes.by_end().values()
        if by_end.best(most) is not None
    ]
    kept = [one for one in timed if one[1] <= most]
    met = [one for one in kept if one[1] >= (1 - WITHIN) * most]
    return met or kept or [min(timed, key=lambda one: one[1])]


def _best_within(routes: Routes, most: float) -> Route | None:
    return routes.best(most, least=(1 - WITHIN) * most)
