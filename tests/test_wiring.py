"""Which paths there are, in which order, and their way through JSON."""

import json

import pytest

from nettailor.student.wiring import Path, Wiring, full_wiring


@pytest.mark.parametrize(
    ("skips", "proxies"),
    [
        # one into each of 5 nodes
        (1, 5),
        # min(l, 3) into node l: 1 + 2 + 3 + 3 + 3
        (3, 12),
        # l into node l: 1 + 2 + 3 + 4 + 5
        ("dense", 15),
        # more skips than nodes are no more than dense
        (9, 15),
    ],
)
def test_counts_by_hand(skips, proxies):
    wiring = full_wiring(5, skips)
    assert len(wiring.of_kind("block")) == 5
    assert len(wiring.of_kind("proxy")) == proxies
    assert wiring.of_kind("head") == (Path(5, 6, "head"),)
    assert wiring.depth == 6
    assert len(wiring.paths) == 5 + proxies + 1


def test_order_of_all_kinds_by_hand():
    """By target, then block, identity, proxy, head, exit, then by source."""
    assert full_wiring(3, 2, identities=[3, 2], exits=[3, 1]).paths == (
        Path(0, 1, "block"),
        Path(0, 1, "proxy"),
        Path(1, 2, "block"),
        Path(1, 2, "identity"),
        Path(0, 2, "proxy"),
        Path(1, 2, "proxy"),
        Path(2, 3, "block"),
        Path(2, 3, "identity"),
        Path(1, 3, "proxy"),
        Path(2, 3, "proxy"),
        Path(3, 4, "head"),
        Path(1, 4, "exit"),
        Path(3, 4, "exit"),
    )


def test_order_does_not_depend_on_how_paths_are_given():
    whole = full_wiring(4, 3, identities=[1, 3], exits=[2, 4])
    assert Wiring(5, whole.paths[::-1]) == whole
    assert Wiring(5, whole.paths[::-1]).paths == whole.paths


def test_grouping_by_hand():
    wiring = full_wiring(3, 2)
    assert wiring.incoming == ((), (0, 1), (2, 3, 4), (5, 6, 7), (8,))
    assert wiring.outgoing == ((0, 1, 3), (2, 4, 6), (5, 7), (8,), ())
    assert full_wiring(2, 1, exits=[1]).incoming == ((), (0, 1), (2, 3), (4, 5))
    assert full_wiring(2, 1, exits=[1]).outgoing == ((0, 1), (2, 3, 5), (4,), ())


def test_without_leaves_the_others_in_order():
    wiring = full_wiring(3, 1)
    smaller = wiring.without([Path(1, 2, "block"), Path(0, 1, "proxy")])
    assert smaller.depth == 4
    assert smaller.paths == (
        Path(0, 1, "block"),
        Path(1, 2, "proxy"),
        Path(2, 3, "block"),
        Path(2, 3, "proxy"),
        Path(3, 4, "head"),
    )
    assert len(wiring.paths) == 7


def test_keys_are_unique_and_free_of_dots():
    nodes = range(1, 7)
    keys = [path.key for path in full_wiring(6, "dense", identities=nodes, exits=nodes).paths]
    assert len(keys) == 6 + 6 + 21 + 1 + 6
    assert len(set(keys)) == len(keys)
    assert not any("." in key for key in keys)  # a module's name may hold none
    assert Path(2, 5, "proxy").key == "proxy-2-5"
    assert Path(6, 7, "head").key == "head-6-7"


@pytest.mark.parametrize("beside", [[], [1, 4, 5]])
@pytest.mark.parametrize("skips", [1, 3, "dense"])
def test_json_round_trip(skips, beside):
    wiring = full_wiring(5, skips, identities=beside, exits=beside)
    rows = json.loads(json.dumps(wiring.to_json()))
    assert Wiring.from_json(6, rows) == wiring
    assert rows[0] == [0, 1, "block"]
    assert ([5, 6, "exit"] if beside else [5, 6, "head"]) == rows[-1]


def test_kinds_that_lead_to_the_logits():
    """Of three nodes, number 3 is the logits: the head from the node before, exits from any."""
    for path in (Path(2, 3, "head"), *(Path(source, 3, "exit") for source in (0, 1, 2))):
        assert Wiring(3, (path,)).paths == (path,)


@pytest.mark.parametrize(
    "row",
    [
        [0, 1], [0, 1, "block", 2], [0, 1, "bridge"], [0, 1, "Block"], [0, 1, ""], [0, 1, None],
        [0, 1, 0], ["0", 1, "block"], [0.0, 1, "block"], [False, True, "block"], [1, 0, "proxy"],
        [1, 1, "proxy"], [-1, 1, "proxy"], [2, 4, "proxy"], [0, 2, "block"], [0, 2, "identity"],
        [0, 3, "head"], [1, 2, "exit"], [2, 3, "block"], [2, 3, "proxy"], [0, None, "proxy"],
        [1, 3, "head"], [1, 2, "head"], [2, 3, "identity"],
    ],
)  # fmt: skip
def test_bad_rows_are_refused(row):
    message = r"is no \[source|does not lead|leads from a node to the next|heads and exits, and"
    with pytest.raises(ValueError, match=message):
        Wiring.from_json(3, [[0, 1, "block"], row])


def test_a_path_listed_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Wiring.from_json(3, [[0, 1, "block"], [0, 1, "block"]])
