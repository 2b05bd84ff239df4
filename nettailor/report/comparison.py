"""All runs of a comparison in one table: a row per run, a column per figure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from nettailor.core.config import EXECUTION_KEYS, METHODS, RunConfig
from nettailor.core.errors import UserError
from nettailor.core.faults import shown
from nettailor.core.printable import printable
from nettailor.core.resize import at_side
from nettailor.core.run_folder import KINDS
from nettailor.report.runs import (
    LeftOut,
    Run,
    read_runs,
    require_one_task,
    require_settings,
)

# what a run was asked for beside itself, or anew in each run of a method; runs of other data are
# refused, and its spelling says nothing
_NO_SETTING = {
    "seed", "data", "backbone", "eliminate.top", "eliminate.references", "knapsack.of",
    "search.trials", *EXECUTION_KEYS,
}  # fmt: skip
_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)")
_OWN_SECTIONS = tuple(f"{name}." for name in METHODS)  # each kind trains by its own


@dataclass(frozen=True, eq=False)
class Comparison:
    """The runs that are compared, and those that cannot be.

    methods: runs that differ in their seed only, by what they did, in the order of tables.
    """

    methods: Mapping[str, Sequence[Run]]
    left_out: tuple[LeftOut, ...]

    @property
    def runs(self) -> list[Run]:
        """All runs, in the order of tables."""
        return [run for runs in self.methods.values() for run in runs]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per run with every figure, unrounded; the columns are those of the CSV."""
        rows = [_figures(label, run) for label, runs in self.methods.items() for run in runs]
        return pd.DataFrame(rows)

    @property
    def title(self) -> str:
        """The task and its image size."""
        summary = self.runs[0].summary
        return f"{printable(summary.dataset)} at {summary.image_size} px"


def compare_folders(folders: Sequence[Path], image_size: int | None = None) -> Comparison:
    """All runs under the folders, or those of one image size, read and grouped.

    Raises UserError for a folder that is absent or holds no finished run at all, and for runs of
    different tasks.
    """
    runs, left_out = read_runs(folders, image_size)
    if not runs:
        size = "" if image_size is None else f" at {image_size} px"
        reasons = "".join(f"\n{item.folder}: {item.reason}" for item in left_out)
        raise UserError(
            f"{', '.join(map(str, folders))}: no finished run{size}; train one first: "
            f"python -m nettailor.teach{reasons}"
        )
    require_one_task(runs)
    return Comparison(by_method(runs), tuple(left_out))


def require_comparable(folder: Path, config: RunConfig) -> None:
    """Check, before runs of these settings are trained, that those in the folder go with them.

    Raises UserError where the finished ones at this image size could not be compared, with each
    other or with those to come. There may be none.
    """
    runs = read_runs([folder], config.image_size)[0] if folder.is_dir() else []
    if runs:
        require_settings(runs, config)
        require_one_task(runs)
        by_method(runs)


