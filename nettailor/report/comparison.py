"""All that a comparison says, before it is told in a terminal, a file or a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nettailor.core.printable import printable
from nettailor.report.methods import Method, group, notes, versions_in_words
from nettailor.report.runs import LeftOut, read_runs
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


def compare_folders(folders: Sequence[Path]) -> Comparison:
    """Read, group and judge all runs under the folders.

    Raises UserError where there is nothing to compare, or nothing that can be compared.
    """
    runs, left_out = read_runs(folders)
    methods = group(runs)
    return Comparison(tuple(methods), judge(methods), tuple(notes(methods)), tuple(left_out))
