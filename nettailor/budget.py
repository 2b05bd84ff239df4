"""A budget of FLOPs, parameters or milliseconds: whether a route keeps it."""

import math

from nettailor.core.backbone import create_backbone
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.sections import BudgetConfig
from nettailor.path_shares import PathCosts
from nettailor.prune.routes import Routes
from nettailor.prune.shrink import WITHIN
from nettailor.resolutions import sides
from nettailor.session import Session
from nettailor.student.costs import PathShares
from nettailor.tailoring import grow_student


def check_budget(session: Session, costs: PathCosts) -> None:
    """Raise UserError for a budget that no route keeps, or that the whole backbone is far below."""
    config = session.config
    if config.budget.given is None:
        return
    chain = create_backbone(config.backbone, len(session.task.classes), config.image_size)
    student = place(grow_student(config, chain), session.accelerator.device)
    leanest, dearest, found, most = math.inf, 0.0, False, math.inf
    for student.side in sides(chain, config.image_size, config.student.cost, config.student.levers):
        shares = costs.shares(student)
        most = budget_share(config.budget, shares) or math.inf
        # worth what they cost: the best route is the dearest
        routes = Routes(student.wiring, shares.paths, shares.paths, fixed=shares.fixed)
        found = found or routes.best(most) is not None
        least, all_of_it = routes.reach()
        leanest, dearest = min(leanest, least), max(dearest, all_of_it)
    in_ms = config.budget.max_latency_ms is not None
    unit, name = (shares.whole, " ms") if in_ms else (1.0, " of the backbone's")
    if not found or (1 - WITHIN) * most > dearest:
        # a budget may be up to 2 % above what is there: three digits, rounded up
        lowest, highest = (f"{cost * unit * 1.005:.3g}" for cost in (leanest, dearest))
        side = "as much as" if found else "no more than"
        raise UserError(
            f"no network of this backbone costs {side} {most * unit:.4g}{name}: give a budget from "
            f"{lowest} to {highest}{name}"
        )


def budget_share(budget: BudgetConfig, shares: PathShares) -> float | None:
    """The budget as a share of the whole backbone's cost; None where there is none."""
    if budget.given is None:
        return None
    cost, most = budget.given
    return most / shares.whole if cost == "latency_ms" else most
