"""The stages of a tailored run: grow and train the student, cut and fine-tune candidates."""

from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch

from nettailor.core.backbone import Chain
from nettailor.core.device import place
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import Schedule, parameter_groups
from nettailor.core.scores import Scores
from nettailor.core.trainer import Fitted, fit
from nettailor.core.watch import StageWatcher
from nettailor.core.weights import load_pretrained
from nettailor.network import save_network
from nettailor.session import Session, schedule_of
from prune.depths import hopeless
from prune.plan import PrunePlan
from prune.remove import remove
from prune.statistics import reestimate
from student.complexity import FORMS
from student.drawing import StudentPictures
from student.grow import grow, path_costs
from student.mimicry import DEFAULT_MIMIC, MimicryForm, node_scales
from student.network import Student
from student.objective import TailorObjective
from teacher.target import as_target

_STATISTICS_BATCHES = 20
_SCALE_BATCHES = 5


@dataclass
class Candidate:
    """A student cut at one depth and fine-tuned.

    Attributes:
        straight_after: validation scores after the cut and re-estimated statistics, untrained.
    """

    plan: PrunePlan
    network: Student
    straight_after: Scores
    fitted: Fitted

    @property
    def name(self) -> str:
        """Such as `remove-08`."""
        return f"remove-{self.plan.removed:02d}"

    @property
    def scores(self) -> Scores:
        """On validation, after fine-tuning."""
        return self.fitted.scores

    def reaches(self, target: float) -> bool:
        """Whether it is at least `target` per cent accurate on validation."""
        return self.scores.accuracy >= target

    def verdict(self, target: float) -> str:
        """What became of it, in words."""
        if self.reaches(target):
            return "within tolerance"
        return "ruled out early" if self.fitted.stopped_early else "short of the teacher"


class Tailoring:
    """The stages of one tailored run; each continues where an earlier session stopped."""

    def __init__(self, session: Session, folder: RunFolder, teacher: Chain) -> None:
        self.session, self.folder = session, folder
        self.config = session.config
        self.device = session.accelerator.device
        self.teacher = place(teacher, self.device)
        self.target = as_target(self.teacher)
        config = self.config
        # the teacher's own draw: with --weights none both begin with the same network
        session.seed_stage("teacher")
        self.chain, self.source = load_pretrained(
            config.backbone, len(session.task.classes), config.weights
        )
        form = config.student.mimicry
        if form == "auto":
            form = "mean-square" if self.chain.family == "resnet" else "normalized"
        asked = config.student.mimic
        self.mimic = DEFAULT_MIMIC[form] if asked is None else asked
        self.mimic_scales = self._mimic_scales(form)

    def _mimic_scales(self, form: MimicryForm) -> list[float]:
        # shuffled batches: files lie sorted by class, and one class alone varies less
        batches = islice(self.session.train_loader.epoch(0), _SCALE_BATCHES)
        with self.session.accelerator.autocast():
            scales = [
                node_scales(form, self.target(images.to(self.device))) for images, _ in batches
            ]
        return [sum(of_node) / len(scales) for of_node in zip(*scales, strict=True)]

    def _fit(
        self,
        stage: str,
        network: Student,
        schedule: Schedule,
        *,
        gamma: float,
        mimic: float,
        label_smoothing: float,
        keep: Literal["best", "last"],
        target: float | None = None,
    ) -> Fitted:
        """Train a student by the objective; `target` lets a hopeless one stop early."""
        session, config = self.session, self.config
        costs, total = path_costs(network, self.teacher, config.image_size)
        shares = [
            cost.flops / total.flops
            if config.student.cost == "flops"
            else cost.parameters / total.parameters
            for cost in costs
        ]
        complexity = FORMS[config.student.complexity]
        cost = torch.tensor(shares, device=self.device)
        objective = TailorObjective(
            self.target,
            gamma=gamma,
            complexity=complexity,
            cost=cost,
            mimic=mimic,
            mimic_scales=self.mimic_scales,
            label_smoothing=label_smoothing,
        )
        own = [
            (name, parameter)
            for name, parameter in network.named_parameters()
            if not name.startswith("path_weights.")
        ]
        groups = parameter_groups(own, schedule)
        groups.append(
            {
                "params": [network.path_weights.logits],
                "weight_decay": 0.0,
                "lr": config.student.path_lr * schedule.lr / config.student.lr,
            }
        )
        # after a cut the path weights hardly move: its start and its end say all
        drawn = range(schedule.epochs + 1) if stage == "student" else (0, schedule.epochs)
        watcher = StageWatcher(
            stage,
            self.folder,
            session.screen,
            epochs=schedule.epochs,
            steps_per_epoch=session.train_loader.steps_per_epoch,
            pictures=StudentPictures(
                self.teacher.stages,
                drawn,
                lambda student: complexity(student.path_weights(), cost, student.wiring),
            ),
        )
        with closing(watcher):
            return fit(
                network,
                objective,
                session.train_loader,
                groups=groups,
                schedule=schedule,
                accelerator=session.accelerator,
                validate=session.validate,
                keep=keep,
                state_path=self.folder.state_path(stage),
                watcher=watcher,
                hopeless=None
                if target is None
                else lambda epoch, best: hopeless(epoch, schedule.epochs, best.accuracy, target),
            )

    def train_student(self) -> tuple[Student, Fitted, Scores]:
        """Grow the student out of the frozen pretrained blocks and train it.

        Returns the student with re-estimated statistics, its course, and its validation scores
        straight before any cut.
        """
        settings = self.config.student
        self.session.seed_stage("student")
        student = place(
            grow(self.chain, skips=settings.skips, batch_norm=settings.batch_norm), self.device
        )
        fitted = self._fit(
            "student",
            student,
            schedule_of(settings),
            gamma=settings.gamma,
            mimic=self.mimic,
            label_smoothing=settings.label_smoothing,
            keep="last",
        )
        self._reestimate(student)
        save_network(self.folder.path / "student", student, self.session.architecture(self.source))
        return student, fitted, self.session.validate(student)

    def _reestimate(self, network: Student) -> None:
        batches = islice(self.session.train_loader.epoch(0), _STATISTICS_BATCHES)
        reestimate(network, batches, self.session.accelerator)

    def cut_and_finetune(
        self, student: Student, plan: PrunePlan, target: float | None
    ) -> Candidate:
        """Remove what the plan drops, re-estimate statistics, fine-tune with γ1 = 0.

        A candidate that has no hope to reach `target` per cent stops early; None: it never does.
        """
        settings = self.config.prune
        network = remove(student, plan)
        name = f"remove-{plan.removed:02d}"
        self.session.seed_stage(name)
        self._reestimate(network)
        straight_after = self.session.validate(network)
        if settings.finetune == "all":
            network.finetune_all()
        fitted = self._fit(
            name,
            network,
            schedule_of(settings),
            gamma=0.0,
            mimic=self.mimic if settings.mimic is None else settings.mimic,
            label_smoothing=settings.label_smoothing,
            keep="best",
            target=target,
        )
        return Candidate(plan, network, straight_after, fitted)
