"""The study of a search: which networks were tried and how far they came, shared by processes.

What a study finds follows from its settings, its seed and the latencies that were measured. The
first ten networks are the same in every study of the same settings, and so, bit for bit on the CPU,
is how each network trains. Later networks, and who goes on, hang on latency as well, which no two
measurements share: a study begun anew ends elsewhere. Every measured value is in the journal,
though, and is measured once: a study that was killed goes on from it, and one process that goes on
proposes what it would have proposed. Several processes propose by what is finished when they ask;
the journal tells what came of it.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from nettailor.claims import Claim, Claims, damaged
from nettailor.core.architecture import SearchedStructure
from nettailor.core.backbone import create_backbone
from nettailor.core.config import EXECUTION_KEYS, TEACHER_KEYS, flat, recorded
from nettailor.core.cost import module_flops
from nettailor.core.errors import UserError
from nettailor.core.files import is_leftover
from nettailor.core.run_folder import STUDY_FILE, RunFolder, unlike
from nettailor.core.vocabulary import searched_chain
from nettailor.halving import Standing
from nettailor.report.formatting import STUDY_PLOTS
from nettailor.search_space import DIRECTIONS, Proposal, SearchSpace, propose
from nettailor.session import Session

PROG = "python -m nettailor.search"
_MACRO_F1 = StudyDirection.MAXIMIZE
_NUMBERS: dict[str, BaseDistribution] = {
    "trial": IntDistribution(0, sys.maxsize),
    "epochs": IntDistribution(0, sys.maxsize),
}
_TEACHER = "teacher"
_CONTENTS = {"trials", *STUDY_PLOTS}  # of a study's folder, beside its journal


class Reached(NamedTuple):
    """Where a network stands at a rung.

    macro_f1: of its best epoch on validation so far, in %; 0 where its training broke down.
    seconds: it has trained for.
    """

    macro_f1: float
    seconds: float


class Study:
    """The study of one backbone's task, image size and seed, in `<out>/<task>/search/<name>/`."""

    def __init__(self, session: Session) -> None:
        """Open a study, or begin it.

        Raises:
            UserError: it is of other settings or of another space, its journal is damaged.
        """
        self._session = session
        self.folder = session.folder("search")
        self.space = SearchSpace(session.config.search, session.config.image_size)
        self.trials, self.rungs = _open(self.folder)
        self._require_same()

    @property
    def settings(self) -> dict[str, Any]:
        """What the `config.yaml` of a trial holds."""
        return recorded(self._session.config, "teacher", "search")

    @property
    def ignored(self) -> tuple[str, ...]:
        """Dotted keys in which a trial's settings may differ: a study can be given more trials,
        and the teacher that is there counts."""
        return ("search.trials", *TEACHER_KEYS)

    def _require_same(self) -> None:
        left_out = {*EXECUTION_KEYS, *self.ignored}
        here = {key: value for key, value in flat(self.settings).items() if key not in left_out}
        here |= {f"space.{key}": value for key, value in self.space.describe().items()}
        differing = unlike(self.trials.describe(here), here)
        if differing:
            raise UserError(
                f"{self.folder} holds a study of other settings: {differing}. Give the "
                f"same settings to go on, another --out, or `{PROG} --overwrite` to discard it "
                "with its runs"
            )

    @property
    def begun(self) -> bool:
        """Whether a network has been tried to the end of its first epochs."""
        return bool(self.trials.completed())

    @cached_property
    def _most_flops(self) -> float:
        config = self._session.config
        with torch.device("meta"):
            chain = create_backbone(config.backbone, len(self._session.task.classes))
        shape = (3, config.image_size, config.image_size)
        return config.search.max_cost * module_flops(chain, shape)

    def affordable(self, structure: SearchedStructure) -> bool:
        """Whether a network has no more multiply-adds than is allowed."""
        size = self._session.config.image_size
        with torch.device("meta"):
            chain = searched_chain(structure, len(self._session.task.classes))
        return module_flops(chain, (3, size, size)) <= self._most_flops

    def proposal(self, number: int) -> Proposal:
        """The network of a trial: the one that was claimed first, else the one to try now.

        Raises UserError where no network fits, and for a journal that holds something else.
        """
        claimed = self.trials.claimed(trial_job(number))
        if not claimed:
            tried = {
                self._structure(trial) for trial in self.trials.study.get_trials(deepcopy=False)
            }
            return propose(
                self.space,
                self._session.config.seed,
                number,
                self.trials.completed(),
                lambda structure: structure not in tried and self.affordable(structure),
            )
        first = claimed[0]
        return Proposal(first.params, first.distributions, self._structure(first))

    def _structure(self, trial: FrozenTrial) -> SearchedStructure:
        try:
            return self.space.structure(trial.params)
        except ValueError as error:
            raise damaged(self.folder / STUDY_FILE, error) from error

    def take(self, number: int, proposal: Proposal) -> Claim | None:
        """Claim a trial's first epochs; None when another process has it, or was quicker."""
        job = trial_job(number)
        claim = self.trials.take(job, proposal.params, proposal.distributions, {"number": number})
        return self._unless_done(self.trials, job, claim)

    def take_rung(self, number: int, epochs: int) -> Claim | None:
        """Claim a trial's training up to a later rung; None as in `take`."""
        job = rung_job(number, epochs)
        params = {"trial": number, "epochs": epochs}
        return self._unless_done(self.rungs, job, self.rungs.take(job, params, _NUMBERS, {}))

    def take_run(self, number: int) -> Claim | None:
        """Claim a trial's training to the end; None when another process has it."""
        epochs = self._session.config.search.epochs
        params = {"trial": number, "epochs": epochs}
        return self.rungs.take(rung_job(number, epochs), params, _NUMBERS, {})

    def take_teacher(self) -> Claim | None:
        """Claim the training of the teacher, which all processes need; None as in `take`."""
        return self.rungs.take(_TEACHER, {}, {}, {})

    def _unless_done(self, claims: Claims, job: str, claim: Claim | None) -> Claim | None:
        """A claim, given up where between the look and the claim somebody else was there."""
        if claim is None:
            return None
        first = claims.claimed(job)[0]
        mine = next(trial for trial in claims.claimed(job) if trial.number == claim.number)
        if claims.completed(job) or first.params != mine.params:
            claims.give_up(claim, "another process was quicker")
            return None
        return claim

    def reached(self, number: int, epochs: int) -> Reached:
        """Where a trial stands at a rung that it has come to."""
        first = self._completed(number)
        later = self.rungs.completed(rung_job(number, epochs))
        trial = later[0] if later else first
        return Reached(trial.values[0], trial.user_attrs["seconds"])

    def standings(self, numbers: Iterable[int], epochs: int) -> list[Standing]:
        """The trials at a rung that all of them have come to."""
        return [self.standing(number, self.reached(number, epochs).macro_f1) for number in numbers]

    def standing(self, number: int, macro_f1: float) -> Standing:
        """A trial with a macro F1 of today, at the costs in the journal."""
        _, parameters, latency = self._completed(number).values
        return Standing(number, macro_f1, parameters, latency)

    def _completed(self, number: int) -> FrozenTrial:
        return self.trials.completed(trial_job(number))[0]

    def trial_folder(self, number: int, structure: SearchedStructure) -> RunFolder:
        """Where a network trains until it becomes a run.

        Its name tells network from network, so that none goes on from another's state.
        """
        return RunFolder(self.folder / "trials" / f"{number}-{structure.key}", PROG)

    def run_folder(self, number: int, structure: SearchedStructure) -> RunFolder:
        """Where a network lives that goes all the way."""
        detail = f"trial{number}-{structure.key}"
        return RunFolder(self._session.folder("searched", detail), PROG)


