"""Which part of a data set a folder holds, by its name."""

import re
from collections.abc import Iterable

_WORDS = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "dev", "devel", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
}
_PARTS = {word: part for part, words in _WORDS.items() for word in words}
# such as seg_train, Training Set, test-images, train2017
_NAME = re.compile(
    rf"(?P<before>.*[\W_])?(?P<word>{'|'.join(_PARTS)})"
    r"(?:[\W\d_]*(?:set|data|dataset|images?|imgs?|files|split|folder|part))*[\W\d_]*"
)


def parts_of(names: Iterable[str]) -> dict[str, str]:
    """The part (train, val or test) of each folder's name that is one of a part, in any case.

    A name with something before it, such as `seg_train`, is one of a part only beside another with
    the same: a lone `freight_train` may well be a class.
    """
    found = {name: match for name in names if (match := _NAME.fullmatch(name.lower()))}
    parts = {name: (match["before"] or "", _PARTS[match["word"]]) for name, match in found.items()}
    return {
        name: part
        for name, (before, part) in parts.items()
        if not before or any(before == beside and part != other for beside, other in parts.values())
    }
