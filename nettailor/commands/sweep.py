"""Train all that a comparison needs and that is missing, alone or beside other processes."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection

from nettailor.claims import Claims
from nettailor.commands.eliminate import eliminated_runs, reference_runs, train_beside_teacher
from nettailor.commands.tailor import tailor
from nettailor.commands.teach import teacher_folder, train_teacher
from nettailor.core.config import RunConfig, as_settings
from nettailor.core.console import Screen
from nettailor.core.errors import NotFiniteError, UserError
from nettailor.core.run_folder import KINDS, Kind, RunFolder
from nettailor.core.settings import set_key, validate
from nettailor.session import Session, start_session

Mode = Literal["task", "all"]

_LOOK_EVERY = 2.0  # seconds between two looks at what other processes do
_FOLDER = "folder"  # the trial's note of where its run is
_DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "kind": CategoricalDistribution(KINDS),
    "mode": CategoricalDistribution(["task", "all"]),
    "gamma": FloatDistribution(0, sys.float_info.max),
    "unit": CategoricalDistribution(["stages", "blocks"]),
    "top": IntDistribution(1, sys.maxsize),
}


@dataclass(frozen=True, eq=False)
class Job:
    """One run of the sweep.

    config: asks for this run and no other. shared: a session of the sweep's task, whose images and
    device serve every job.
    """

    kind: Kind
    config: RunConfig
    shared: Session

    @property
    def name(self) -> str:
        """What tells it from every other job on this backbone, image size and task."""
        config = self.config
        what: str = self.kind
        if self.kind == "tailored":
            what += f" {config.prune.finetune}, gamma {config.student.gamma:g}"
            what += ", by rank" * (config.prune.by == "rank")
            what += f", {config.prune.limit}" * (config.prune.budget is not None)
        elif self.kind == "eliminated":
            what += f" {config.eliminate.unit} {self._top}"
            what += ", convolution instead" * config.eliminate.replacement
            what += ", head trained" * (config.eliminate.trainable == "head")
        return f"{what}, seed {config.seed}"

    @property
    def _top(self) -> int:
        """How many units are cut off for an eliminated network."""
        assert self.config.eliminate.top, "an eliminated network lacks something"
        return self.config.eliminate.top[0]

    @property
    def params(self) -> dict[str, Any]:
        """What the job tries, as optuna's tools show it."""
        config = self.config
        params: dict[str, Any] = {"kind": self.kind}
        if self.kind == "tailored":
            params |= {"mode": config.prune.finetune, "gamma": config.student.gamma}
        elif self.kind == "eliminated":
            params |= {"unit": config.eliminate.unit, "top": self._top}
        return params

    def train(self) -> RunFolder:
        """Train it, or what is left of it; returns at once when it is finished."""
        # made here and dropped here: a session holds on to the processes that load its images
        session = replace(self.shared, config=self.config)
        if self.kind == "teacher":
            train_teacher(session, overwrite=False)
            return teacher_folder(session)
        if self.kind == "tailored":
            return tailor(session, overwrite=False)
        (run,) = [*eliminated_runs(session), *reference_runs(session)]
        return train_beside_teacher(session, run, overwrite=False)


@dataclass(frozen=True)
class Failure:
    """A job of the sweep that could not be done, and why."""

    job: str
    error: UserError | NotFiniteError


def list_jobs(
    session: Session, *, seeds: Iterable[int], gammas: Iterable[float], modes: Iterable[Mode]
) -> list[Job]:
    """Every run of a comparison, seed by seed, the teacher of a seed before all that needs it.

    Doubled seeds, gammas and modes count once. Raises UserError when one is out of range.
    """
    gammas, modes = tuple(dict.fromkeys(gammas)), tuple(dict.fromkeys(modes))
    jobs = [
        job for seed in dict.fromkeys(seeds) for job in _jobs_of_seed(session, seed, gammas, modes)
    ]
    names = [job.name for job in jobs]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise UserError(
            f"{doubled}: two of the gammas would share this run; give gammas that differ within "
            "six digits"
        )
    return jobs


def _jobs_of_seed(
    session: Session, seed: int, gammas: Iterable[float], modes: Iterable[Mode]
) -> Iterator[Job]:
    def job(kind: Kind, changes: Mapping[str, object]) -> Job:
        settings = as_settings(session.config)
        for key, value in {"seed": seed, **changes}.items():
            set_key(settings, key, value)
        return Job(kind, validate(settings), session)

    yield job("teacher", {})
    for mode in modes:
        for gamma in gammas:
            yield job("tailored", {"student.gamma": gamma, "prune.finetune": mode})
    for run in eliminated_runs(session):
        assert run.eliminated is not None, "something is cut off"
        alone = {"eliminate.top": [run.eliminated["top"]], "eliminate.references": []}
        yield job("eliminated", alone)
    for kind in session.config.eliminate.references:
        yield job(kind, {"eliminate.top": [], "eliminate.references": [kind]})


def open_claims(session: Session) -> Claims:
    """The journal of all sweeps of the task, and in it the study of this backbone and image size.

    A trial's values are validation accuracy in % and multiply-adds.
    """
    config = session.config
    return Claims(
        session.task_folder / "comparison" / "sweep.journal",
        f"{config.backbone}-{config.image_size}px",
        [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE],
    )


