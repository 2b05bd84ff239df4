"""What an exclusion leaves dead, and the strongest route, on graphs small enough to see."""

import math
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan import block, proxy

from nettailor.prune.reachability import closure
from nettailor.prune.routes import most_valuable
from nettailor.student.wiring import Path, Wiring, full_wiring


def head(node: int) -> Path:
    return Path(node, node + 1, "head")


EARLY = Path(1, 4, "exit")
WHOLE = full_wiring(4, 3, identities=[2, 4], exits=[1, 4])
BY_HAND = {
    "a whole student loses nothing": (5, WHOLE.paths, WHOLE.paths),
    "nothing leads into x_1: what leaves it goes, x_2 and x_3 are reached past it": (
        4, (block(2), proxy(0, 2), proxy(1, 3), block(3), head(3)),
        (proxy(0, 2), block(3), head(3)),
    ),
    "nothing reads x_2: what leads into it goes": (
        4, (block(1), block(2), proxy(0, 2), proxy(1, 3), head(3)),
        (block(1), proxy(1, 3), head(3)),
    ),
    "without the head nobody reads x_3, and x_2 neither; x_1 is read by its exit": (
        4, (block(1), block(2), Path(2, 3, "identity"), block(3), EARLY), (block(1), EARLY),
    ),
    "forward: x_1 is not reached, hence not x_2, hence not x_3": (
        6, (block(2), block(3), block(4), proxy(0, 4), block(5), head(5)),
        (proxy(0, 4), block(5), head(5)),
    ),
    "backward: nobody reads x_4, hence nobody x_3, hence nobody x_2": (
        6, (block(1), block(2), block(3), block(4), proxy(1, 5), head(5)),
        (block(1), proxy(1, 5), head(5)),
    ),
    # x_1 is not reached, so G_2 goes; then x_2 is not reached and its proxy to x_5 goes. Nobody
    # reads x_4, so proxy 3-4 goes; x_3 is still read by proxy 3-5
    "both rules feed each other": (
        6, (block(2), proxy(2, 5), proxy(0, 3), proxy(2, 3), proxy(3, 4), proxy(3, 5), head(5)),
        (proxy(0, 3), proxy(3, 5), head(5)),
    ),
    "stem and head are apart": (5, (block(1), block(2), block(4), head(4)), ()),
    "there is no head": (5, (block(1), block(2), block(3), block(4)), ()),
    "there is nothing": (5, (), ()),
}  # fmt: skip


@pytest.mark.parametrize(("depth", "paths", "kept"), BY_HAND.values(), ids=BY_HAND)
def test_what_stays_by_hand(depth, paths, kept):
    assert closure(Wiring(depth, paths)).paths == kept


PATHS = full_wiring(4, "dense", identities=[1, 3, 4], exits=[2, 4]).paths
SUBSETS = st.lists(st.sampled_from(PATHS), unique=True).map(lambda paths: Wiring(5, tuple(paths)))


def on_a_route(wiring: Wiring) -> set[Path]:
    """By brute force: every path of every chain of paths that leads from stem to head."""
    found: set[Path] = set()

    def walk(node: int, behind: tuple[Path, ...]) -> None:
        if node == wiring.depth:
            found.update(behind)
        for path in wiring.paths:
            if path.source == node:
                walk(path.target, (*behind, path))

    walk(0, ())
    return found


@given(wiring=SUBSETS)
@settings(max_examples=150, deadline=None)
def test_what_stays_is_what_lies_on_a_route(wiring):
    kept = closure(wiring)
    assert set(kept.paths) == on_a_route(wiring)
    assert closure(kept) == kept


@given(data=st.data(), wiring=SUBSETS)
@settings(max_examples=150, deadline=None)
def test_strongest_route_by_brute_force(data, wiring):
    alpha = data.draw(
        st.lists(
            st.floats(0.01, 1.0), min_size=len(wiring.paths), max_size=len(wiring.paths)
        )
    )  # fmt: skip
    weight = dict(zip(wiring.paths, alpha, strict=True))
    products = []
    inner = range(1, wiring.depth)
    for stops in (c for n in range(wiring.depth) for c in combinations(inner, n)):
        nodes = (0, *stops, wiring.depth)
        product = 1.0
        for source, target in pairwise(nodes):
            ways = [weight[p] for p in wiring.paths if (p.source, p.target) == (source, target)]
            product *= max(ways, default=0.0)
        products.append(product)
    if max(products) == 0:
        with pytest.raises(ValueError, match="no path"):
            most_valuable(wiring, [math.log(one) for one in alpha])
        return
    route, value, _ = most_valuable(wiring, [math.log(one) for one in alpha])
    assert math.exp(value) == pytest.approx(max(products))
    assert math.prod(weight[path] for path in route) == pytest.approx(max(products))
    assert route[0].source == 0
    assert route[-1].target == wiring.depth
    assert all(before.target == after.source for before, after in pairwise(route))


@given(wiring=SUBSETS)
@settings(max_examples=100, deadline=None)
def test_fewest_blocks_by_brute_force(wiring):
    """The least number of blocks that must stay for a route to be left, whichever go."""
    blocks = wiring.of_kind("block")
    enough = [
        len(kept)
        for count in range(len(blocks) + 1)
        for kept in combinations(blocks, count)
        if closure(wiring.without(set(blocks) - set(kept))).paths
    ]
    if enough:
        route = most_valuable(wiring, [-(path.kind == "block") for path in wiring.paths])
        assert -route.value == min(enough) == sum(path.kind == "block" for path in route.paths)
