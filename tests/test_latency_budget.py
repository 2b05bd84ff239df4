"""What is chosen by the times of parts, and corrected by the time of the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nettailor.latency_budget import keep_by_the_clock


class Clock:
    """Choices are the aims themselves, 0.1 at least; notes what was timed."""

    def __init__(self, *shares: float, factor: float = 1.0) -> None:
        self.shares, self.factor, self.timed = list(shares), factor, []

    def choose(self, aim: float) -> float:
        return max(aim, 0.1)

    def share_of_time(self, found: float) -> float:
        self.timed.append(found)
        return self.shares.pop(0) if self.shares else self.factor * found

    def kept(self, most: float) -> tuple[float, float]:
        return keep_by_the_clock(most, self.choose, self.share_of_time)


def test_what_fits_at_once_is_taken():
    clock = Clock(0.495)
    assert clock.kept(0.5) == (0.5, 0.495)
    assert clock.timed == [0.5]


def test_the_aim_is_corrected_by_what_was_timed():
    """Networks take a quarter more than their parts: 0.5 is 0.625, so 0.5 × 0.99 × 0.5 / 0.625."""
    clock = Clock(factor=1.25)
    found, share = clock.kept(0.5)
    assert clock.timed == [0.5, pytest.approx(0.396)]
    assert (found, share) == (pytest.approx(0.396), pytest.approx(0.495))


def test_over_the_budget_is_never_nearer_than_below_it():
    """0.502 is nearer to 0.5 than 0.48 is, and breaks it."""
    clock = Clock(0.6, 0.502, 0.48, 0.51, 0.503)
    assert clock.kept(0.5)[1] == 0.48
    assert len(clock.timed) == 5


def test_of_those_that_keep_it_the_one_that_uses_most_of_it():
    assert Clock(0.3, 0.6, 0.45, 0.4, 0.7).kept(0.5)[1] == 0.45


def test_where_none_keeps_it_the_leanest_is_tried_as_well():
    clock = Clock(0.9, 0.8, 0.7, 0.8, 0.9, 0.4)
    assert clock.kept(0.5) == (0.1, 0.4)
    assert clock.timed[-1] == 0.1
    assert len(clock.timed) == 6


def test_where_nothing_keeps_it_the_quickest_is_told():
    clock = Clock(0.9, 0.8, 0.7, 0.8, 0.9, 0.75)
    assert clock.kept(0.5)[1] == 0.7


@given(st.lists(st.floats(0.01, 2), min_size=6, max_size=6), st.floats(0.05, 1))
def test_a_budget_that_something_keeps_is_kept(shares, most):
    clock = Clock(*shares)
    _, share = clock.kept(most)
    timed = shares[: len(clock.timed)]
    assert share in timed
    assert (share <= most) == any(one <= most for one in timed)
    if share > most:
        assert len(timed) == 6
        assert share == min(timed)
    else:
        assert share == max(one for one in timed if one <= most)
