"""Who works on what: trials of an optuna study as claims that end with the process that holds them.

Processes, on machines that share a folder, write one journal. A claim is a running trial; where two
processes claim one job at once, the order of the journal decides. Optuna keeps no heartbeat in a
journal, so each claim is renewed here as long as its process lives.
"""

import os
import socket
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from nettailor.core.errors import UserError
from nettailor.core.run_lock import let_go_of_all

RENEWED_EVERY = 15.0  # seconds between two signs of life
GIVEN_UP_AFTER = 120.0  # seconds without one until a claim of another machine counts as left


class _Journal(JournalFileBackend):
    """Optuna's journal file; its faults are told as UserErrors."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # the default lock needs symbolic links, which some shared folders lack
            self._open_lock = JournalFileOpenLock(str(path))
            super().__init__(str(path), self._open_lock)
        except OSError as error:
            raise self._unwritable(error) from error

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """See optuna; raises UserError for a file that is damaged or out of reach."""
        try:
            yield from super().read_logs(log_number_from)
        except ValueError as error:
            raise damaged(self._path, error) from error
        except OSError as error:
            raise UserError(f"{self._path}: cannot be read ({error.strerror or error})") from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """See optuna; raises UserError where it cannot write."""
        try:
            self._drop_half_a_record()
            super().append_logs(logs)
        except OSError as error:
            raise self._unwritable(error) from error

    def _drop_half_a_record(self) -> None:
        """Cut off what a full disk or a killed process left of a line: a record that followed it
        would make the journal unreadable."""
        self._open_lock.acquire()
        try:
            with self._path.open("rb+") as file:
                if not file.seek(0, os.SEEK_END):
                    return
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
        finally:
            self._open_lock.release()

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"cannot write {self._path}: {error.strerror or error}; free the disk, or choose "
            "another --out"
        )


def damaged(path: Path, error: Exception) -> UserError:
    """What to say of a journal that cannot be understood."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"{path}: damaged, or no journal of this program ({reason}). End all processes that share "
        "it, delete the file and start again; finished runs are kept, they are in their own folders"
    )


@dataclass(frozen=True)
class Claim:
    """A job that this process holds: a running trial by its number and its storage's id."""

    number: int
    trial_id: int


