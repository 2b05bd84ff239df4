"""Stratified splits and subsets: sizes, classes, seeds, and what is refused."""

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nettailor.core.errors import UserError
from nettailor.core.split import require_for_parts, stratified_split, stratified_subset

THREE = {"train": 0.6, "val": 0.2, "test": 0.2}


@st.composite
def labelled(draw: st.DrawFn) -> list[int]:
    """Shuffled labels of 2 to 6 classes with 3 to 40 images each."""
    counts = draw(st.lists(st.integers(3, 40), min_size=2, max_size=6))
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return draw(st.permutations(labels))


@st.composite
def three_shares(draw: st.DrawFn) -> dict[str, float]:
    val, test = draw(st.floats(0.02, 0.9)), draw(st.floats(0.02, 0.9))
    assume(val + test < 0.98)
    return {"train": 1 - val - test, "val": val, "test": test}


@settings(max_examples=60, deadline=None)
@given(labels=labelled(), fractions=three_shares(), seed=st.integers(0, 2**32 - 1))
def test_parts_are_a_partition_with_every_class_in_each(labels, fractions, seed):
    parts = stratified_split(labels, fractions, seed)
    assert list(parts) == ["train", "val", "test"]
    joined = [index for part in parts.values() for index in part]
    assert sorted(joined) == list(range(len(labels)))
    for part in parts.values():
        assert part == sorted(part)
        assert {labels[index] for index in part} == set(labels)
    assert parts == stratified_split(labels, fractions, seed)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(20, 60), min_size=2, max_size=5),
    fraction=st.floats(0.1, 0.5),
    seed=st.integers(0, 2**32 - 1),
)
def test_sizes_are_exact_and_shares_kept_where_no_class_is_rare(counts, fraction, seed):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    parts = stratified_split(labels, {"train": 1 - fraction, "val": fraction}, seed)
    assert len(parts["val"]) == round(fraction * len(labels))
    held = Counter(labels[index] for index in parts["val"])
    for label, count in enumerate(counts):
        assert abs(held[label] - fraction * count) < 2


def test_equal_classes_are_cut_by_hand():
    parts = stratified_split([0] * 10 + [1] * 10, THREE, seed=5)
    assert {part: len(indices) for part, indices in parts.items()} == {
        "train": 12,
        "val": 4,
        "test": 4,
    }
    for part, each in (("train", 6), ("val", 2), ("test", 2)):
        assert sum(index < 10 for index in parts[part]) == each


def test_rare_class_reaches_every_part():
    labels = [0] * 1000 + [1] * 3
    for seed in range(10):
        parts = stratified_split(labels, {"train": 0.98, "val": 0.01, "test": 0.01}, seed)
        assert all(sum(labels[i] for i in part) == 1 for part in parts.values())


def test_seed_chooses_the_images():
    labels = [0, 1] * 30
    assert stratified_split(labels, THREE, 0) != stratified_split(labels, THREE, 1)


def test_split_of_a_seed_stays_as_it_is():
    parts = stratified_split([0, 1, 0, 1, 0, 1, 0, 1, 0, 1], {"train": 0.6, "val": 0.4}, seed=0)
    assert parts == {"train": [0, 3, 4, 5, 6, 7], "val": [1, 2, 8, 9]}


@pytest.mark.parametrize(
    ("classes", "named"), [(["cat", "dog"], r"class 'dog'"), (None, r"class 1")]
)
def test_class_with_too_few_images_is_named(classes, named):
    with pytest.raises(UserError, match=named + r" has 2 of the 7 images.*at least 3 .*val, test"):
        stratified_split([0, 0, 0, 0, 0, 1, 1], THREE, 0, classes)


def test_class_without_images_is_named():
    with pytest.raises(UserError, match="class 'owl' has 0 of the 4 images"):
        require_for_parts([0, 0, 1, 1], ["train", "val"], ["cat", "dog", "owl"])


def test_no_images_at_all():
    with pytest.raises(UserError, match="no images to share among train, val"):
        require_for_parts([], ["train", "val"])


@settings(max_examples=60, deadline=None)
@given(labels=labelled(), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_subset_has_the_count_every_class_and_nests(labels, seed, data):
    least = len(set(labels))
    small = data.draw(st.integers(least, len(labels)))
    large = data.draw(st.integers(small, len(labels)))
    chosen = stratified_subset(labels, small, seed)
    assert len(chosen) == len(set(chosen)) == small
    assert chosen == sorted(chosen)
    assert {labels[index] for index in chosen} == set(labels)
    assert set(chosen) <= set(stratified_subset(labels, large, seed))


def test_subset_keeps_shares():
    labels = [0] * 90 + [1] * 30
    held = Counter(labels[index] for index in stratified_subset(labels, 40, seed=3))
    assert abs(held[0] - 30) <= 1


def test_subset_larger_than_the_set_is_the_set():
    assert stratified_subset([1, 0, 1], 9, seed=0) == [0, 1, 2]


def test_subset_smaller_than_the_classes():
    with pytest.raises(UserError, match="limit of 2 images is below the 3 classes"):
        stratified_subset([0, 1, 2, 2], 2, seed=0)
