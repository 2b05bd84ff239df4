"""Train all that a comparison needs and that is missing, alone or beside other processes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nettailor.commands.eliminate import eliminated_runs, reference_runs, train_beside_teacher
from nettailor.commands.tailor import tailor, tailored_folder
from nettailor.commands.teach import teacher_folder, train_teacher
from nettailor.core.config import RunConfig
from nettailor.core.console import Screen
from nettailor.core.errors import NotFiniteError, UserError
from nettailor.core.run_folder import RunFolder
from nettailor.core.run_lock import shared_out
from nettailor.core.settings import changed
from nettailor.finetune import ChainRun
from nettailor.resolve import resolved
from nettailor.session import Session, start_session

Mode = Literal["task", "all"]


@dataclass(frozen=True, eq=False)
class Job:
    """One run of the sweep.

    config: asks for this run and no other. train: trains what is left of it, and returns at once
    where it is finished.
    """

    config: RunConfig
    folder: RunFolder
    train: Callable[[], object]

    @property
    def place(self) -> Path:
        """The folder that one process at a time works in."""
        return self.folder.path

    @property
    def name(self) -> str:
        """Kind and name of the run."""
        return f"{self.place.parent.name} {self.place.name}"


@dataclass(frozen=True)
class Failure:
    """A job of the sweep that could not be done, and why."""

    job: str
    error: UserError | NotFiniteError


def list_jobs(
    session: Session,
    config: RunConfig,
    *,
    seeds: Iterable[int],
    gammas: Iterable[float],
    modes: Iterable[Mode],
) -> list[list[Job]]:
    """Every run of a comparison, a list for each seed, its teacher first, which the others need.

    config: as it was given; the session's is resolved for one mode.

    Doubled seeds, gammas and modes count once. Raises UserError when one is out of range.
    """
    gammas, modes = tuple(dict.fromkeys(gammas)), tuple(dict.fromkeys(modes))
    jobs = [_jobs_of_seed(session, config, seed, gammas, modes) for seed in dict.fromkeys(seeds)]
    places: set[Path] = set()
    for job in (job for of_seed in jobs for job in of_seed):
        if job.place in places:
            raise UserError(
                f"{job.name}: two of the gammas would share this run; give gammas that differ "
                "within six digits"
            )
        places.add(job.place)
    return jobs


def _jobs_of_seed(
    session: Session,
    config: RunConfig,
    seed: int,
    gammas: Iterable[float],
    modes: Iterable[Mode],
) -> list[Job]:
    def asking(**changes: object) -> Session:
        return replace(session, config=resolved(changed(config, seed=seed, **changes)))

    def job(own: Session, folder: RunFolder, train: Callable[[Session], object]) -> Job:
        # a session holds on to the processes that load its images: each job makes one of its own
        return Job(own.config, folder, lambda: train(replace(own)))

    def chain(run: ChainRun) -> Job:
        top = [] if run.eliminated is None else [run.eliminated["top"]]
        references = [run.kind] if run.eliminated is None else []
        own = asking(eliminate__top=top, eliminate__references=references)
        (alone,) = [*eliminated_runs(own), *reference_runs(own)]

        def train(fresh: Session) -> None:
            train_beside_teacher(fresh, alone, overwrite=False)

        return job(own, alone.folder, train)

    teacher = asking()
    jobs = [job(teacher, teacher_folder(teacher), lambda own: train_teacher(own, overwrite=False))]
    for mode in modes:
        for gamma in gammas:
            own = asking(student__gamma=gamma, prune__finetune=mode)
            jobs.append(job(own, tailored_folder(own), lambda own: tailor(own, overwrite=False)))
    return [*jobs, *map(chain, [*eliminated_runs(session), *reference_runs(session)])]


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
        gammas: prices of cost, for the tailored networks.
        modes: what their fine-tuning trains.

    Raises:
        UserError: a setting is out of range; or every job failed, and this is the first one's
            reason.
        NotFiniteError: the same, when this was the first one's reason.
    """
    session = start_session(config, screen)
    seeded = list_jobs(session, config, seeds=seeds, gammas=gammas, modes=modes)
    needing = {jobs[0]: jobs[1:] for jobs in seeded}
    every = [job for jobs in seeded for job in jobs]
    failures: list[Failure] = []
    left = [*needing]
    for job in shared_out(left, screen.say):
        error = _train(job, f"{every.index(job) + 1} of {len(every)}: {job.name}", screen)
        left.remove(job)
        others = needing.get(job, [])
        if error is None:
            left[:0] = others
        else:
            lost = UserError(f"it needs the {job.name}, which failed")
            failures.append(Failure(job.name, error))
            failures += [Failure(other.name, lost) for other in others]
    if failures and len(failures) == len(every):
        raise failures[0].error
    if failures:
        lines = [f"{failure.job}: {failure.error}" for failure in failures]
        screen.say("\n".join([f"{len(failures)} of {len(every)} jobs failed:", *lines]))
    return failures


def _train(job: Job, title: str, screen: Screen) -> UserError | NotFiniteError | None:
    """Train a job; a finished one only has to be of these settings. Returns why it failed."""
    try:
        finished = job.folder.finished
        screen.say(title + ": finished" * finished)
        job.train()
    except (UserError, NotFiniteError) as error:
        screen.say(f"{job.name} failed: {error}")
        return error
    return None