class Claims:
    """The claims on the jobs of one study; jobs are told apart by their names."""

    def __init__(self, journal: Path, study: str, directions: Sequence[StudyDirection]) -> None:
        """Open a study, or begin it.

        Raises UserError when the journal is damaged or cannot be written.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        backend = _Journal(journal)
        try:
            self._storage = JournalStorage(backend)
            self._study = optuna.create_study(
                storage=self._storage,
                sampler=RandomSampler(),  # nothing is sampled: every trial comes with its values
                study_name=study,
                directions=list(directions),
                load_if_exists=True,
            )
            for trial in self._study.get_trials(deepcopy=False):
                if not {"job", "holder", "renewed"} <= trial.user_attrs.keys():
                    raise ValueError(f"trial {trial.number} is no claim")
        except UserError:
            raise
        except Exception as error:  # records that are none of optuna's can fail in any way
            raise damaged(journal, error) from error
        self._study_id = self._storage.get_study_id_from_name(study)
        self._me = {"host": _host(), "pid": os.getpid(), "began": _began(os.getpid())}
        # the last sign of life seen of each claim, and when, by the clock of this process:
        # clocks of other machines may be wrong
        self._seen: dict[int, tuple[object, float]] = {}

    def held(self) -> dict[str, str]:
        """Jobs that a living process holds, and where: `machine, process 123`.

        Claims whose process is gone are told as failed, and are free again.
        """
        living: dict[str, str] = {}
        for trial in self._running():
            if self._lives(trial):
                holder = trial.user_attrs["holder"]
                place = f"{holder['host'].split()[0]}, process {holder['pid']}"
                living.setdefault(trial.user_attrs["job"], place)
            else:
                self._end(trial.number, TrialState.FAIL, "the process that held it is gone")
        return living

    @property
    def study(self) -> optuna.Study:
        """The study itself, for optuna's own tools."""
        return self._study

    def describe(self, description: Mapping[str, Any]) -> dict[str, Any]:
        """What the study is of: as described when it had its first trial, or as described now."""
        name = "description"
        if not self._study.get_trials(deepcopy=False):
            self._study.set_user_attr(name, dict(description))
        found: dict[str, Any] = self._study.user_attrs.get(name, {})
        return found

    def completed(self, job: str | None = None) -> list[FrozenTrial]:
        """The completed trials of a job, or of all, with their values and notes."""
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial for trial in complete if job is None or trial.user_attrs["job"] == job]

    def claimed(self, job: str) -> list[FrozenTrial]:
        """Every claim that there ever was on a job, in the order of the journal."""
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.user_attrs["job"] == job]

    def take(
        self,
        job: str,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        notes: Mapping[str, Any],
    ) -> Claim | None:
        """Claim a job; None when another process claimed it before.

        Args:
            job: its name.
            params: what the job tries, with `distributions` of the same keys.
            notes: what else optuna's tools are to show.
        """
        trial = create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions=dict(distributions),
            user_attrs={"job": job, "holder": self._me, "renewed": time.time(), **notes},
        )
        trial_id = self._storage.create_new_trial(self._study_id, trial)
        claim = Claim(self._storage.get_trial(trial_id).number, trial_id)
        # numbers follow the order of the journal, which is the same for all who read it
        if any(
            other.number < claim.number and other.user_attrs["job"] == job and self._lives(other)
            for other in self._running()
        ):
            self._end(claim.number, TrialState.PRUNED, "another process was quicker")
            return None
        return claim

    @contextmanager
    def working(self, claim: Claim) -> Iterator[None]:
        """Renew a claim meanwhile; what is raised ends it as failed, for that reason."""
        over = Event()
        renewing = Thread(target=self._renew, args=(claim, over), daemon=True)
        renewing.start()
        try:
            try:
                yield
            finally:
                let_go_of_all()  # whoever claims the job next may go on in its run folder
        except BaseException as error:
            over.set()
            renewing.join()
            self._end(claim.number, TrialState.FAIL, str(error) or type(error).__name__)
            raise
        finally:
            over.set()
            renewing.join()

    def complete(self, claim: Claim, values: Sequence[float], notes: Mapping[str, Any]) -> None:
        """End a claim with the job's results, unless another machine gave it up meanwhile."""
        with suppress(UpdateFinishedTrialError):
            for key, value in notes.items():
                self._storage.set_trial_user_attr(claim.trial_id, key, value)
            self._study.tell(claim.number, list(values), skip_if_finished=True)

    def give_up(self, claim: Claim, reason: str) -> None:
        """End a claim without results: the job is free again."""
        self._end(claim.number, TrialState.PRUNED, reason)

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _end(self, number: int, state: TrialState, reason: str) -> None:
        """End a trial without results, unless another process has ended it."""
        with suppress(UpdateFinishedTrialError):
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
            self._storage.set_trial_user_attr(trial_id, "reason", reason)
            self._study.tell(number, state=state, skip_if_finished=True)

    def _renew(self, claim: Claim, over: Event) -> None:
        while not over.wait(RENEWED_EVERY):
            try:
                self._storage.set_trial_user_attr(claim.trial_id, "renewed", time.time())
            except UpdateFinishedTrialError:
                return  # it took so long that another machine gave this claim up
            except UserError:
                continue  # a shared folder can be out of reach for a while

    def _lives(self, trial: FrozenTrial) -> bool:
        """Whether a running trial's process still lives, as far as can be told from here."""
        holder, renewed = trial.user_attrs["holder"], trial.user_attrs["renewed"]
        if holder["host"] == self._me["host"] and holder["began"] is not None:
            return bool(_began(holder["pid"]) == holder["began"])
        now = time.monotonic()
        last, since = self._seen.get(trial.number, (None, now))
        if last != renewed:
            since = now
            self._seen[trial.number] = (renewed, now)
        return now - since <= GIVEN_UP_AFTER


def _host() -> str:
    """This machine, and on Linux its boot and process namespace: where a pid is one process."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _began(pid: int) -> str | None:
    """When a process began, in ticks since boot; None when it is gone, or not on Linux."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces
    return None if state in "ZX" else fields[18]