def by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ in their seed only, by what they did, in the order of tables.

    The backbone is named only where there are several. Each list has at least one run and is in
    order of seeds. Raises UserError for two runs of the same method and seed.
    """
    several = len({run.summary.backbone for run in runs}) > 1

    def label(run: Run) -> str:
        backbone = f"{printable(run.summary.backbone)} " if several else ""
        return backbone + run.summary.label

    def place(run: Run) -> tuple[Any, ...]:
        summary = run.summary
        # text and numbers in turn, so that `elim 2` comes before `elim 10`
        parts = [
            float(part) if number % 2 else part
            for number, part in enumerate(_NUMBER.split(summary.label))
        ]
        return summary.backbone, KINDS.index(summary.kind), parts, summary.seed

    methods: dict[str, list[Run]] = {}
    for run in sorted(runs, key=place):
        members = methods.setdefault(label(run), [])
        if members and members[-1].summary.seed == run.summary.seed:
            raise UserError(
                f"{members[-1].folder} and {run.folder} are both {run.summary.label!r} of seed "
                f"{run.summary.seed}; give the folders to compare, one of these"
            )
        members.append(run)
    return methods


def _figures(label: str, run: Run) -> dict[str, Any]:
    """A run's row; ratios are over the teacher measured in turn with it."""
    summary, teacher = run.summary, run.teacher
    latency, teachers = (whose.latency_ms[summary.device] for whose in (summary, teacher))
    row: dict[str, Any] = {
        "folder": printable(str(run.folder)), "method": label, "kind": summary.kind,
        "backbone": printable(summary.backbone), "dataset": printable(summary.dataset),
        "image_size": summary.image_size, "seed": summary.seed, "device": summary.device,
    }  # fmt: skip
    for name in ("accuracy", "accuracy_error", "macro_f1", "loss"):
        figures = getattr(summary, name)
        splits = ("val", "test") if name == "accuracy_error" else ("train", "val", "test")
        row |= {f"{name}_{split}": getattr(figures, split, None) for split in splits}
    row |= {
        "flops": summary.flops, "flops_ratio": summary.flops / teacher.flops,
        "params": summary.params.total,
        "params_ratio": summary.params.total / teacher.params.total,
        "params_task": summary.params.task,
        "input_px": summary.input_size, "layers": summary.layers,
        "blocks_universal": summary.blocks.universal, "blocks_proxy": summary.blocks.proxy,
        "latency_ms_1": latency.single.median, "latency_iqr_ms_1": latency.single.iqr,
        "latency_ms_64": latency.batch.median, "latency_iqr_ms_64": latency.batch.iqr,
        "latency_ratio_1": latency.single.median / teachers.single.median,
        "latency_ratio_64": latency.batch.median / teachers.batch.median,
        "test_inference_s": summary.seconds.test_inference,
        "peak_memory_1": summary.peak_memory.single, "peak_memory_64": summary.peak_memory.batch,
        "bytes": summary.bytes, "bytes_ratio": summary.bytes / teacher.bytes,
        "teacher_accuracy_val": teacher.accuracy.val, "teacher_flops": teacher.flops,
        "train_s": summary.seconds.train,
    }  # fmt: skip
    # the networks that a run begins with were trained as well; of others a teacher only stands by
    from_teacher = summary.kind in ("tailored", "knapsack")
    of = summary.knapsack.of if summary.knapsack else None
    before = {
        "train_teacher_s": teacher.seconds.train if from_teacher else None,
        "train_tailored_s": of.train_seconds if of and of.kind == "tailored" else None,
        "train_other_trials_s":
            summary.searched.other_trials_seconds if summary.searched else None,
    }  # fmt: skip
    seconds = [row["train_s"], *(value for value in before.values() if value is not None)]
    return row | before | {"train_all_s": sum(seconds)}


def settings_table(comparison: Comparison) -> pd.DataFrame:
    """The settings in which runs differ though they are compared, each value with its networks.

    Those of one kind's training count where the runs of one method differ in them.
    """
    rows = []
    for key in sorted({key for run in comparison.runs for key in run.settings} - _NO_SETTING):
        values: dict[str, dict[str, None]] = {}
        for label, runs in comparison.methods.items():
            for run in runs:
                if key in run.settings:
                    values.setdefault(shown(run.settings[key]), {})[label] = None
        labels = [label for its in values.values() for label in its]
        within = len(labels) > len(set(labels))
        if len(values) > 1 and (within or not key.startswith(_OWN_SECTIONS)):
            rows += [(key, value, "; ".join(its)) for value, its in values.items()]
    return pd.DataFrame(rows, columns=["setting", "value", "networks"])


def kept_epochs(run: Run) -> pd.DataFrame:
    """The epochs that led to the run's network: of a tailored one the student's and those of the
    depth that was kept, without the other depths tried."""
    tailored = run.summary.tailored
    if tailored is None:
        return run.epochs
    own = run.summary.input_size
    student = at_side("student", None if own == run.summary.image_size else own)
    return run.epochs[run.epochs["stage"].isin([student, tailored.depth])]
