"""What all ways of tailoring have in common: the teacher, the judge, fine-tuning after a cut."""

from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from torch import nn

from nettailor.candidate import Candidate
from nettailor.core.architecture import Architecture
from nettailor.core.backbone import Backbone, create_backbone
from nettailor.core.config import RunConfig
from nettailor.core.device import place
from nettailor.core.judge import Judge
from nettailor.core.objective import Objective
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import Schedule
from nettailor.core.scores import Scores
from nettailor.core.trainer import Stop
from nettailor.core.training_state import Fitted
from nettailor.core.weights import load_pretrained
from nettailor.finetune import train
from nettailor.front import Seconds
from nettailor.path_shares import PathCosts
from nettailor.prune.plan import PrunePlan
from nettailor.prune.statistics import STATISTICS_BATCHES, reestimate
from nettailor.session import Session
from nettailor.student.loss import TailorLoss
from nettailor.student.network import Student
from nettailor.student.pictures import Curves, StudentPictures
from nettailor.student.wiring import Wiring


class Tailored(NamedTuple):
    """What a way of tailoring ends with.

    candidates: that were fine-tuned, the one that is kept first. seconds: spent before they were.
    before: validation scores by name of what came before them.
    """

    candidates: list[Candidate]
    seconds: Seconds
    before: Mapping[str, Scores]


def grow_student(config: RunConfig, chain: Backbone) -> Student:
    """The student that the resolved settings ask for; the chain stays as it is."""
    settings, shared = config.student, config.prune.finetune == "task"
    return Student(
        chain,
        skips=settings.skips,
        identities=settings.identities,
        exits=settings.exits,
        batch_norm=settings.batch_norm,
        adapters=settings.adapters is True,
        shared=shared or config.prune.by == "rank",
    )


def wiring_of(config: RunConfig, classes: int) -> Wiring:
    """The paths of a student before it is trained."""
    return grow_student(config, create_backbone(config.backbone, classes, config.image_size)).wiring


class Tailoring:
    """One tailored run; each stage continues where an earlier session stopped.

    It is the `Bench` of `nettailor.candidates`.
    """

    def __init__(
        self, session: Session, folder: RunFolder, teacher: Backbone, costs: PathCosts
    ) -> None:
        self.session, self.folder, self.costs = session, folder, costs
        self._sessions: dict[int | None, Session] = {None: session}
        self.config = config = session.config
        self.device = session.accelerator.device
        self.teacher = place(teacher, self.device)
        self.taught = session.loaders.validate(self.teacher)
        self.epochs, self.say = session.schedule("prune").epochs, session.screen.say
        self.judge = Judge(config.metric, self.taught, sure=config.budget.given is None)
        # the teacher's own draw: with --weights none both begin with the same network
        session.seed_stage("teacher")
        chain, self.source = load_pretrained(
            config.backbone, len(session.task.classes), config.weights, config.image_size
        )
        # blocks that train on begin with the teacher's weights, shared ones stay as pretrained
        self.chain = self.teacher if config.prune.finetune == "all" else chain
        settings = config.student
        self.loss = TailorLoss(
            self.teacher,
            gamma=settings.gamma,
            distill=settings.distill,
            mimic=settings.mimic,
            complexity="published" if config.prune.by == "rank" else "route",
            mimicry=settings.mimicry,
            costs=lambda student: self.costs.shares(student).paths,
            label_smoothing=config.label_smoothing,
            class_weights=session.loaders.class_weights,
        )

    def tailored(self, target: float) -> Tailored:
        """The whole way from the teacher to fine-tuned candidates.

        target: what a candidate has to reach on validation, in %.
        """
        raise NotImplementedError

    def start(self, plan: PrunePlan) -> Student:
        """What a plan leaves, as it stands before it is fine-tuned."""
        raise NotImplementedError

    def schedule(self) -> Schedule:
        """How what a plan leaves is fine-tuned."""
        return self.session.schedule("prune")

    def architecture(self, plan: PrunePlan) -> Architecture:
        """Of what a plan leaves, as files tell it."""
        return self.at(plan.side).architecture(self.source)

    def at(self, side: int | None) -> Session:
        """The session with its images at a side in pixels, None for their own."""
        if side is not None and side not in self._sessions:
            self._sessions[side] = self.session.at(side)
        return self._sessions[side]

    def validate(self, network: nn.Module) -> Scores:
        """Scores on the validation split, judged beside the teacher's.

        What is cut to another resolution reads the images as it will when it is used.
        """
        side = network.side if isinstance(network, Student) else None
        return self.judge.of(self.at(side).loaders.validate(network))

    def grown(self) -> Student:
        """The student before it is trained, with the weights that every session gives it."""
        self.session.seed_stage("student")
        return place(grow_student(self.config, self.chain), self.device)

    def reestimate(self, network: nn.Module) -> None:
        """See `nettailor.prune.statistics`."""
        batches = islice(self.session.loaders.train.epoch(0), STATISTICS_BATCHES)
        reestimate(network, batches, self.session.accelerator)

    def fit(
        self,
        stage: str,
        network: nn.Module,
        schedule: Schedule,
        loss: Objective,
        curves: Curves,
        **how: Any,
    ) -> Fitted:
        """Train a student by a loss; `how` as for `train`."""
        # after a cut the path weights hardly move: its start and its end say all
        drawn = range(schedule.epochs + 1) if stage.startswith("student") else (0, schedule.epochs)
        pictures = StudentPictures(self.teacher.stages, drawn, curves)
        student = self.config.student
        how = {"validate": self.validate, "pictures": pictures, **how}
        how["path_lr"] = student.path_lr * schedule.lr / student.lr
        return train(self.session, network, loss, stage, self.folder, schedule, **how)

    def finetune(self, plan: PrunePlan, stop: Stop | None = None) -> Candidate:
        """Fine-tune what a plan leaves with γ1 = 0, from where an earlier call stopped.

        Args:
            plan: what stays of the student.
            stop: as for `trainer.fit`; None: go on to the end.
        """
        settings = self.config.prune
        self.session.seed_stage(plan.name)
        network = self.start(plan)
        before = self.validate(network)
        loss = self.loss.after_cut(mimicry=settings.by == "rank")
        schedule = self.schedule()
        # a network with fewer channels has no paths that the table knows
        curves: Curves = (
            (lambda *_: {}) if plan.wide else partial(expected_cost, loss, self.config.image_size)
        )
        fitted = self.fit(plan.name, network, schedule, loss, curves, stop=stop)
        lost = tuple(self.session.task.classes[one] for one in self.judge.lost(fitted.scores))
        return Candidate(plan, network, before, fitted, self.epochs, lost)


def expected_cost(
    loss: TailorLoss, image_size: int, network: nn.Module, epoch: int
) -> dict[str, float]:
    """The curve of E[C], as a share of the backbone's cost."""
    assert isinstance(network, Student), "path weights are a student's"
    complexity = loss.expected_cost(network, image_size)
    return {"expected_complexity": complexity(network.path_weights()).item()}
