"""Which paths there are, in which order, and their way through JSON."""

import json

import pytest

from student.wiring import Path, Wiring, full_wiring


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
def test_counts_by_hand(skips: object, proxies: int) -> None:
    wiring = full_wiring(5, skips)  # type: ignore[arg-type]
    assert len(wiring.of_kind("block")) == 5
    assert len(wiring.of_kind("proxy")) == proxies
    assert len(wiring.paths) == 5 + proxies


def test_order_by_hand() -> None:
    assert full_wiring(3, 2).paths == (
        Path(0, 1, "block"),
        Path(0, 1, "proxy"),
        Path(1, 2, "block"),
        Path(0, 2, "proxy"),
        Path(1, 2, "proxy"),
        Path(2, 3, "block"),
        Path(1, 3, "proxy"),
        Path(2, 3, "proxy"),
    )


def test_order_does_not_depend_on_how_paths_are_given() -> None:
    whole = full_wiring(4, 3)
    assert Wiring(4, whole.paths[::-1]) == whole
    assert Wiring(4, whole.paths[::-1]).paths == whole.paths


def test_grouping_by_hand() -> None:
    wiring = full_wiring(3, 2)
    assert wiring.incoming == ((), (0, 1), (2, 3, 4), (5, 6, 7))
    assert wiring.outgoing == ((0, 1, 3), (2, 4, 6), (5, 7), ())


def test_without_leaves_the_others_in_order() -> None:
    wiring = full_wiring(3, 1)
    smaller = wiring.without([Path(1, 2, "block"), Path(0, 1, "proxy")])
    assert smaller.depth == 3
    assert smaller.paths == (
        Path(0, 1, "block"),
        Path(1, 2, "proxy"),
        Path(2, 3, "block"),
        Path(2, 3, "proxy"),
    )
    assert len(wiring.paths) == 6


def test_keys_are_unique_and_free_of_dots() -> None:
    keys = [path.key for path in full_wiring(6, "dense").paths]
    assert len(set(keys)) == len(keys)
    assert not any("." in key for key in keys)  # a module's name may hold none
    assert Path(2, 5, "proxy").key == "proxy-2-5"


@pytest.mark.parametrize("skips", [1, 3, "dense"])
def test_json_round_trip(skips: object) -> None:
    wiring = full_wiring(5, skips)  # type: ignore[arg-type]
    rows = json.loads(json.dumps(wiring.to_json()))
    assert Wiring.from_json(5, rows) == wiring
    assert rows[0] == [0, 1, "block"]


@pytest.mark.parametrize(
    "row",
    [
        [0, 1],
        [0, 1, "block", 2],
        [0, 1, "bridge"],
        ["0", 1, "block"],
        [0.0, 1, "block"],
        [False, True, "block"],
        [1, 0, "proxy"],
        [1, 1, "proxy"],
        [-1, 1, "proxy"],
        [2, 4, "proxy"],
        [0, 2, "block"],
        [0, None, "proxy"],
    ],
)
def test_bad_rows_are_refused(row: list[object]) -> None:
    with pytest.raises(ValueError, match=r"is no \[source|does not lead|a block leads"):
        Wiring.from_json(3, [[0, 1, "block"], row])  # type: ignore[list-item]


def test_a_path_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Wiring.from_json(3, [[0, 1, "block"], [0, 1, "block"]])
