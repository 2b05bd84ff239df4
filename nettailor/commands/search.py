"""`python -m nettailor.search`: small networks without pretrained weights, found by search."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any

from nettailor.claims import Claims
from nettailor.commands.teach import ready_teacher, teacher_folder
from nettailor.core.architecture import SearchedStructure
from nettailor.core.backbone import Backbone
from nettailor.core.config import RunConfig
from nettailor.core.console import Screen
from nettailor.core.cost import parameters
from nettailor.core.device import place
from nettailor.core.errors import NotFiniteError
from nettailor.core.flags import CommandFlags
from nettailor.core.latency import measure_latency
from nettailor.core.run_folder import Kind, RunFolder
from nettailor.core.scores import Scores
from nettailor.core.vocabulary import searched_chain
from nettailor.core.weights import WeightsSource, universal_digest
from nettailor.figures import networks_table
from nettailor.finetune import ChainRun, Teacher, finetune, train
from nettailor.halving import better_half, front, rungs
from nettailor.session import Session, start_session
from nettailor.study import (
    Reached,
    Study,
    discard_study,
    promote,
    require_discardable,
    rung_job,
    trial_job,
)
from nettailor.study_plots import write_plots
from nettailor.teacher.objective import CrossEntropy

_LOOK_EVERY = 2.0  # seconds between two looks at what other processes do
_KIND: Kind = "searched"


def run_search(session: Session, *, overwrite: bool) -> dict[int, RunFolder]:
    """Search, or go on with it; returns the runs of the networks that went all the way, by trial.

    Processes that run this on one `out` share the study: no trial is trained by two at once, and
    one that a process left is taken over where it stands.

    Raises:
        UserError: the study is of other settings, nothing fits them, the journal is damaged.
        NotFiniteError: the training of every network broke down.
    """
    if overwrite:
        require_discardable(session)
        # whatever else can be wrong shows before a study is gone, too
        with TemporaryDirectory() as elsewhere:
            config = session.config.model_copy(update={"out": elsewhere})
            Study(replace(session, config=config)).proposal(0)
        session.check_images()
        ready_teacher(session)
        discard_study(session)
    return _Search(session, Study(session)).run()


class _Search:
    """A study on its way to an end."""

    def __init__(self, session: Session, study: Study) -> None:
        self._session, self._study, self._screen = session, study, session.screen
        self._search = session.config.search
        self._waiting_for: list[str] = []

    def run(self) -> dict[int, RunFolder]:
        """Bring every trial as far as it goes."""
        study, search = self._study, self._search
        study.proposal(0)  # before anything is trained: whether any network fits
        if not study.begun:
            self._session.check_images()
        self._teacher = self._ready_teacher()
        going = list(range(search.trials))
        self._bring_to_end(
            study.trials,
            {trial_job(number): partial(self._try, number) for number in going},
            lambda name: bool(study.trials.completed(name)),
        )
        marks = rungs(search.first_epochs, search.epochs)
        for before, epochs in pairwise(marks):
            going = better_half(study.standings(going, before))
            if epochs < search.epochs:
                self._bring_to_end(
                    study.rungs,
                    {rung_job(n, epochs): partial(self._train_on, n, epochs) for n in going},
                    lambda name: bool(study.rungs.completed(name)),
                )
        return self._finish(going, marks)

    def _ready_teacher(self) -> Teacher:
        """The teacher, trained by one process where there is none."""
        folder = teacher_folder(self._session)

        def train() -> None:
            claim = self._study.take_teacher()
            if claim is not None:
                with self._study.rungs.working(claim):
                    teacher = ready_teacher(self._session)
                self._study.rungs.complete(claim, [teacher.figures["macro_f1"]["val"]], {})

        self._bring_to_end(self._study.rungs, {"teacher": train}, lambda _: folder.finished)
        return ready_teacher(self._session)

    def _bring_to_end(
        self,
        claims: Claims,
        jobs: Mapping[str, Callable[[], None]],
        done: Callable[[str], bool],
    ) -> None:
        """Do all jobs that are not done, or wait until another process has done them."""
        left = dict(jobs)
        while left := {name: job for name, job in left.items() if not done(name)}:
            held = claims.held()
            free = next((job for name, job in left.items() if name not in held), None)
            if free is not None:
                free()
                continue
            names = [f"{name} ({held[name]})" for name in left]
            if names != self._waiting_for:
                self._screen.say(f"waiting for other processes: {'; '.join(names)}")
            self._waiting_for = names
            time.sleep(_LOOK_EVERY)

    def _try(self, number: int) -> None:
        """Train a network for its first epochs and time it."""
        study = self._study
        proposal = study.proposal(number)
        claim = study.take(number, proposal)
        if claim is None:
            return  # it will be seen as held, or as done
        self._screen.say(f"trial {number}: {in_words(proposal.structure)}")
        with study.trials.working(claim):
            network, reached = self._train(number, proposal.structure, self._search.first_epochs)
            device = self._session.accelerator.device
            networks = {"teacher": place(self._teacher.network, device), "trial": network}
            size = self._session.config.image_size
            with self._screen.counting("timing") as tell:
                latency = measure_latency(networks, size, device, batches=(1,), tell=tell)
        median = {name: row["1"]["median"] for name, row in latency.items()}
        values = [
            reached.macro_f1,
            float(parameters(network)),
            median["trial"] / median["teacher"],  # of one moment: machines and moods differ
        ]
        study.trials.complete(claim, values, {"seconds": reached.seconds, "latency_ms": median})
        self._screen.say(
            f"trial {number}: macro F1 {values[0]:.2f} %, {int(values[1]):,} parameters, "
            f"latency {values[2]:.3f}×"
        )

    def _train_on(self, number: int, epochs: int) -> None:
        """Train a network up to a later rung."""
        claim = self._study.take_rung(number, epochs)
        if claim is None:
            return
        self._screen.say(f"trial {number} goes on to {epochs} epochs")
        with self._study.rungs.working(claim):
            _, reached = self._train(number, self._structure(number), epochs)
        self._study.rungs.complete(claim, [reached.macro_f1], {"seconds": reached.seconds})

    def _train(
        self, number: int, structure: SearchedStructure, epochs: int
    ) -> tuple[Backbone, Reached]:
        """Train a network, or go on with it, for the first `epochs` of the whole schedule."""
        session, study = self._session, self._study
        folder = study.trial_folder(number, structure)
        session.open(folder, study.settings, ignored=study.ignored, overwrite=False)
        chain, _ = self._fresh(number, structure)
        place(chain, session.accelerator.device)
        objective = CrossEntropy(self._search.label_smoothing, self._session.class_weights)

        def far_enough(epoch: int, _: Scores) -> bool:
            return epoch >= epochs

        try:
            fitted = train(session, chain, objective, _KIND, folder, self._search, stop=far_enough)
        except NotFiniteError as error:
            self._screen.say(f"trial {number} broke down: {error}")
            return chain, Reached(0.0, 0.0)
        return chain, _reached(fitted.history[:epochs])

    def _structure(self, number: int) -> SearchedStructure:
        return self._study.proposal(number).structure

    def _fresh(self, number: int, structure: SearchedStructure) -> tuple[Backbone, WeightsSource]:
        """The network of a trial before its first step, the same each time."""
        self._session.seed_stage(f"trial {number}")
        chain = searched_chain(structure, len(self._session.task.classes))
        return chain, WeightsSource("random initialisation", universal_digest(chain))

    def _finish(self, numbers: Sequence[int], marks: Sequence[int]) -> dict[int, RunFolder]:
        """Train networks to the end, as runs; returns those that came there."""
        study = self._study
        # what the others have cost; these tell it in their own summaries
        spent = 0.0
        for number in set(range(self._search.trials)) - set(numbers):
            # a network of the last rung may have been passed by those of more --trials
            came_to = [m for m in marks[1:] if study.rungs.completed(rung_job(number, m))]
            spent += study.reached(number, max(came_to, default=marks[0])).seconds
        runs = {number: study.run_folder(number, self._structure(number)) for number in numbers}
        jobs = {rung_job(number, self._search.epochs): number for number in numbers}

        def done(job: str) -> bool:
            ends = study.rungs.completed(job)
            return runs[jobs[job]].finished or any(end.values[0] == 0 for end in ends)

        self._bring_to_end(
            study.rungs,
            {job: partial(self._train_to_end, number, spent) for job, number in jobs.items()},
            done,
        )
        runs = {number: run for number, run in runs.items() if run.finished}
        if not runs:
            raise NotFiniteError(
                "the training of every network broke down: lower search.lr, or set "
                "search.clip_norm (other settings need --overwrite or another --out)"
            )
        for run in runs.values():  # one that was finished before has to be of these settings
            self._session.open(run, study.settings, ignored=study.ignored, overwrite=False)
        return runs

    def _run(self, number: int, spent: float) -> ChainRun:
        study, structure = self._study, self._structure(number)
        return ChainRun(
            _KIND,
            study.run_folder(number, structure),
            study.settings,
            study.ignored,
            self._search,
            partial(self._fresh, number, structure),
            structure=structure,
            searched={
                "study": study.folder.name,
                "trial": number,
                "network": structure.key,
                "trials": self._search.trials,
                "other_trials_seconds": round(spent, 2),
                **structure.model_dump(mode="json"),
            },
        )

    def _train_to_end(self, number: int, spent: float) -> None:
        claim = self._study.take_run(number)
        if claim is None:
            return
        run = self._run(number, spent)
        promote(self._study.trial_folder(number, self._structure(number)), run.folder)
        reached = Reached(0.0, 0.0)
        with self._study.rungs.working(claim):
            try:
                figures = finetune(self._session, run, beside=self._teacher, overwrite=False)
                reached = Reached(figures["macro_f1"]["val"], figures["seconds"]["train"])
            except NotFiniteError as error:
                self._screen.say(f"trial {number} broke down: {error}")
        self._study.rungs.complete(claim, [reached.macro_f1], {"seconds": reached.seconds})


def _reached(history: Sequence[Mapping[str, float]]) -> Reached:
    """The macro F1 of the best of these epochs, and how long they took to train."""
    best: Scores | None = None
    for row in history:
        figures = row["val_accuracy"], row["val_macro_f1"], row["val_loss"]
        scores = Scores(*figures, judged=row["val_judged"])
        if scores.better_than(best):
            best = scores
    assert best is not None, "a network has trained for an epoch"
    return Reached(best.macro_f1, sum(row["seconds"] for row in history))


def in_words(structure: SearchedStructure) -> str:
    """Such as `stem 16, 2 × MBConv 24 (kernel 3, stride 2, silu, expansion 4), head 128`."""
    rows = [
        f"{row.repeats} × {row.kind} {row.channels} (kernel {row.kernel}, stride {row.stride}, "
        f"{row.activation}" + f", expansion {row.expansion}" * (row.expansion > 1) + ")"
        for row in structure.blocks
    ]
    return ", ".join([f"stem {structure.stem}", *rows, f"head {structure.head}"])


def execute(config: RunConfig, flags: CommandFlags) -> None:
    """Run the command with settings and flags that were found good."""
    with Screen() as screen:
        session = start_session(config, screen)
        runs = run_search(session, overwrite=flags.overwrite)
        study = Study(session)
        plots = write_plots(study.trials.study, study.folder)
    rows: dict[int, dict[str, Any]] = {n: run.read_summary() for n, run in runs.items()}
    teacher = next(iter(rows.values()))["teacher"]
    named = {f"trial {number}": row for number, row in rows.items()}
    title = f"{session.task.name}, networks from scratch beside the teacher"
    screen.console.print(networks_table({"teacher": teacher, **named}, title))
    standings = [study.standing(number, row["macro_f1"]["val"]) for number, row in rows.items()]
    best = ", ".join(map(str, front(standings)))
    screen.say(f"none beats these in macro F1, parameters and latency: trial {best}")
    screen.say(f"run folders: {next(iter(runs.values())).path.parent}")
    for plot in plots:
        screen.say(f"plot of the study: {plot}")
