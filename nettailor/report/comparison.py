"""All that a comparison says, before it is told in a terminal, a file or a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nettailor.core.config import RunConfig
from nettailor.core.printable import printable
from nettailor.report.methods import Method, group, notes, versions_in_words
from nettailor.report.runs import (
    LeftOut,
    find_runs,
    read_runs,
    require_one_task,
    require_settings,
)
from nettailor.report.verdict import Verdict, judge


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods in the order of tables, the verdict on them, and what could not be compared."""

    methods: tuple[Method, ...]
    verdict: Verdict
    notes: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def title(self) -> str:
        """The task and its image size."""
        example = self.methods[0].example
        return f"{printable(example.dataset)} at {example.image_size} px"

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What was compared and on what, as pairs of a name and a text."""
        runs = [run for method in self.methods for run in method.runs]
        example = runs[0]
        seeds = sorted({run.summary.seed for run in runs})
        images = {split: len(rows) for split, rows in example.predictions.items()}
        return [
            ("Task", f"{self.title}, {len(example.summary.classes)} classes"),
            ("Images", f"{images['val']:,} validation, {images['test']:,} test"),
            ("Backbone", ", ".join(sorted({printable(run.summary.backbone) for run in runs}))),
            ("Compared", f"{len(self.methods)} networks, {len(runs)} runs"),
            ("Seeds", ", ".join(map(str, seeds))),
            ("Latency on", ", ".join(sorted({printable(run.summary.device) for run in runs}))),
            ("Made with", printable(versions_in_words(self.methods))),
        ]


def require_comparable(folder: Path, config: RunConfig) -> None:
    """Check, before runs of these settings are trained, that those in the folder go with them.

    Raises UserError where the finished ones at this image size could not be compared, with each
    other or with those to come. There may be none.
    """
    runs = find_runs([folder], config.image_size)[0] if folder.is_dir() else []
    if runs:
        require_settings(runs, config)
        require_one_task(runs)
        group(runs)


def compare_folders(folders: Sequence[Path], image_size: int | None = None) -> Comparison:
    """Read, group and judge all runs under the folders, or those of one image size.

    Raises UserError where there is nothing to compare, or nothing that can be compared.
    """
    runs, left_out = read_runs(folders, image_size)
    methods = group(runs)
    return Comparison(tuple(methods), judge(methods), tuple(notes(methods)), tuple(left_out))
