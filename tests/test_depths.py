"""Which depths are tried, when a candidate is given up, and which one is kept."""

import pytest

from nettailor.prune.depths import default_depths, ruled_out


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


def test_ruled_out_by_hand():
    """With 9 epochs hope ends after the fifth, with 8 after the fourth."""
    assert not ruled_out(4, 9, 10.0, 90.0)
    assert ruled_out(5, 9, 10.0, 90.0)
    assert not ruled_out(3, 8, 10.0, 90.0)
    assert ruled_out(4, 8, 10.0, 90.0)
    # exactly 5 points short is not more than 5 points short
    assert not ruled_out(8, 9, 85.0, 90.0)
    assert ruled_out(8, 9, 84.9, 90.0)
    # what may be chance keeps it from being ruled out
    assert not ruled_out(8, 9, 84.5, 90.0, 1.0)
    assert ruled_out(8, 9, 84.5, 90.0, 0.25)
