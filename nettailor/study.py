"""The study of a search, in optuna's own journal: which networks were tried, and how far they came.

A trial is a network's first epochs. How far it came at each number of epochs is noted with the
study, since a finished trial takes no more notes.
"""

import os
import re
import socket
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from filelock import FileLock
from matplotlib import pyplot
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna.visualization import matplotlib as plots

from nettailor.core.architecture import SearchedStructure
from nettailor.core.config import TEACHER_KEYS, recorded
from nettailor.core.errors import UserError
from nettailor.core.files import write_atomically
from nettailor.core.run_folder import STUDY_FILE, RunFolder
from nettailor.core.run_lock import AtWorkError, hold, let_go, require_free
from nettailor.search_space import DIRECTIONS, Proposal, SearchSpace
from nettailor.session import Session

PROG = "python -m nettailor.search"
# Keys in which settings may differ: a study can be given more trials, and the teacher that is there
# counts.
IGNORED = ("search.trials", *TEACHER_KEYS)


class Reached(NamedTuple):
    """Where a network stands after so many epochs.

    macro_f1: on validation, in %; 0 where its training broke down.
    seconds: it has trained for.
    """

    macro_f1: float
    seconds: float


class _Journal(JournalFileBackend):
    """Optuna's journal file, under a lock that ends with the process that holds it."""

    def __init__(self, path: Path) -> None:
        self._path, self._alone = path, FileLock(f"{path}.lock")
        super().__init__(str(path), self._alone)  # type: ignore[arg-type]  # used in the same way

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """See optuna; raises UserError where it cannot write."""
        try:
            with self._alone, self._path.open("rb+") as file:
                # what a full disk or a killed process left of a line would spoil the next one
                file.truncate(file.read().rfind(b"\n") + 1)
                super().append_logs(logs)
        except OSError as error:
            raise UserError(
                f"cannot write {self._path}: {error.strerror or error}; free the disk, or choose "
                "another --out"
            ) from error


class Study:
    """The study of one backbone's task, image size and seed, in `<out>/<task>/search/<name>/`."""

    @staticmethod
    def join(session: Session) -> None:
        """From now on nobody else discards the study, for as long as this process lives."""
        folder = session.places.run("search")
        hold(folder.with_name(f"{folder.name} process {os.getpid()} on {socket.gethostname()}"))

    def __init__(self, session: Session, *, overwrite: bool) -> None:
        """Open a study, or begin it.

        Raises:
            UserError: it is of other settings, its journal is damaged; another process works on
                what is to be discarded.
        """
        self.settings = recorded(session.config, "teacher", "search")
        self._run = RunFolder(session.places.run("search"), PROG)
        self.folder = self._run.path
        self._space = SearchSpace(session.config.image_size)
        if overwrite:
            self._discard_runs(session)
        session.open(self._run, self.settings, ignored=IGNORED, overwrite=overwrite)
        let_go(self.folder)  # which is for all
        journal = self.folder / STUDY_FILE
        try:
            self._optuna = optuna.create_study(
                storage=JournalStorage(_Journal(journal)),
                study_name="search",
                directions=DIRECTIONS,
                load_if_exists=True,
            )
            _ = self.tried
        except (UserError, OSError):
            raise
        except Exception as error:  # records that are none of optuna's can fail in any way
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{journal}: damaged, or no journal of this program ({reason}). End all processes "
                "that share it, delete the file and start again; finished runs are kept, they are "
                "in their own folders"
            ) from error

    def _discard_runs(self, session: Session) -> None:
        for lock in self.folder.parent.glob(f".{self.folder.name} process *.lock"):
            try:
                require_free(lock.with_name(lock.stem[1:]))
            except AtWorkError as error:
                worker = lock.stem.removeprefix(f".{self.folder.name} ")
                raise UserError(
                    f"{self.folder}: {worker} works on this study; end it before --overwrite"
                ) from error
        self._run.check(None)
        any_trial = session.places.run("searched", "trial@")
        name = re.compile(re.escape(any_trial.name).replace("@", "[0-9]+-[0-9a-f]{6}"))
        places = [place for place in any_trial.parent.glob("*") if name.fullmatch(place.name)]
        runs = [RunFolder(place, PROG) for place in places]
        for run in runs:  # all, before the first of them goes
            run.check(None)
        for run in runs:
            run.discard()

    def _trials(self) -> dict[int, FrozenTrial]:
        """By number. Optuna counts trials as processes begin them, which can be another order."""
        trials = self._optuna.get_trials(deepcopy=False)
        return {trial.user_attrs["number"]: trial for trial in trials}

    @property
    def tried(self) -> dict[int, SearchedStructure]:
        """The network of each trial that was begun."""
        return {n: self._space.structure(trial.params) for n, trial in self._trials().items()}

    def trial_folder(self, number: int) -> RunFolder:
        """Where a network trains until it becomes a run.

        Its name tells network from network, so that none goes on from another's state.
        """
        return RunFolder(self.folder / "trials" / f"{number}-{self.tried[number].key}", PROG)

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials whose three values are known."""
        return self._optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def begin(self, number: int, proposal: Proposal) -> None:
        """Note which network a trial is of."""
        trial = create_trial(
            state=TrialState.RUNNING,
            params=proposal.params,
            distributions=proposal.distributions,
            user_attrs={"number": number},
        )
        self._optuna.add_trial(trial)

    def finish(self, number: int, values: tuple[float, float, float]) -> None:
        """End a trial with its macro F1, parameters and latency."""
        self._optuna.tell(self._trials()[number].number, values)

    def values(self, number: int) -> list[float] | None:
        """Macro F1, parameters and latency of a trial; None where it is not finished."""
        trial = self._trials().get(number)
        return trial.values if trial else None

    def note(self, number: int, epochs: int, reached: Reached) -> None:
        """Note where a trial stands after so many epochs."""
        self._optuna.set_user_attr(f"trial {number}, {epochs} epochs", reached)

    def reached(self, number: int, epochs: int) -> Reached | None:
        """Where a trial stands after so many epochs; None where it has not come there."""
        found = self._optuna.user_attrs.get(f"trial {number}, {epochs} epochs")
        return Reached(*found) if found else None

    def plot(self) -> list[Path]:
        """Write optuna's plots into the study's folder; returns what was written.

        The front of all trials after their first epochs, and for macro F1 its history and the
        importance of the parameters, which needs a few trials and is rough with less than hundreds.
        """
        study, names = self._optuna, ["macro F1, %", "parameters", "latency, × teacher"]
        history, importances = plots.plot_optimization_history, plots.plot_param_importances
        draw: dict[str, Callable[[], Any]] = {
            "pareto_front.png": lambda: plots.plot_pareto_front(study, target_names=names),
            "optimization_history.png": lambda: history(
                study, target=lambda trial: trial.values[0], target_name=names[0]
            ),
            "param_importances.png": lambda: importances(  # told for low values
                study, target=lambda trial: -trial.values[0], target_name=names[0]
            ),
        }
        written = []
        pyplot.switch_backend("agg")
        for name, plot in draw.items():
            with (
                suppress(ValueError, RuntimeError),  # too few trials, or all alike
                warnings.catch_warnings(action="ignore"),  # of functions that may change
                pyplot.style.context("default"),
            ):
                figure = plot().figure
                figure.set_size_inches(7, 5)
                save = partial(figure.savefig, format="png", dpi=100, bbox_inches="tight")
                write_atomically(self.folder / name, save)
                pyplot.close(figure)
                written.append(self.folder / name)
        return written
