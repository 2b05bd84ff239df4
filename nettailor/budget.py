"""A budget of FLOPs, parameters or milliseconds: whether a route keeps it."""

import math
from collections.abc import Mapping

from nettailor.channel_lever import refusal, whole_cost
from nettailor.core.backbone import Backbone
from nettailor.core.config import RunConfig
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.sections import BudgetConfig
from nettailor.path_shares import PathCosts
from nettailor.prune.fewer_channels import fewest_channels
from nettailor.prune.routes import ROUNDING, Routes
from nettailor.prune.shrink import WITHIN
from nettailor.resolutions import may_lower, sides
from nettailor.resolve import has_student
from nettailor.session import Session
from nettailor.student.costs import PathShares
from nettailor.student.network import Student
from nettailor.tailoring import grow_student


def check_budget(session: Session, costs: PathCosts) -> None:
    """Raise UserError for a budget that no network keeps, or that the whole backbone is far below.

    Also where one is wanted, and none is given.
    """
    config = session.config
    if config.budget.given is None:
        if not has_student(config) and not may_lower(config.student.levers, config.student.cost):
            raise UserError(
                "--levers channels: channels go to a budget, and none is given; give one, such as "
                "--max-flops 0.5"
            )
        return
    chain, shrinks = costs.chain, has_student(config)
    student = place(grow_student(config, chain), session.accelerator.device)
    leanest, dearest, found, most = math.inf, 0.0, False, math.inf
    at = dict[int | None, PathShares]()
    for student.side in sides(chain, config.image_size, config.student.cost, config.student.levers):
        shares = at[student.side] = costs.shares(student)
        most = budget_share(config.budget, shares) or math.inf
        if shrinks:
            routes = _routes(student, shares)
            least, all_of_it = routes.reach()
            found = found or routes.best(most) is not None
        else:
            all_of_it = whole_cost(student, shares)
            least = all_of_it * _fewest(config, chain, student.side or config.image_size)
            found = found or least <= most + ROUNDING
        leanest, dearest = min(leanest, least), max(dearest, all_of_it)
    in_ms = config.budget.max_latency_ms is not None
    unit, name = (shares.whole, " ms") if in_ms else (1.0, " of the backbone's")
    if not found or (1 - WITHIN) * most > dearest:
        # a budget may be up to 2 % above what is there: three digits, rounded up
        lowest, highest = (f"{cost * unit * 1.005:.3g}" for cost in (leanest, dearest))
        side = "as much as" if found else "no more than"
        alone = "" if found else _alone(config, student, at, chain, unit)
        raise UserError(
            f"no network of this backbone costs {side} {most * unit:.4g}{name}: give a budget from "
            f"{lowest} to {highest}{name}{alone}"
        )


def _routes(student: Student, shares: PathShares) -> Routes:
    """Worth what they cost: the best route is the dearest."""
    return Routes(student.wiring, shares.paths, shares.paths, fixed=shares.fixed)


def _alone(
    config: RunConfig,
    student: Student,
    at: Mapping[int | None, PathShares],
    chain: Backbone,
    unit: float,
) -> str:
    """How far each of several levers goes by itself, in words.

    Args:
        config: names the levers.
        student: not cut.
        at: what its paths cost by side.
        chain: the whole backbone.
        unit: what the whole backbone costs in milliseconds; 1 for shares.
    """
    own, levers = at[None], config.student.levers
    reach = {"blocks": _routes(student, own).reach()[0]}
    if 0 < (fewest := _fewest(config, chain, config.image_size)) < 1:
        reach["channels"] = whole_cost(student, own) * fewest
    if len(at) > 1:
        reach["resolution"] = min(whole_cost(student, one) for one in at.values())
    told = [f"{one} {reach[one] * unit * 1.005:.3g}" for one in reach if one in levers]
    return f"; alone they reach: {', '.join(told)}" if len(told) > 1 else ""


def _fewest(config: RunConfig, chain: Backbone, side: int) -> float:
    """What the fewest channels leave of the whole network's cost at a side of its images.

    1 where channels stay; 0 for a time, which is measured later.
    """
    unit, levers = config.student.cost, config.student.levers
    reason = refusal(chain, config.image_size, unit, levers)
    if config.prune.finetune != "all" or reason is not None:
        return 1.0
    return 0.0 if unit == "latency" else fewest_channels(chain, side, unit)


def budget_share(budget: BudgetConfig, shares: PathShares) -> float | None:
    """The budget as a share of the whole backbone's cost; None where there is none."""
    if budget.given is None:
        return None
    cost, most = budget.given
    return most / shares.whole if cost == "latency_ms" else most
