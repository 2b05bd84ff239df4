"""Which depths are tried, when a candidate is given up, and which one is kept."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nettailor.prune.depths import choose, decided, default_depths, find_leanest


def test_default_depths_by_hand():
    assert default_depths(16) == (12, 10, 8, 6, 4, 2)
    # 3/4 of 8 in six steps of an eighth
    assert default_depths(8) == (6, 5, 4, 3, 2, 1)
    # 3, 2.5, 2, 1.5, 1, 0.5, halves rounded up, doubles left out
    assert default_depths(4) == (3, 2, 1)
    # 0.75, 0.625, 0.5, 0.375 …: at least one
    assert default_depths(1) == (1,)
    assert default_depths(2) == (2, 1)


@pytest.mark.parametrize("blocks", range(1, 60))
def test_default_depths_lie_within_the_backbone(blocks):
    depths = default_depths(blocks)
    assert 1 <= len(depths) <= 6
    assert list(depths) == sorted(set(depths), reverse=True)
    assert min(depths) >= 1
    assert max(depths) <= max(blocks, 1)
    assert max(depths) == max(1, int(0.75 * blocks + 0.5))


def test_decided_by_hand():
    """With 9 epochs hope ends after the fifth, with 8 after the fourth."""
    assert not decided(4, 9, 10.0, 90.0)
    assert decided(5, 9, 10.0, 90.0)
    assert not decided(3, 8, 10.0, 90.0)
    assert decided(4, 8, 10.0, 90.0)
    # exactly 3 points short is not more than 3 points short
    assert not decided(8, 9, 87.0, 90.0)
    assert decided(8, 9, 86.9, 90.0)
    # there at once, or just not
    assert decided(1, 9, 90.0, 90.0)
    assert not decided(1, 9, 89.9, 90.0)
    # what may be chance keeps it from being there, and from being ruled out
    assert not decided(8, 9, 86.5, 90.0, 1.0)
    assert decided(8, 9, 86.5, 90.0, 0.25)
    assert not decided(9, 9, 89.9, 90.0, 4.0)


def test_the_cheapest_that_reaches_is_chosen():
    assert choose([90.0, 95.0, 94.5], [10, 30, 20], 94.0) == 2
    assert choose([94.0, 95.0], [10, 30], 94.0) == 0  # at the target is within it
    assert choose([94.5, 95.0], [20, 20], 94.0) == 1  # as cheap: the better


def test_the_best_is_chosen_where_none_reaches():
    assert choose([90.0, 93.0, 92.0], [10, 30, 20], 94.0) == 1
    assert choose([93.0, 93.0], [30, 20], 94.0) == 1  # as good: the cheaper
    assert choose([10.0], [10], 94.0) == 0


def visits(count: int, first: int, reaching_from: int) -> list[int]:
    """Positions in the order in which they are asked for, where those from one on reach."""
    seen: list[int] = []

    def reaches(position: int) -> bool:
        seen.append(position)
        return position >= reaching_from

    find_leanest(count, first, reaches)
    return seen


@pytest.mark.parametrize(
    ("count", "first", "reaching_from", "expected"),
    [
        (8, 3, 0, [3, 2, 0]),  # steps that double
        (8, 3, 1, [3, 2, 0, 1]),
        (8, 3, 3, [3, 2]),
        (8, 0, 0, [0]),
        (8, 0, 8, [0, 1, 3, 7]),  # none reaches: the dearest has been tried
        (8, 2, 6, [2, 3, 5, 6]),  # past the end: half of what is left
        (8, 7, 5, [7, 6, 4, 5]),  # from the dearest down
        (1, 0, 1, [0]),
        (1, 0, 0, [0]),
    ],
)
def test_the_order_of_the_search(count, first, reaching_from, expected):
    assert visits(count, first, reaching_from) == expected


@given(st.data(), st.integers(1, 30), st.integers(0, 30))
def test_the_search_ends_with_the_leanest_that_reaches(data, count, reaching_from):
    """And with proof: the one before it was asked and falls short. None is asked twice."""
    first = data.draw(st.integers(0, count - 1))
    seen = visits(count, first, reaching_from)
    assert len(set(seen)) == len(seen) <= 2 * math.log2(count + 1) + 2
    assert seen[0] == first
    assert all(0 <= position < count for position in seen)
    if reaching_from < count:
        assert reaching_from in seen
        assert reaching_from == 0 or reaching_from - 1 in seen
    else:
        assert count - 1 in seen


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.data())
def test_the_search_ends_whatever_is_answered(answers, data):
    """Real accuracies need not rise with the cost: still no position is asked twice."""
    seen: list[int] = []

    def reaches(position):
        seen.append(position)
        return answers[position]

    find_leanest(len(answers), data.draw(st.integers(0, len(answers) - 1)), reaches)
    assert len(set(seen)) == len(seen)
