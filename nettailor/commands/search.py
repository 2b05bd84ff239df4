"""`python -m nettailor.search`: small networks without pretrained weights, found by search.

What a study finds follows from its settings, its seed and the latencies that were measured. The
first ten networks are the same in every study of the same settings, and so, bit for bit on the CPU,
is how each network trains. Later networks, and who goes on, hang on latency as well, which no two
measurements share: a study begun anew ends elsewhere. Every measured value is in the journal,
though, and is measured once: a study that was killed goes on from it, and one process that goes on
proposes what it would have proposed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import torch
from optuna.trial import FrozenTrial

from nettailor.commands.teach import load_teacher, ready_teacher, teacher_folder
from nettailor.core.architecture import SearchedStructure
from nettailor.core.backbone import Backbone, create_backbone
from nettailor.core.config import RunConfig
from nettailor.core.console import Screen
from nettailor.core.cost import module_flops, parameters
from nettailor.core.device import place
from nettailor.core.errors import NotFiniteError
from nettailor.core.flags import CommandFlags
from nettailor.core.latency import measure_latency
from nettailor.core.run_folder import Kind, RunFolder
from nettailor.core.run_lock import shared_out
from nettailor.core.schedule import Schedule
from nettailor.core.scores import Scores
from nettailor.core.vocabulary import searched_chain
from nettailor.core.weights import WeightsSource, universal_digest
from nettailor.figures import networks_table
from nettailor.finetune import ChainRun, finetune, train
from nettailor.halving import Standing, better_half, rungs
from nettailor.prune.fold import fold
from nettailor.search_space import Proposal, SearchSpace, in_words, propose
from nettailor.session import Session, start_session
from nettailor.study import IGNORED, PROG, Reached, Study
from nettailor.teacher.objective import CrossEntropy

_KIND: Kind = "searched"
_OPTIMIZER, _LR, _WEIGHT_DECAY = "adamw", 0.004, 0.02  # of networks without pretrained weights


class _Job(NamedTuple):
    """What one process at a time does, in a folder of its own; nothing where it is done."""

    name: str
    place: Path
    work: Callable[[], object]


class Search:
    """A search on its way to an end; of several processes that share it each has one."""

    study: Study

    def __init__(self, session: Session) -> None:
        self._session, self._screen = session, session.screen
        self._search = session.config.search
        self._schedule = Schedule(
            epochs=self._search.epochs,
            optimizer=_OPTIMIZER,
            lr=_LR,
            weight_decay=_WEIGHT_DECAY,
            shape=session.config.schedule,
            warmup_epochs=min(1, self._search.epochs - 1),
        )

    def run(self, *, overwrite: bool) -> dict[int, dict[str, Any]]:
        """Search, or go on with it; returns the summaries of the runs that it ends in, by trial.

        Processes that run this on one `out` share the study: no trial is trained by two at once,
        and one that a process left is taken over where it stands.

        Raises:
            UserError: the study is of other settings, nothing fits them, the journal is damaged.
            NotFiniteError: the training of every network broke down.
        """
        session, search = self._session, self._search
        self._prepare(overwrite)
        assert search.trial_epochs is not None, "the settings are resolved"
        marks = rungs(search.trial_epochs, search.epochs)
        going = list(range(search.trials))
        self._share(self._job(number, marks[0], self._try) for number in going)
        for before, epochs in pairwise(marks):
            going = better_half([self._standing(number, before) for number in going])
            if epochs < search.epochs:
                self._share(self._job(number, epochs, self._train_on) for number in going)
        runs = {number: self._run(number, self._spent(going, marks)) for number in going}
        finish = partial(self._finish, runs)
        self._share(self._job(number, search.epochs, finish) for number in going)
        summaries = {
            # one that was finished before has to be of these settings
            number: finetune(session, run, beside=self._teacher, overwrite=False)
            for number, run in runs.items()
            if run.folder.finished
        }
        if not summaries:
            raise NotFiniteError(
                "the training of every network broke down: look at the images, or try another "
                "--seed or a larger --batch-size"
            )
        return summaries

    def _prepare(self, overwrite: bool) -> None:
        """The study and the teacher; what can be wrong shows before anything is discarded."""
        session = self._session
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._propose(0, [], ())
        teacher, study = teacher_folder(session), session.places.run("search")
        if teacher.finished:
            load_teacher(teacher, session)
        if overwrite or not study.exists():
            session.check_images()

        def open_study() -> None:
            self.study = Study(session, overwrite=overwrite)

        def teach() -> None:
            self._teacher = ready_teacher(session)

        Study.join(session)
        self._share([_Job("study", study, open_study), _Job("teacher", teacher.path, teach)])

    def _job(self, number: int, epochs: int, work: Callable[[int, int], None]) -> _Job:
        place = self.study.folder / "trials" / str(number)
        return _Job(f"trial {number}, {epochs} epochs", place, partial(work, number, epochs))

    def _share(self, jobs: Iterable[_Job]) -> None:
        """Do all jobs, or wait until another process has done them."""
        left = list(jobs)
        for job in shared_out(left, self._screen.say):
            job.work()
            left.remove(job)

    def _propose(
        self, number: int, finished: Sequence[FrozenTrial], tried: Iterable[SearchedStructure]
    ) -> Proposal:
        """The network that a trial is to try: a new one, no dearer than is allowed.

        Raises UserError where there is none.
        """
        config, classes = self._session.config, len(self._session.task.classes)

        def flops(make: Callable[[], Backbone]) -> int:
            with torch.device("meta"):
                chain = make()
            return module_flops(chain, (3, config.image_size, config.image_size))

        most = self._search.max_cost * flops(lambda: create_backbone(config.backbone, classes))

        def fits(structure: SearchedStructure) -> bool:
            return (
                structure not in tried and flops(lambda: searched_chain(structure, classes)) <= most
            )

        space = SearchSpace(config.image_size)
        return propose(space, config.seed, number, finished, fits)

    def _try(self, number: int, epochs: int) -> None:
        """Train a network for its first epochs and time it."""
        study = self.study
        if study.values(number):
            return
        if number not in study.tried:
            tried = list(study.tried.values())
            study.begin(number, self._propose(number, study.finished, tried))
        self._screen.say(f"trial {number}: {in_words(study.tried[number])}")
        network, reached = self._train(number, epochs)
        device, size = self._session.accelerator.device, self._session.config.image_size
        networks = {"teacher": place(fold(self._teacher.network), device), "trial": fold(network)}
        with self._screen.counting("timing") as tell:
            latency = measure_latency(networks, size, device, batches=(1,), tell=tell)
        # of one moment: machines and moods differ
        ratio = latency["trial"]["1"]["median"] / latency["teacher"]["1"]["median"]
        study.note(number, epochs, reached)
        study.finish(number, (reached.macro_f1, float(parameters(network)), ratio))
        self._screen.say(
            f"trial {number}: macro F1 {reached.macro_f1:.2f} %, {parameters(network):,} "
            f"parameters, latency {ratio:.3f}×"
        )

    def _train_on(self, number: int, epochs: int) -> None:
        """Train a network up to a later rung."""
        if self.study.reached(number, epochs) is None:
            self._screen.say(f"trial {number} goes on to {epochs} epochs")
            self.study.note(number, epochs, self._train(number, epochs)[1])

    def _finish(self, runs: Mapping[int, ChainRun], number: int, epochs: int) -> None:
        """Train a network to the end, as a run, with all that it has learnt so far."""
        run, trial = runs[number], self.study.trial_folder(number)
        before = self.study.reached(number, epochs)
        if run.folder.finished or (before and before.macro_f1 == 0):
            return
        if trial.begun and not run.folder.path.exists():
            run.folder.path.parent.mkdir(parents=True, exist_ok=True)
            trial.path.replace(run.folder.path)
        reached = Reached(0.0, 0.0)
        try:
            figures = finetune(self._session, run, beside=self._teacher, overwrite=False)
            reached = Reached(figures["macro_f1"]["val"], figures["seconds"]["train"])
        except NotFiniteError as error:
            self._screen.say(f"trial {number} broke down: {error}")
        self.study.note(number, epochs, reached)

    def _train(self, number: int, epochs: int) -> tuple[Backbone, Reached]:
        """Train a network, or go on with it, for the first `epochs` of the whole schedule."""
        session, study, folder = self._session, self.study, self.study.trial_folder(number)
        session.open(folder, study.settings, ignored=IGNORED, overwrite=False)
        chain, _ = self._fresh(number)
        place(chain, session.accelerator.device)
        objective = CrossEntropy(session.config.label_smoothing, session.loaders.class_weights)

        def far_enough(epoch: int, _: Scores) -> bool:
            return epoch >= epochs

        try:
            fitted = train(
                session, chain, objective, _KIND, folder, self._schedule, stop=far_enough
            )
        except NotFiniteError as error:
            self._screen.say(f"trial {number} broke down: {error}")
            return chain, Reached(0.0, 0.0)
        return chain, _reached(fitted.history[:epochs])

    def _fresh(self, number: int) -> tuple[Backbone, WeightsSource]:
        """The network of a trial before its first step, the same each time."""
        self._session.seed_stage(f"trial {number}")
        chain = searched_chain(self.study.tried[number], len(self._session.task.classes))
        return chain, WeightsSource("random initialisation", universal_digest(chain))

    def _run(self, number: int, spent: float) -> ChainRun:
        """The run of a network that goes all the way; `spent`: seconds of training the others."""
        study, structure = self.study, self.study.tried[number]
        searched = {
            "study": study.folder.name,
            "trial": number,
            "network": structure.key,
            "trials": self._search.trials,
            "other_trials_seconds": round(spent, 2),
            **structure.model_dump(mode="json"),
        }
        return ChainRun(
            _KIND,
            RunFolder(self._session.places.run(_KIND, f"trial{number}-{structure.key}"), PROG),
            study.settings,
            IGNORED,
            self._schedule,
            partial(self._fresh, number),
            structure=structure,
            searched=searched,
        )

    def _spent(self, going: Sequence[int], marks: Sequence[int]) -> float:
        """Seconds of training the trials that do not go all the way."""
        others = set(range(self._search.trials)) - set(going)
        # one that was passed by those of more --trials can have come to any of the marks
        reached = [[self.study.reached(number, mark) for mark in marks] for number in others]
        return sum(max(at.seconds for at in trial if at) for trial in reached)

    def _standing(self, number: int, epochs: int) -> Standing:
        """A trial at a rung that it has come to, at the costs that were measured once."""
        reached, values = self.study.reached(number, epochs), self.study.values(number)
        assert reached, "it has come there"
        assert values, "it has been timed"
        return Standing(number, reached.macro_f1, *values[1:])


def _reached(history: Sequence[Mapping[str, float]]) -> Reached:
    """The macro F1 after these epochs, and how long they took to train."""
    return Reached(history[-1]["val_macro_f1"], sum(row["seconds"] for row in history))


def execute(config: RunConfig, flags: CommandFlags) -> None:
    """Run the command with settings and flags that were found good."""
    with Screen() as screen:
        session = start_session(config, screen)
        search = Search(session)
        rows = search.run(overwrite=flags.overwrite)
        plots = search.study.plot()
    named = {f"trial {number}": row for number, row in rows.items()}
    title = f"{session.task.name}, networks from scratch beside the teacher"
    screen.console.print(networks_table(named, title))
    screen.say(f"run folders: {session.places.run(_KIND).parent}")
    for plot in plots:
        screen.say(f"plot of the study: {plot}")
