"""Groups of images, which no two parts share: how they are found, parted, recorded and refused."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import refused
from shell import SMALL, run_of
from task_folders import files_of, load, picture, sizes, tree

from nettailor.cli import tailor, teach
from nettailor.core.data import PARTS, Task
from nettailor.core.flags import parse
from nettailor.core.groups import Grouping, grouped_split

FEW = (*SMALL, "--batch-size", "8")
THREE = ("train", "val", "test")


def films(root: Path, frames: dict[str, dict[str, int]]) -> Path:
    """For each class so many frames of each film, as `<class>/<film>_<number>.png`."""
    shade = 0
    for label, lengths in frames.items():
        for film, length in lengths.items():
            for number in range(length):
                picture(root / label / f"{film}_{number}.png", (shade % 256, shade // 256, 0))
                shade += 1
    return root


def plain(root: Path) -> Path:
    """Two classes of ten films of four frames each."""
    return films(
        root, {label: {f"{label}{film}": 4 for film in range(10)} for label in ("cat", "dog")}
    )


def parts_by_film(task: Task) -> dict[str, set[str]]:
    """The parts in which each film lies."""
    found: dict[str, set[str]] = {}
    for part in PARTS:
        for file in files_of(task, part):
            found.setdefault(file.name.partition("_")[0], set()).add(part)
    return found


# --- what makes a group ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"p\d", ["p1", "p1", "p2", None]),  # the whole match
        (r"(p\d)_\d", ["p1", "p1", "p2", None]),  # its first group
        (r"^[^/]+", ["cat", "dog", "cat", "dog"]),  # the folder below the data
        (r"(p1)|p2", ["p1", "p1", "p2", None]),  # a first group that takes no part
        (r"z*", [None] * 4),  # matches nothing, everywhere
        (r"_(\d*)", ["0", "7", "0", "7"]),
    ],
)
def test_the_text_that_makes_a_group(pattern, groups):
    names = ["cat/p1_0.png", "dog/p1_7.png", "cat/p2_0.png", "dog/x_7.png"]
    files = [b"/p9/data/" + name.encode() for name in names]
    found = Grouping(pattern, Path("/p9/data")).of(files)
    assert found == [group or file for group, file in zip(groups, files, strict=True)]


# --- parts ----------------------------------------------------------------------------------------


def test_equal_films_are_cut_by_hand(tmp_path):
    """Of ten films a class two make the test, of the eight left two validation."""
    task = load(plain(tmp_path), group_by=r"([^/]+)_\d+\.png$")
    assert sizes(task) == (48, 16, 16)
    assert [Counter(getattr(task, part).labels) for part in PARTS] == [
        {0: 24, 1: 24}, {0: 8, 1: 8}, {0: 8, 1: 8},
    ]  # fmt: skip
    assert {len(parts) for parts in parts_by_film(task).values()} == {1}
    assert task.origins == {
        "val": "cut from train: 25 %, in whole groups",
        "test": "cut from train: 20 %, in whole groups",
    }
    assert task.notes == ("group-by: 80 images in 20 groups, 0 match nothing",)
    task = load(tmp_path, group_by=r"([^/]+)_", limit_train=40, limit_test=6)
    assert (len(task.train) + len(task.val), len(task.test)) == (40, 6)
    assert {len(parts) for parts in parts_by_film(task).values()} == {1}
    seeds = (load(tmp_path, group_by=r"([^/]+)_", split_seed=seed) for seed in range(4))
    assert len({tuple(files_of(task, "test")) for task in seeds}) == 4


def test_without_a_pattern_films_are_torn_and_the_split_is_as_ever(tmp_path):
    task = load(tree(tmp_path / "x", {"a": 6, "b": 6}))
    assert [[f"{file.parent.name}{int(file.stem)}" for file in files_of(task, part)]
            for part in PARTS] == [
        ["a0", "a1", "a3", "a5", "b1", "b2", "b3", "b5"], ["a2", "b4"], ["a4", "b0"],
    ]  # fmt: skip
    task = load(plain(tmp_path / "y"))
    assert max(len(parts) for parts in parts_by_film(task).values()) > 1
    assert task.notes == ()


def test_a_film_of_several_classes_stays_whole(tmp_path):
    frames = {f"film{number}": 3 for number in range(12)}
    films(tmp_path, {"cat": frames, "dog": frames})
    task = load(tmp_path, group_by=r"film\d+", val_fraction=1 / 3, test_fraction=0.25)
    assert {len(parts) for parts in parts_by_film(task).values()} == {1}
    assert sizes(task) == (36, 18, 18)  # six films of six pictures, three and three


def test_files_that_match_nothing_are_parted_one_by_one(tmp_path):
    """Three films of four, and eight single pictures a class: 20 of 40 for the test is a half."""
    frames = {"cat": {f"c{n}": 4 for n in range(3)}, "dog": {f"d{n}": 4 for n in range(3)}}
    for label, lengths in frames.items():
        films(tmp_path, {label: lengths | {f"single{n}": 1 for n in range(8)}})
    task = load(tmp_path, group_by=r"/([cd]\d)_", test_fraction=0.5)
    assert task.notes == ("group-by: 40 images in 22 groups, 16 match nothing",)
    assert sizes(task)[2] == 20
    singles = {name: parts for name, parts in parts_by_film(task).items() if "single" in name}
    assert set.union(*singles.values()) == set(PARTS)


def test_large_groups_do_not_pull_the_shares_away():
    """A film of 60 and four of 10 in each class: 20 % are two of the short ones."""
    lengths = [60, 10, 10, 10, 10] * 2
    groups = [f"{film}" for film, length in enumerate(lengths) for _ in range(length)]
    labels = [int(group) // 5 for group in groups]
    for seed in range(5):
        parts = grouped_split(labels, groups, 0.2, seed, ["cat", "dog"], ("train", "test"))
        assert Counter(labels[index] for index in parts["test"]) == {0: 20, 1: 20}


def test_classes_of_three_films_reach_all_three_parts(tmp_path):
    """However small the shares: each of ten classes has one film for each part."""
    names = [f"class{number}" for number in range(10)]
    frames = {name: {f"{name}film{film}": 4 for film in range(3)} for name in names}
    task = load(
        films(tmp_path, frames), group_by=r"class\dfilm\d", val_fraction=0.1, test_fraction=0.1
    )
    assert sizes(task) == (40, 40, 40)
    for part in PARTS:
        assert Counter(getattr(task, part).labels) == dict.fromkeys(range(10), 4)


@st.composite
def grouped(draw: st.DrawFn) -> tuple[list[int], list[str]]:
    """Groups of one to six images, each of one or two of three classes, some in every class."""
    labels, groups = [], []
    for number in range(draw(st.integers(12, 40))):
        pair = (number % 3, draw(st.integers(0, 2)))
        for index in range(draw(st.integers(1, 6))):
            labels.append(pair[index % 2])
            groups.append(f"g{number}")
    return labels, groups


@settings(max_examples=40, deadline=None)
@given(
    images=grouped(), share=st.sampled_from([0.1, 0.2, 0.3, 0.45]), seed=st.integers(0, 2**32 - 1)
)
def test_a_cut_is_a_partition_by_groups_with_every_class_in_each_part(images, share, seed):
    labels, groups = images
    parts = grouped_split(labels, groups, share, seed, "abc", THREE)
    assert list(parts) == ["train", "test"]
    assert sorted(parts["train"] + parts["test"]) == list(range(len(labels)))
    held = {part: {groups[index] for index in indices} for part, indices in parts.items()}
    assert held["train"].isdisjoint(held["test"])
    for part, indices in parts.items():
        assert indices == sorted(indices)
        assert {labels[index] for index in indices} == {0, 1, 2}
        assert part != "train" or all(
            len({groups[index] for index in indices if labels[index] == label}) > 1
            for label in range(3)
        ), "validation needs one of its own"
    assert parts == grouped_split(labels, groups, share, seed, "abc", THREE)


@pytest.mark.parametrize("share", [0.01, 0.07, 1 / 3, 0.4, 0.9])
def test_any_share_is_met_to_half_a_group(share):
    """Of 2 x 50 groups of two images; each side keeps a group of each class at least."""
    groups = [f"{index // 2}" for index in range(200)]
    labels = [index // 100 for index in range(200)]
    parts = grouped_split(labels, groups, share, 3, ["cat", "dog"], ("train", "test"))
    held = Counter(labels[index] for index in parts["test"])
    for label in (0, 1):
        assert abs(held[label] - 100 * share) <= 2
        assert 2 <= held[label] <= 98


# --- parts that are there -------------------------------------------------------------------------


def test_a_group_that_lies_in_two_parts_is_warned_about(tmp_path):
    films(tmp_path / "train", {"cat": {"c1": 4, "c2": 4}, "dog": {"d1": 4, "d2": 4}})
    films(tmp_path / "test", {"cat": {"c2": 2, "c3": 2}, "dog": {"d1": 1, "d3": 2}})
    task = load(tmp_path, group_by=r"([^/]+)_", val_fraction=0.5)
    assert task.notes[0] == "group-by: 23 images in 6 groups, 0 match nothing"
    assert re.fullmatch(
        r"warning: train and test share 2 of the groups: what was learnt is asked again "
        r"\(train/cat/c2_\d\.png and test/cat/c2_\d\.png\)",
        task.notes[1],
    )
    assert sizes(task) == (8, 8, 7)
    assert not any({"train", "val"} <= parts for parts in parts_by_film(task).values())


def test_parts_that_are_there_are_taken_as_they_are(tmp_path):
    for part in THREE:
        films(tmp_path / part, {"cat": {f"{part}c": 2}, "dog": {f"{part}d": 2}})
    task = load(tmp_path, group_by=r"([^/]+)_")
    assert sizes(task) == (4, 4, 4)
    assert task.notes == ("group-by: 12 images in 6 groups, 0 match nothing",)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "pattern", "message"),
    [
        (None, "zebra", r"split\.group_by 'zebra' matches none of the 80 images, such as "
                        r"cat/cat0_0\.png: give a regular expression that finds what a group sh"),
        (None, "cat", r"class 'cat' has 1 of the groups that split\.group_by makes, expected at "
                      r"least 3 to share among train, val, test: give a pattern that makes small"),
        (None, r"/(cat\d|dog0)?", r"class 'dog' has 2 of the groups"),
        *((data, "x", f"data is '{data}', expected a folder of images, in whose")
          for data in ("digits", "Digits", "cifar10", "Flowers102")),
    ],
)  # fmt: skip
def test_a_pattern_that_does_not_fit(tmp_path, data, pattern, message):
    with refused(message):
        load(data or plain(tmp_path), group_by=pattern)


@pytest.mark.parametrize("pattern", ["(", "[a", "a{99999999999999999999}", "(?P<x", "*"])
def test_what_is_no_regular_expression(pattern):
    with refused(r"^settings: split\.group_by = .*is no regular ex"):
        parse("teach", "", ["--split.group-by", pattern])


def test_groups_that_are_tied_too_closely():
    """Two groups a class, each two sharing one: whichever is cut, a class lies on one side only."""
    labels, groups = [0, 0, 1, 1, 2, 2], ["p", "q", "q", "r", "r", "p"]
    with refused("no way to give each of train, test a group of every cl"):
        grouped_split(labels, groups, 0.3, 0, ["a", "b", "c"], ("train", "test"))


@pytest.mark.parametrize("pattern", [r"[^/]+(?=_)", r"&\d", r"[{2}]x", "1e3", "true", "%"])
def test_a_pattern_is_taken_as_it_is_written(pattern):
    """Not as YAML, in which many mean something else."""
    assert parse("teach", "", ["--split.group-by", pattern])[0].split.group_by == pattern
    assert parse("teach", "", ["--split.group-by", "null"])[0].split.group_by is None


# --- runs -----------------------------------------------------------------------------------------


def test_a_run_is_held_to_its_pattern(shell, tmp_path, capsys):
    data = ("--data", str(plain(tmp_path / "films")))
    grouped_by = ("--split.group-by", r"([^/]+)_\d+\.png$")
    teach.main([*FEW, *data, *grouped_by, "--out", str(shell.out)])
    shown = capsys.readouterr().out
    assert shown.count("group-by: 80 images in 20 groups, 0 match nothing\n") == 1
    assert "cut from train: 20 %, in whole groups" in shown
    run = run_of(shell, "films")
    recorded = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert recorded["split"]["group_by"] == grouped_by[1]
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["images"]["test"] == {
        "images": 16, "smallest": 8, "from": "cut from train: 20 %, in whole groups",
    }  # fmt: skip
    assert shell(*FEW, *data, *grouped_by)[0] == 0
    for others in ((), ("--split.group-by", "cat\\d|dog\\d")):
        assert "holds a run of other settings: split.group_by is '(" in shell.refusal(
            *FEW, *data, *others
        )
        refusal = shell.refusal(*FEW, *data, *others, main=tailor.main)
        assert "is of another task: split.group_by is '(" in refusal


def test_a_run_from_before_there_were_groups_goes_on(shell, tmp_path):
    """Its settings do not have the key; that is the same as none."""
    data = ("--data", str(plain(tmp_path / "films")))
    assert shell(*FEW, *data)[0] == 0
    path = run_of(shell, "films") / "config.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    del content["split"]["group_by"]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert shell(*FEW, *data)[0] == 0
    assert shell(*FEW, *data, "--dry-run", main=tailor.main)[0] == 0
    assert "split.group_by is 'absent' there and 'cat" in shell.refusal(
        *FEW, *data, "--split.group-by", r"cat\d|dog\d"
    )
