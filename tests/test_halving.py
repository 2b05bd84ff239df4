"""Successive halving, worked out by hand."""

import pytest

from nettailor.halving import Standing, better_half, rungs


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (6, 24, [6, 12, 24]),
        (5, 24, [5, 10, 20, 24]),
        (10, 12, [10, 12]),
        (1, 1, [1]),
        (7, 7, [7]),
    ],
)
def test_rungs_double(first, last, expected):
    assert rungs(first, last) == expected


def at(cost: float, macro_f1: float, number: int) -> Standing:
    return Standing(number, macro_f1, cost, 1.0)


def test_the_better_of_two_neighbours_in_cost_goes_on():
    # by cost: 3 and 0, then 4 and 1
    rung = [at(20, 50, 0), at(40, 90, 1), at(10, 40, 3), at(30, 95, 4)]
    assert better_half(rung) == [0, 4]
    # a fifth one, dearer than all: three in the last band
    assert better_half([*rung, at(99, 92, 2)]) == [0, 4]
    assert better_half([*rung, at(99, 96, 2)]) == [0, 2]


def test_cost_is_parameters_times_latency():
    # costs 20, 30, 12, 50: bands (2, 0) and (1, 3)
    rung = [
        Standing(0, 60, 10, 2),
        Standing(1, 70, 3, 10),
        Standing(2, 50, 12, 1),
        Standing(3, 80, 5, 10),
    ]
    assert better_half(rung) == [0, 3]


def test_the_cheaper_of_two_alike_goes_on():
    assert better_half([at(2, 50, 0), at(1, 50, 1)]) == [1]
    assert better_half([at(1, 50, 5), at(1, 50, 2)]) == [2]


def test_what_broke_down_never_goes_on():
    assert better_half([at(1, 0, 0), at(2, 5, 1), at(3, 9, 2)]) == [2]
    assert better_half([at(1, 0, 0), at(2, 5, 1)]) == [1]
    assert better_half([at(1, 0, 0)]) == []
    assert better_half([]) == []
