"""One run, one folder: settings, metrics, weights and figures that explain themselves."""

import csv
import io
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from nettailor.core import ranks
from nettailor.core.architecture import WEIGHTS_FILE, read_architecture
from nettailor.core.config import EXECUTION_KEYS, flat
from nettailor.core.errors import UserError
from nettailor.core.files import (
    is_leftover,
    read_json,
    require_whole_weights,
    write_json,
    write_text,
)
from nettailor.core.run_lock import hold, let_go, require_free
from nettailor.core.run_settings import CONFIG_FILE, is_run, read_config, require_current, unlike

Kind = Literal[
    "teacher", "tailored", "eliminated", "head-only", "scratch", "knapsack", "scaled", "searched",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)

METRICS_FILE = "metrics.csv"
SUMMARY_FILE = "summary.json"
LISTING_FILE = "images.csv"
STUDY_FILE = "study.journal"  # in a folder whose runs are the trials of a search
_STATE_FOLDER = "state"
# that the summary of every run has, and its readers ask for
_FIGURES = {"kind", "accuracy", "params", "flops", "blocks", "latency_ms", "seconds", "teacher"}


class RunFolder:
    """The folder `runs/<task>/<kind>/<name>` of one run."""

    def __init__(self, path: Path, command: str = "") -> None:
        """`command` is what makes such runs; messages say to give it `--overwrite`."""
        self.path = path
        self._overwrite = f"{command} --overwrite".strip()
        # what there is no command for is made again once it is gone
        self._again = f"give `{self._overwrite}`" if command else f"remove {path}"
        self._metrics: dict[str, Sequence[Mapping[str, float]]] = {}

    def open(
        self, settings: Mapping[str, Any], *, ignored: Collection[str] = (), overwrite: bool
    ) -> None:
        """Begin the run, or go on with one of the same settings.

        Args:
            settings: the resolved settings, written to `config.yaml`.
            ignored: dotted keys that may differ, beside those that say only how a run executes.
            overwrite: discard a run that the folder holds.

        Raises:
            UserError: the folder holds a run of other settings, something that is no run, or a
                finished one that is damaged; or another process is at work in it.
        """
        ranks.from_main(lambda: self._open(settings, ignored, overwrite))

    def _open(self, settings: Mapping[str, Any], ignored: Collection[str], overwrite: bool) -> None:
        config = self.path / CONFIG_FILE
        if overwrite or not self.finished:
            hold(self.path)
        try:
            self.check(None if overwrite else settings, ignored=ignored)
        except UserError:
            let_go(self.path)
            raise
        if overwrite and self.begun:
            self.discard()
        elif self.untrained:
            config.unlink()
            (self.path / LISTING_FILE).unlink(missing_ok=True)
        if not config.is_file():
            write_text(config, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))
        if self.finished:
            self.tidy()

    def check(self, settings: Mapping[str, Any] | None, *, ignored: Collection[str] = ()) -> None:
        """Raise UserError where `open` would, and write nothing.

        Args:
            settings: None when what a run there was made with does not matter.
            ignored: as for `open`.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: a file is in the way of the run folder; move it")
        if not self._entries():
            return
        if not is_run(self.path / CONFIG_FILE):
            raise UserError(
                f"{self.path}: the folder is not empty and holds no run; move what it holds "
                "or choose another --out"
            )
        if settings is None:
            self._refuse_link()
        elif not self.untrained:
            self._refuse_other(settings, ignored)
        if settings is None or not self.finished:
            require_free(self.path)

    @property
    def untrained(self) -> bool:
        """Whether there is a run that stopped before it had trained: it binds nobody."""
        return sorted(self._entries()) in ([CONFIG_FILE], [CONFIG_FILE, LISTING_FILE])

    def _entries(self) -> list[str]:
        """The names of all that the folder holds, but for what a killed process has left."""
        if not self.path.is_dir():
            return []
        return [entry.name for entry in self.path.iterdir() if not is_leftover(entry)]

    def discard(self) -> None:
        """Remove the run; UserError where it is a link, or the system refuses."""
        self._refuse_link()
        try:
            # settings last: what is left of this where it is cut short is a run, and unfinished
            (self.path / SUMMARY_FILE).unlink(missing_ok=True)
            for entry in self.path.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name != CONFIG_FILE:
                    entry.unlink()
            shutil.rmtree(self.path)
        except OSError as error:
            raise self._not_discarded(error.strerror or str(error)) from error

    def _refuse_link(self) -> None:
        if self.path.is_symlink():
            raise self._not_discarded("a symbolic link")

    def _not_discarded(self, reason: str) -> UserError:
        return UserError(
            f"{self.path}: cannot be discarded ({reason}); remove it yourself or choose another "
            "--out"
        )

    def _refuse_other(self, settings: Mapping[str, Any], ignored: Collection[str]) -> None:
        unlike = self._differing(settings, lambda key: key not in {*EXECUTION_KEYS, *ignored})
        if unlike:
            raise UserError(
                f"{self.path} holds a run of other settings: {unlike}. Give the same settings to "
                f"go on, another --out, or `{self._overwrite}` to discard that run"
            )

    def require_same(self, settings: Mapping[str, Any], keys: Collection[str]) -> None:
        """Raise UserError when the run differs from `settings` in one of the dotted `keys`."""
        unlike = self._differing(settings, lambda key: key in keys)
        if unlike:
            raise UserError(
                f"{self.path} is of another task: {unlike}. Give the same settings or another --out"
            )

    def _differing(self, settings: Mapping[str, Any], counts: Callable[[str], bool]) -> str:
        """In words, the dotted keys that count and in which the run differs from `settings`.

        Raises UserError for a run of an earlier version.
        """
        older = read_config(self.path / CONFIG_FILE)
        remedy = f"give another --out, or `{self._overwrite}` to discard that run"
        require_current(older, self.path, remedy)
        there, here = (
            {key: value for key, value in flat(nested).items() if counts(key)}
            for nested in (older, settings)
        )
        return unlike(there, here)

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run, finished or not."""
        return (self.path / CONFIG_FILE).is_file()

    @property
    def finished(self) -> bool:
        """Whether the run came to its end.

        Raises UserError where it did, but its network is missing or damaged since.
        """
        if not (self.path / SUMMARY_FILE).is_file():
            return False
        try:
            read_architecture(self.path)
            require_whole_weights(self.path / WEIGHTS_FILE)
        except UserError as error:
            found = str(error).partition(";")[0]
            raise UserError(
                f"{found}: the run is not whole any more; restore the file, or {self._again} to "
                "make the run again"
            ) from error
        return True

    def hold(self) -> None:
        """Be the one process at work here, as `open` is, in a folder that has no settings.

        Raises UserError while another one is.
        """
        ranks.from_main(lambda: hold(self.path))

    def recorded(self, stage: str) -> bool:
        """Whether epochs of a stage, or none yet, were recorded since this object was made."""
        return stage in self._metrics

    def record(self, stage: str, history: Sequence[Mapping[str, float]]) -> None:
        """Take a stage's epochs so far and write `metrics.csv` anew, a row an epoch."""
        self._metrics[stage] = list(history)
        rows = [{"stage": name, **row} for name, rows in self._metrics.items() for row in rows]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / METRICS_FILE, text.getvalue())

    def state_path(self, stage: str) -> Path:
        """Where a stage keeps what it needs to go on; gone once the run is finished."""
        return self.path / _STATE_FOLDER / f"{stage}.pt"

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`, which marks the run as finished, and drop the stages' states."""
        write_json(self.path / SUMMARY_FILE, summary)
        self.tidy()
        let_go(self.path)

    def tidy(self) -> None:
        """Drop what a finished run needs no more, and what killed processes have left in it."""
        shutil.rmtree(self.path / _STATE_FOLDER, ignore_errors=True)
        for path in filter(is_leftover, self.path.rglob(".*")):
            with suppress(OSError):
                path.unlink()

    def read_summary(self) -> dict[str, Any]:
        """The figures of a finished run; UserError for a file that holds something else."""
        content = read_json(self.path / SUMMARY_FILE)
        if not isinstance(content, dict) or not content.keys() >= _FIGURES:
            raise UserError(
                f"{self.path / SUMMARY_FILE}: holds no summary; restore the file, or {self._again} "
                "to make the run again"
            )
        return content
