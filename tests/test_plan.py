"""The cut, decided from path weights alone."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nettailor.prune.plan import PrunePlan, decide
from nettailor.prune.reachability import closure
from nettailor.student.path_weights import PathWeights
from nettailor.student.wiring import Path, Wiring, full_wiring


def block(node: int) -> Path:
    return Path(node - 1, node, "block")


def proxy(source: int, target: int) -> Path:
    return Path(source, target, "proxy")


HEAD = Path(3, 4, "head")


# three blocks, two skips
WIRING = full_wiring(3, 2)
WEIGHTS = {
    block(1): 0.90,
    proxy(0, 1): 0.10,
    block(2): 0.30,
    proxy(0, 2): 0.66,
    proxy(1, 2): 0.04,
    block(3): 0.60,
    proxy(1, 3): 0.01,
    proxy(2, 3): 0.39,
    HEAD: 1.00,
}
ALPHA = [WEIGHTS[path] for path in WIRING.paths]


def test_the_threshold_takes_proxies_only():
    plan = decide(WIRING, ALPHA, threshold=0.05, remove=0)
    assert set(WIRING.paths) - set(plan.kept.paths) == {proxy(1, 2), proxy(1, 3)}
    assert plan.before == WIRING
    assert plan.name == "remove-00"
    assert plan.restored == ()
    # the least block is at .30, and no threshold takes it
    assert set(decide(WIRING, ALPHA, threshold=0.5, remove=0).kept.of_kind("block")) == {
        block(1), block(2), block(3),
    }  # fmt: skip


def test_at_the_threshold_a_proxy_stays():
    """It goes below θ, not at θ."""
    assert proxy(1, 2) in decide(WIRING, ALPHA, threshold=0.04, remove=0).kept.paths
    assert decide(WIRING, ALPHA, threshold=0.0, remove=0).kept == WIRING


def test_the_least_block_goes_and_takes_along_what_nobody_reads():
    """Without G_2, proxies 1-2 and 1-3, nobody reads x_1: G_1 and proxy 0-1 go too."""
    plan = decide(WIRING, ALPHA, threshold=0.05, remove=1)
    assert plan.kept.paths == (proxy(0, 2), block(3), proxy(2, 3), HEAD)
    assert plan.restored == ()


def test_blocks_go_by_rank():
    """In the order .30, .60, .90; with no threshold, every node stays linked by its proxies."""
    for remove, gone in ((1, {2}), (2, {2, 3}), (3, {1, 2, 3})):
        kept = decide(WIRING, ALPHA, threshold=0.0, remove=remove).kept
        assert {path.target for path in kept.of_kind("block")} == {1, 2, 3} - gone
        assert kept.of_kind("proxy") == WIRING.of_kind("proxy")


def test_at_a_tie_the_deepest_goes_first():
    wiring = full_wiring(4, 1)
    alpha = [0.5] * len(wiring.paths)
    for remove in range(5):
        kept = decide(wiring, alpha, threshold=0.1, remove=remove).kept
        assert [path.target for path in kept.of_kind("block")] == list(range(1, 5 - remove))


def test_with_everything_excluded_the_strongest_route_stays():
    """All blocks asked to go, all proxies below θ: .10 · .04 · .39, .66 · .39 and .10 · .01."""
    plan = decide(WIRING, ALPHA, threshold=0.7, remove=3)
    assert plan.restored == (proxy(0, 2), proxy(2, 3))
    assert plan.kept.paths == (*plan.restored, HEAD)
    assert "proxy-0-2, proxy-2-3" in plan.describe()
    assert plan.describe().startswith("0 of 3 blocks and 2 of 5 proxies stay")


def test_a_weight_that_rounds_to_zero_still_gives_a_route():
    plan = decide(WIRING, [0.0] * len(ALPHA), threshold=0.7, remove=3)
    assert plan.restored == (proxy(0, 1), proxy(1, 3))  # of the same weight the first


def test_a_route_over_what_the_rank_leaves():
    """G_1 and G_3 stay by rank, x_2 is out of reach of both; .90 · .04 · .60 < .66 · .60.

    Only the proxy that joins is restored, and G_1, which leads nowhere now, goes.
    """
    plan = decide(WIRING, ALPHA, threshold=0.7, remove=1)
    assert plan.restored == (proxy(0, 2),)
    assert plan.kept.paths == (proxy(0, 2), block(3), HEAD)


def test_a_start_like_any_student_keeps_every_block_and_no_proxy():
    """At its start with k = 3 a proxy weighs 0.017 (two of them 0.0177 and one 0.018)."""
    wiring = full_wiring(6, 3)
    plan = decide(wiring, PathWeights(wiring)().tolist(), threshold=0.05, remove=0)
    assert plan.kept.paths == (*wiring.of_kind("block"), *wiring.of_kind("head"))


def test_what_a_cut_says():
    """Where it is read is said as soon as there are exits."""
    wiring = full_wiring(3, 1, identities=[2, 3], exits=[1, 2, 3])
    gone = [block(2), HEAD, Path(3, 4, "exit"), proxy(0, 1), proxy(2, 3), proxy(1, 2)]
    plan = PrunePlan("route-0.250", wiring, wiring.without(gone))
    assert (
        plan.describe()
        == "2 of 3 blocks and 0 of 3 proxies stay, read by the exits after blocks 1, 2"
    )
    assert decide(WIRING, ALPHA, threshold=0.05, remove=0).describe() == (
        "3 of 3 blocks and 3 of 5 proxies stay"
    )
    lean = full_wiring(3, 0)
    assert PrunePlan("x", lean, lean).describe() == "3 of 3 blocks stay"


def test_faint_identities_and_exits_go_as_faint_proxies_do():
    wiring = full_wiring(2, 0, identities=[2], exits=[1])
    # block 1, block 2, identity 2, head, exit at x1
    alpha = [1.0, 0.6, 0.4, 0.8, 0.2]
    plan = decide(wiring, alpha, threshold=0.3, remove=0)
    assert plan.kept.paths == (block(1), block(2), Path(1, 2, "identity"), Path(2, 3, "head"))
    plan = decide(wiring, alpha, threshold=0.45, remove=1)
    # without both ways into x2 the head reads nothing: the strongest route left is kept
    assert plan.kept.paths == (block(1), Path(1, 2, "identity"), Path(2, 3, "head"))
    assert plan.restored == (Path(1, 2, "identity"),)


@pytest.mark.parametrize("remove", [-1, 4])
def test_out_of_range_is_refused(remove):
    with pytest.raises(ValueError, match="cannot remove"):
        decide(WIRING, ALPHA, threshold=0.05, remove=remove)


def test_weights_of_another_wiring_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        decide(WIRING, ALPHA[:-1], threshold=0.05, remove=0)


@st.composite
def students(draw: st.DrawFn) -> tuple[Wiring, list[float], float]:
    """A student of any size with any weights: fine ones, equal ones, rounded to 0 and to 1."""
    blocks = draw(st.integers(1, 7))
    beside = st.lists(st.integers(1, blocks), unique=True, max_size=3)
    skips = draw(st.sampled_from([1, 2, 3, "dense"]))
    wiring = full_wiring(blocks, skips, identities=draw(beside), exits=draw(beside))
    weight = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    alpha = draw(st.lists(weight, min_size=len(wiring.paths), max_size=len(wiring.paths)))
    return wiring, alpha, draw(st.floats(0, 0.999))


@given(drawn=students())
@settings(max_examples=150, deadline=None)
def test_properties_of_every_cut(drawn):
    wiring, alpha, threshold = drawn
    paths, weights = wiring.paths, list(alpha)
    weight = dict(zip(paths, alpha, strict=True))
    plans = [
        decide(wiring, alpha, threshold=threshold, remove=remove) for remove in range(wiring.depth)
    ]
    assert wiring.paths == paths
    assert alpha == weights
    for remove, plan in enumerate(plans):
        kept = set(plan.kept.paths)
        assert plan.name == f"remove-{remove:02d}"
        assert kept
        assert kept <= set(paths)
        assert closure(plan.kept) == plan.kept  # closed; not empty, so stem and head are joined
        # at least `remove` blocks are gone, and none that stays is less than one ranked out
        blocks = [path for path in wiring.of_kind("block") if path in kept]
        assert len(blocks) <= wiring.depth - 1 - remove
        ranked = sorted(weight[path] for path in wiring.of_kind("block"))
        assert all(weight[path] >= max(ranked[:remove], default=0) for path in blocks)
        # no proxy below the threshold but to join stem and head
        faint = {path for path in plan.kept.of_kind("proxy") if weight[path] < threshold}
        assert faint <= set(plan.restored)
        again = decide(wiring, alpha, threshold=threshold, remove=remove)
        assert again == plan
    for shallow, deep in itertools.pairwise(plans):
        # a deeper cut takes no path back, unless it must restore one to join stem and head
        if not deep.restored:
            assert not shallow.restored
            assert set(deep.kept.paths) <= set(shallow.kept.paths)
