"""Which routes keep a budget of time when what they lead to is timed itself."""

import pytest

from nettailor.budget import by_the_clock
from nettailor.prune.routes import Route, Routes
from nettailor.student.wiring import full_wiring

# two blocks of 0.3 each; the exit of 0.1 reads the first one's output, the head of 0.2 the second's
WIRING = full_wiring(2, 0, identities=[1, 2], exits=[1])
COSTS = {"block": 0.3, "identity": 0.0, "exit": 0.1, "head": 0.2}
VALUES = {"block-0-1": 2.0, "block-1-2": 1.0}
ROUTES = Routes(
    WIRING,
    [VALUES.get(path.key, 0.0) for path in WIRING.paths],
    [COSTS[path.kind] for path in WIRING.paths],
    fixed=0.1,
)


class Clock:
    """Takes `factor` times what the paths add up to; notes what was timed."""

    def __init__(self, **factors: float) -> None:
        self.factors, self.timed = factors, list[str]()

    def __call__(self, route: Route) -> float:
        kinds = [path.kind for path in route.paths]
        self.timed.append(" ".join(kinds))
        return route.cost * self.factors[kinds[-1]]


def kept(most: float, clock: Clock) -> list[tuple[str, float]]:
    return [
        (" ".join(path.kind for path in route.paths), pytest.approx(share))
        for route, share in by_the_clock(ROUTES, most, clock)
    ]


def test_each_end_has_its_best_route():
    """0.5: block, exit takes 0.5 exactly. The head's are 0.3, 0.6 and 0.9."""
    clock = Clock(exit=1.0, head=0.83)
    assert kept(0.5, clock) == [("block identity head", 0.498), ("block exit", 0.5)]
    # of the head nothing uses the budget any more: what does is taken alone
    assert kept(0.5, Clock(exit=1.0, head=1.0)) == [("block exit", 0.5)]


def test_ends_that_use_less_where_none_uses_all():
    assert kept(0.8, Clock(exit=1.0, head=1.0)) == [
        ("block identity head", 0.6),
        ("block exit", 0.5),
    ]


def test_where_none_keeps_it_the_quickest_alone():
    """The leanest of all, 0.2 through the exit, is tried before."""
    clock = Clock(exit=3.0, head=3.0)
    assert kept(0.55, clock) == [("identity exit", 0.6)]
    assert {"identity exit", "identity identity head"} <= set(clock.timed)


def test_an_end_that_is_too_dear_by_its_paths_is_not_timed():
    clock = Clock(exit=1.0, head=1.0)
    assert kept(0.25, clock) == [("identity exit", 0.2)]
    assert not any(route.endswith("head") for route in clock.timed)
