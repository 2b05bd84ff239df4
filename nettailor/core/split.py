"""Which images go to which part: stratified, by a seed of its own.

scikit-learn's stratified splitters refuse a class with fewer than two images left and may leave a
rare class out of a part, so the images are ordered here instead: in the stratified order every
stretch holds each class in its share, and a part is a stretch.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nettailor.core.errors import UserError


def require_for_parts(
    labels: ArrayLike, parts: Iterable[str], classes: Sequence[str] | None = None
) -> None:
    """Check that each class has an image for each part.

    labels: class index of each image. classes: the names by index; without them the classes are
    the indices found. Raises UserError that names the poorest class and its number of images.
    """
    found, names = np.asarray(labels, dtype=np.int64), list(parts)
    counts = np.bincount(found, minlength=len(classes or ()))
    indices = np.arange(len(counts)) if classes is not None else np.unique(found)
    if not len(indices):
        raise UserError(f"no images to share among {', '.join(names)}: give some images")
    poorest = int(indices[counts[indices].argmin()])
    if counts[poorest] < len(names):
        raise UserError(
            f"class {classes[poorest] if classes is not None else poorest!r} has "
            f"{counts[poorest]} of the {len(found)} images, expected at least {len(names)} to "
            f"share among {', '.join(names)}: add images of it, leave the class out or lift the "
            "limit on images"
        )


def stratified_split(
    labels: ArrayLike,
    fractions: Mapping[str, float],
    seed: int,
    classes: Sequence[str] | None = None,
) -> dict[str, list[int]]:
    """The indices of each part, in rising order; a pure function of the arguments.

    labels: class index of each image, N of them. fractions: part name to its share in (0, 1);
    they sum to 1. seed: 0..2**32-1. classes: names by index, for messages and to catch a class
    with no image at all.

    A part after the first has round(fraction * N) images and the first has the rest; a class too
    rare for its share to reach one image still gets one in every part, taken from the part that
    has most of it. Raises UserError where a class has fewer images than there are parts.
    """
    require_for_parts(labels, fractions, classes)
    found = np.asarray(labels, dtype=np.int64)
    order = _stratified_order(found, seed)
    first, *others = fractions
    sizes = [round(fractions[part] * len(order)) for part in others]
    stretches = np.split(order, np.cumsum(sizes))
    held: dict[str, dict[int, list[int]]] = {part: defaultdict(list) for part in fractions}
    for part, stretch in zip([*others, first], stretches, strict=True):
        for index, label in zip(stretch.tolist(), found[stretch].tolist(), strict=True):
            held[part][label].append(index)
    for label in np.unique(found).tolist():
        for part in fractions:
            if not held[part][label]:
                donor = max(fractions, key=lambda name: len(held[name][label]))
                held[part][label].append(held[donor][label].pop())
    return {part: sorted(chain.from_iterable(held[part].values())) for part in fractions}


def stratified_subset(labels: ArrayLike, count: int, seed: int) -> list[int]:
    """Indices, in rising order, of `count` images that keep the classes' shares.

    Every class found in labels is in it, and a smaller subset of the same seed lies inside a
    larger one. All indices where count >= N. seed: 0..2**32-1.
    Raises UserError where count is below the number of classes.
    """
    found = np.asarray(labels, dtype=np.int64)
    order = _stratified_order(found, seed)
    firsts = np.unique(found[order], return_index=True)[1]
    if count < len(firsts):
        raise UserError(
            f"a limit of {count} images is below the {len(firsts)} classes: "
            f"give at least {len(firsts)}"
        )
    return sorted(np.concatenate([order[firsts], np.delete(order, firsts)])[:count].tolist())


def _stratified_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A random order of the indices in which every stretch holds each class in its share."""
    # RandomState, since NumPy promises that its streams never change; those of Generator may.
    shuffled: NDArray[np.int64] = np.random.RandomState(seed).permutation(len(labels))
    by_class = np.argsort(labels[shuffled], kind="stable")
    members = np.unique(labels, return_counts=True)[1]
    before = np.repeat(np.cumsum(members) - members, members)
    place = np.empty(len(labels))
    place[by_class] = (np.arange(len(labels)) - before + 0.5) / np.repeat(members, members)
    return shuffled[np.argsort(place, kind="stable")]
