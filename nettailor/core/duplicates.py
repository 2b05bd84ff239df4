"""The same file in several parts, or in several classes."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from nettailor.core.data import PARTS, Task
from nettailor.core.printable import some

_SHOWN = 3


def duplicates(task: Task) -> Iterator[str]:
    """A warning where files of one content lie in different parts, and one for classes.

    What lies in training and in validation or the test is known by heart there, and what has two
    classes cannot be learnt. Only files of one size are compared.
    """
    by_size: defaultdict[int, list[tuple[Path, str, str]]] = defaultdict(list)
    for part in PARTS:
        images = getattr(task, part)
        paths = [Path(os.fsdecode(file)) for file in images.files.tolist()]
        for file, label in zip(paths, images.labels.tolist(), strict=bool(paths)):
            by_size[file.stat().st_size].append((file, part, task.classes[label]))
    by_content: defaultdict[bytes, list[tuple[Path, str, str]]] = defaultdict(list)
    for alike in by_size.values():
        if len(alike) > 1:
            for one in alike:
                by_content[hashlib.sha256(one[0].read_bytes()).digest()].append(one)
    for place, what in ((1, "parts: what was learnt is asked again"), (2, "classes")):
        groups = [same for same in by_content.values() if len({one[place] for one in same}) > 1]
        if groups:
            files = (" = ".join(f"{one[0].parent.name}/{one[0].name}" for one in same[:2])
                     for same in groups)  # fmt: skip
            yield (
                f"warning: {sum(map(len, groups)):,} files are the same as others in different "
                f"{what} ({some(files, _SHOWN)})"
            )
