"""The stages of a tailored run: grow and train the student, cut and fine-tune candidates."""

from contextlib import closing
from itertools import islice
from typing import Literal

from torch import nn

from nettailor.candidate import Candidate
from nettailor.core.backbone import Backbone
from nettailor.core.config import RunConfig
from nettailor.core.device import place
from nettailor.core.judge import Judge
from nettailor.core.latency import share_of_time
from nettailor.core.memory import room_for
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import Schedule
from nettailor.core.scores import Scores
from nettailor.core.trainer import Fitted, Stop, fit
from nettailor.core.watch import StageWatcher
from nettailor.core.weights import load_pretrained
from nettailor.network import save_network
from nettailor.path_shares import PathCosts
from nettailor.prune.importance import by_path_weights, measured_on
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.routes import Routes
from nettailor.prune.statistics import STATISTICS_BATCHES, reestimate
from nettailor.session import Session, schedule_of
from nettailor.student.drawing import StudentPictures
from nettailor.student.groups import student_groups
from nettailor.student.loss import TailorLoss
from nettailor.student.network import Student

_SCALE_BATCHES = 5
_IMPORTANCE_BATCHES = 8


def grow_student(config: RunConfig, chain: Backbone) -> Student:
    """The student that the settings ask for; the chain stays as it is."""
    settings, shared = config.student, config.prune.finetune == "task"
    return Student(
        chain,
        skips=settings.skips,
        identities=settings.identities,
        exits=settings.exits,
        batch_norm=settings.batch_norm,
        adapters=shared if settings.adapters == "auto" else settings.adapters,
        shared=shared or config.prune.by == "rank",
    )


class Tailoring:
    """The stages of one tailored run; each continues where an earlier session stopped."""

    def __init__(
        self, session: Session, folder: RunFolder, teacher: Backbone, costs: PathCosts
    ) -> None:
        self.session, self.folder, self.costs = session, folder, costs
        self.config = session.config
        self.device = session.accelerator.device
        self.teacher = place(teacher, self.device)
        self.taught = session.validate(self.teacher)
        config = self.config
        # candidates for a budget are compared with each other, not with the teacher
        self.judge = Judge(config.metric, self.taught, sure=config.prune.budget is None)
        # the teacher's own draw: with --weights none both begin with the same network
        session.seed_stage("teacher")
        chain, self.source = load_pretrained(
            config.backbone, len(session.task.classes), config.weights, config.image_size
        )
        start = config.student.start
        if start == "auto":
            start = "teacher" if config.prune.finetune == "all" else "pretrained"
        if start == "teacher":
            chain = self.teacher
        self.chain = chain
        settings = config.student
        self.loss = TailorLoss(
            self.teacher,
            gamma=settings.gamma,
            distill=settings.distill,
            mimic=settings.mimic,
            complexity=settings.complexity,
            mimicry=settings.mimicry,
            costs=lambda student: self.costs.shares(student).paths,
            label_smoothing=settings.label_smoothing,
            class_weights=session.class_weights,
        )
        # shuffled batches: files lie sorted by class, and one class alone varies less
        batches = islice(session.train_loader.epoch(0), _SCALE_BATCHES)
        room = room_for(config.batch_size, "a pass of the teacher")
        with session.accelerator.autocast(), room:
            self.loss.calibrate(images.to(self.device) for images, _ in batches)

    def validate(self, network: nn.Module) -> Scores:
        """Scores on the validation split, judged beside the teacher's."""
        return self.judge.of(self.session.validate(network))

    def grown(self) -> Student:
        """The student before it is trained, with the weights that every session gives it."""
        self.session.seed_stage("student")
        return place(grow_student(self.config, self.chain), self.device)

    def share_of_time(self, network: Student) -> float:
        """The latency of a network over the backbone's, both measured now."""
        size, batch = self.config.image_size, self.config.prune.batch
        keep = self.costs.kept_times()
        with self.session.screen.counting("timing a cut") as tell:
            return share_of_time(
                network, self.teacher, size, self.device, batch=batch, keep=keep, tell=tell
            )

    def _fit(
        self,
        stage: str,
        network: Student,
        schedule: Schedule,
        loss: TailorLoss,
        *,
        keep: Literal["best", "last"],
        stop: Stop | None = None,
    ) -> Fitted:
        """Train a student by the loss; see `fit` for what stops it."""
        session, config = self.session, self.config
        complexity = loss.expected_cost(network, config.image_size)
        path_lr = config.student.path_lr * schedule.lr / config.student.lr
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
                lambda student: complexity(student.path_weights()),
            ),
        )
        with closing(watcher):
            return fit(
                network,
                loss,
                session.train_loader,
                groups=student_groups(network, schedule, path_lr),
                schedule=schedule,
                accelerator=session.accelerator,
                validate=self.validate,
                keep=keep,
                state_path=self.folder.state_path(stage),
                watcher=watcher,
                stop=stop,
            )

    def train_student(self) -> tuple[Student, Fitted, Scores]:
        """Grow the student and train it.

        Returns the student with re-estimated statistics, its course, and its validation scores
        straight before any cut.
        """
        settings = self.config.student
        student = self.grown()
        self.costs.keep(student)
        self.session.seed_stage("training the student")
        fitted = self._fit(
            "student",
            student,
            schedule_of(settings),
            self.loss,
            keep="last",
        )
        self._reestimate(student)
        save_network(self.folder.path / "student", student, self.session.architecture(self.source))
        return student, fitted, self.validate(student)

    def routes(self, student: Student) -> Routes:
        """Every route through the trained student, by what it is worth and what it costs."""
        shares = self.costs.shares(student)
        if self.config.prune.importance == "path-weights":
            values = by_path_weights(student.path_weights().tolist())
        else:
            batches = list(islice(self.session.train_loader.epoch(0), _IMPORTANCE_BATCHES))
            screen = self.session.screen
            screen.say(f"weighing {len(student.wiring.paths)} paths on {len(batches)} batches each")
            with screen.counting("weighing paths") as tell:
                values = measured_on(student, batches, self.session.accelerator, tell)
        return Routes(student.wiring, values, shares.paths, fixed=shares.fixed)

    def _reestimate(self, network: Student) -> None:
        batches = islice(self.session.train_loader.epoch(0), STATISTICS_BATCHES)
        reestimate(network, batches, self.session.accelerator)

    def cut(self, student: Student, plan: PrunePlan) -> tuple[Student, Scores]:
        """The student without what the plan drops, its statistics re-estimated, and its scores."""
        network = remove(student, plan)
        self._reestimate(network)
        return network, self.validate(network)

    def cut_and_finetune(
        self, student: Student, plan: PrunePlan, stop: Stop | None = None
    ) -> Candidate:
        """Cut and fine-tune with γ1 = 0, from where an earlier call stopped.

        Args:
            student: trained.
            plan: what stays of it.
            stop: as for `fit`; None: go on to the end.
        """
        settings = self.config.prune
        self.session.seed_stage(plan.name)
        network, straight_after = self.cut(student, plan)
        if settings.finetune == "all":
            network.finetune_all()
        fitted = self._fit(
            plan.name,
            network,
            schedule_of(settings),
            self.loss.after_cut(
                mimic=settings.mimic,
                distill=settings.distill,
                label_smoothing=settings.label_smoothing,
            ),
            keep="best",
            stop=stop,
        )
        lost = tuple(self.session.task.classes[one] for one in self.judge.lost(fitted.scores))
        return Candidate(plan, network, straight_after, fitted, settings.epochs, lost)