def _open(folder: Path) -> tuple[Claims, Claims]:
    """The claims on trials, and on all that comes after their first epochs."""
    journal = folder / STUDY_FILE
    return Claims(journal, "trials", DIRECTIONS), Claims(journal, "rungs", [_MACRO_F1])


def trial_job(number: int) -> str:
    """The name of a trial's first epochs."""
    return f"trial {number}"


def rung_job(number: int, epochs: int) -> str:
    """The name of a trial's training up to a later rung."""
    return f"trial {number}, {epochs} epochs"


def require_discardable(session: Session) -> list[RunFolder]:
    """The runs of a study, which can be discarded with it.

    Raises UserError while another process works on the study, and where a folder holds, or is,
    something else.
    """
    folder = session.folder("search")
    if folder.is_symlink():
        raise UserError(f"{folder}: is a symbolic link; remove it yourself or choose another --out")
    if (folder / STUDY_FILE).exists():
        for claims in _open(folder):
            for job, place in claims.held().items():
                raise UserError(f"{folder}: {place} works on {job}; end it before --overwrite")
    for entry in sorted(folder.iterdir()) if folder.exists() else ():
        its_own = entry.name in _CONTENTS or entry.name.startswith(STUDY_FILE)
        if not its_own and not is_leftover(entry):
            raise UserError(
                f"{folder}: holds {entry.name}, which no study writes; move it or choose "
                "another --out"
            )
    any_trial = session.folder("searched", "trial@")
    name = re.compile(re.escape(any_trial.name).replace("@", "[0-9]+-[0-9a-f]{6}"))
    places = any_trial.parent.iterdir() if any_trial.parent.is_dir() else ()
    runs = [RunFolder(place, PROG) for place in sorted(places) if name.fullmatch(place.name)]
    for run in runs:
        run.check(None)
    return runs


def discard_study(session: Session) -> None:
    """Remove a study, its trials and its runs; UserError as in `require_discardable`.

    Asked again here: another process may have begun since.
    """
    folder = session.folder("search")
    for run in require_discardable(session):
        run.discard()
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: cannot be discarded ({error.strerror or error}); remove "
            "it yourself or choose another --out"
        ) from error


def promote(trial: RunFolder, run: RunFolder) -> None:
    """Make a trial's folder that of a run, with all that it has learnt so far."""
    if trial.begun and not run.path.exists():
        run.path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(trial.path, run.path)
