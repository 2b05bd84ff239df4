"""Images that belong together, such as the frames of a film: known by their paths, parted whole."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold

from nettailor.core.errors import UserError
from nettailor.core.images import Images
from nettailor.core.printable import printable

_DRAWS = 200  # of groups at random, by each of the factors below
_FACTORS = (0.5, 1, 2)  # times the share of groups: few large ones, or many small ones, make it up
_MOST_FOLDS = 12  # a share is made of some of at most so many folds

Cut = NDArray[np.bool_]  # (groups,): those in the part
Group = str | bytes  # the text that is shared, or the file that is alone


@dataclass(frozen=True)
class Grouping:
    """What makes groups of files: the text that `pattern` (of `re`) finds in their paths.

    It is searched in each path below `folder`, with `/` as the separator. The text is the pattern's
    first group where it has one that takes part in the match, else the whole match; an empty text
    is none. Files with the same text are one group, a file without one is a group of its own.
    """

    pattern: str
    folder: Path

    def of(self, files: Iterable[bytes]) -> list[Group]:
        """The group of each file: its text, or the file itself."""
        return [self._text(file) or file for file in files]

    def _text(self, file: bytes) -> str | None:
        match = re.search(self.pattern, self._below(file))
        if match is None:
            return None
        first = match[1] if match.re.groups else None
        return match[0] if first is None else first

    def _below(self, file: bytes) -> str:
        below = os.fsdecode(file).removeprefix(str(self.folder))
        return below.replace(os.sep, "/").lstrip("/")

    def notes(self, parts: Mapping[str, Images]) -> tuple[str, ...]:
        """How many groups there are, and a warning for each two of the parts that share some.

        Raises UserError where the pattern matches no file.
        """
        members: dict[str, dict[Group, bytes]] = {}
        sizes: Counter[Group] = Counter()
        for part, images in parts.items():
            files = images.files.tolist()
            groups = self.of(files)
            sizes.update(groups)
            members[part] = dict(zip(groups, files, strict=True))
        alone = sum(isinstance(group, bytes) for group in sizes)
        if alone == sizes.total():
            example = printable(self._below(parts["train"].files[0]))
            raise UserError(
                f"split.group_by '{printable(self.pattern)}' matches none of the {alone:,} images, "
                f"such as {example}: give a regular expression that finds what a group shares"
            )
        lines = [
            f"group-by: {sizes.total():,} images in {len(sizes):,} groups, {alone:,} match nothing"
        ]
        for one, other in combinations(members, 2):
            shared = sorted(map(str, members[one].keys() & members[other].keys()))
            if shared:
                examples = (self._below(members[part][shared[0]]) for part in (one, other))
                lines.append(
                    f"warning: {one} and {other} share {len(shared):,} of the groups: what was "
                    f"learnt is asked again ({' and '.join(map(printable, examples))})"
                )
        return tuple(lines)


def grouped_split(
    labels: ArrayLike,
    groups: Sequence[Group],
    share: float,
    seed: int,
    classes: Sequence[str],
    parts: Sequence[str],
) -> dict[str, list[int]]:
    """The indices of the first part and of the last, in rising order; no group is in both.

    Sizes are promised only as far as groups allow: of many cuts by scikit-learn in which each class
    has a group in the last part, and one for every other part in the rest, the one is taken whose
    shares of the classes' images are nearest to `share`, in the mean over classes. With small
    groups that is about a group of each class; large ones, or few of a class, take it further.
    It is a function of the arguments, for one version of scikit-learn.

    Args:
        labels: class index of each of N images.
        groups: the group of each.
        share: of the last part, in (0, 1).
        seed: 0..2**32-1.
        classes: names by index, for messages.
        parts: all that are still to be made of the images; the last one is cut off.

    Raises UserError where a class has fewer groups than there are parts, or no cut was found.
    """
    codes: dict[Group, int] = {}
    of_image = np.array([codes.setdefault(group, len(codes)) for group in groups])
    found = np.asarray(labels, dtype=np.int64)
    images = np.bincount(found, minlength=len(classes))
    pairs = np.unique(np.stack([of_image, found]), axis=1)
    in_class = np.bincount(pairs[1], minlength=len(classes))
    poorest = int(in_class.argmin())
    if in_class[poorest] < len(parts):
        raise UserError(
            f"class {classes[poorest]!r} has {in_class[poorest]} of the groups that split.group_by "
            f"makes, expected at least {len(parts)} to share among {', '.join(parts)}: give a "
            "pattern that makes smaller groups, add images, or leave the class out"
        )

    def distance(cut: Cut) -> float:
        """In the mean over classes; infinite where a class lacks a group on one side."""
        inside = np.bincount(pairs[1][cut[pairs[0]]], minlength=len(classes))
        if inside.min() < 1 or (in_class - inside).min() < len(parts) - 1:
            return np.inf
        held = np.bincount(found[cut[of_image]], minlength=len(classes))
        return float(np.abs(held / images - share).mean())

    nearest, chosen = np.inf, None
    for off, cuts in _cuts(found, of_image, share, seed):
        if nearest <= off:
            break
        for cut in cuts():
            if (away := distance(cut)) < nearest:
                nearest, chosen = away, cut[of_image]
    if chosen is not None:
        inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)
        return {parts[0]: outside.tolist(), parts[-1]: inside.tolist()}
    raise UserError(
        f"found no way to give each of {', '.join(parts)} a group of every class: the groups that "
        "split.group_by makes hold several classes, some of them in few groups; give a pattern "
        "that makes smaller groups, or add images"
    )


def _cuts(
    labels: NDArray[np.int64], groups: NDArray[np.int64], share: float, seed: int
) -> Iterator[tuple[float, Callable[[], Iterator[Cut]]]]:
    """Makers of cuts, and how far off the share these are where all groups are small, in order.

    Random draws of groups come nearest where some are large. StratifiedGroupKFold spreads every
    class, however rare, and some of its folds make up about the share.
    """
    count = int(groups.max()) + 1

    def as_cut(images: NDArray[np.int64]) -> Cut:
        cut = np.zeros(count, dtype=np.bool_)
        cut[groups[images]] = True
        return cut

    def draws() -> Iterator[Cut]:
        for factor in _FACTORS:
            drawn = min(max(round(factor * share * count), 1), count - 1)
            splitter = GroupShuffleSplit(_DRAWS, test_size=drawn, random_state=seed)
            for _, images in splitter.split(labels, labels, groups):
                yield as_cut(images)

    def folds(part: int, whole: int) -> Iterator[Cut]:
        splitter = StratifiedGroupKFold(whole, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a class rarer than the folds
            held = [images for _, images in splitter.split(labels, labels, groups)]
        for first in range(whole):
            yield as_cut(np.concatenate([held[(first + i) % whole] for i in range(part)]))

    yield 0, draws
    most = min(_MOST_FOLDS, count, int(np.bincount(labels).max()))
    shares = {Fraction(part, whole) for whole in range(2, most + 1) for part in range(1, whole)}
    for near in sorted(shares, key=lambda near: (abs(near - share), near)):
        yield float(abs(near - share)), partial(folds, near.numerator, near.denominator)