def run_sweep(
    config: RunConfig,
    screen: Screen,
    *,
    seeds: Iterable[int],
    gammas: Iterable[float],
    modes: Iterable[Mode],
) -> list[Failure]:
    """Train what is missing of a comparison; returns the jobs that failed.

    A run folder that is finished counts, whoever trained it. Processes that run this on one `out`
    share the work: no job is done by two at once, and one that a process left is taken over.

    Args:
        config: the settings of all jobs but for seed, gamma and mode.
        screen: told of every job.
        seeds: each with its own teacher.
        gammas: weights γ1 of the expected complexity, for the tailored networks.
        modes: what their fine-tuning trains.

    Raises:
        UserError: a setting is out of range, the journal is damaged; or every job failed, and this
            is the first one's reason.
        NotFiniteError: the same, when this was the first one's reason.
    """
    session = start_session(config, screen)
    jobs = list_jobs(session, seeds=seeds, gammas=gammas, modes=modes)
    failures = _Sweep(jobs, open_claims(session), session.task_folder, screen).run()
    if failures and len(failures) == len(jobs):
        raise failures[0].error
    if failures:
        lines = [f"{failure.job}: {failure.error}" for failure in failures]
        screen.say("\n".join([f"{len(failures)} of {len(jobs)} jobs failed:", *lines]))
    return failures


class _Sweep:
    """The jobs of one start on their way to an end."""

    def __init__(self, jobs: Sequence[Job], claims: Claims, place: Path, screen: Screen) -> None:
        self._jobs, self._claims, self._place, self._screen = jobs, claims, place, screen
        self._left = list(jobs)
        self._taught: set[int] = set()  # seeds whose teacher is there
        self._failures: list[Failure] = []
        self._waiting_for: list[str] = []

    def run(self) -> list[Failure]:
        """Bring every job to an end."""
        while self._left:
            held = self._claims.held()
            free = (job for job in self._left if self._ready(job) and job.name not in held)
            job = next(free, None)
            if job is None:
                names = [job.name for job in self._left if job.name in held]
                self._wait([f"{name} ({held[name]})" for name in names])
            else:
                self._do(job)
        return self._failures

    def _ready(self, job: Job) -> bool:
        """Whether a job's teacher is there; the jobs of one seed share it."""
        return job.kind == "teacher" or job.config.seed in self._taught

    def _wait(self, names: list[str]) -> None:
        if names != self._waiting_for:
            self._screen.say(f"waiting for other processes: {'; '.join(names)}")
        self._waiting_for = names
        time.sleep(_LOOK_EVERY)

    def _do(self, job: Job) -> None:
        """Claim and train a job; a finished one only has to be of these settings."""
        title = f"{self._jobs.index(job) + 1} of {len(self._jobs)}: {job.name}"
        claim = None
        if not self._finished(job):
            notes = {"seed": job.config.seed}
            distributions = {key: _DISTRIBUTIONS[key] for key in job.params}
            claim = self._claims.take(job.name, job.params, distributions, notes)
            if claim is None:
                return  # it will be seen as held, or as finished
            self._screen.say(title)
        try:
            with self._claims.working(claim) if claim else nullcontext():
                folder = job.train()
                values = _values(folder)
        except (UserError, NotFiniteError) as error:
            self._fail(job, error)
            return
        if claim:
            self._claims.complete(claim, values, {_FOLDER: self._relative(folder)})
        else:
            self._screen.say(f"{title}: finished")
        self._left.remove(job)
        if job.kind == "teacher":
            self._taught.add(job.config.seed)

    def _finished(self, job: Job) -> bool:
        """Whether the journal knows the job's run as it stands in its folder."""
        for trial in self._claims.completed(job.name):
            folder = RunFolder(self._place / trial.user_attrs[_FOLDER])
            with suppress(UserError):  # of a damaged summary, which the job itself will raise
                if folder.finished and _values(folder) == trial.values:
                    return True
        return False

    def _relative(self, folder: RunFolder) -> str:
        return folder.path.relative_to(self._place).as_posix()

    def _fail(self, job: Job, error: UserError | NotFiniteError) -> None:
        """Give a job up, and a teacher with all that needs it."""
        self._screen.say(f"{job.name} failed: {error}")
        self._failures.append(Failure(job.name, error))
        self._left.remove(job)
        if job.kind == "teacher":
            seed = job.config.seed
            lost = [other for other in self._left if other.config.seed == seed]
            reason = UserError(f"it needs the {job.name}, which failed")
            self._failures += [Failure(other.name, reason) for other in lost]
            self._left = [other for other in self._left if other not in lost]


def _values(folder: RunFolder) -> list[float]:
    """Validation accuracy in % and multiply-adds of a finished run."""
    summary = folder.read_summary()
    try:
        return [float(summary["accuracy"]["val"]), float(summary["flops"])]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder.path}: its summary.json lacks the accuracy or the FLOPs; delete the folder "
            "to train this run again"
        ) from error
