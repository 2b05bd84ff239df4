"""The stages of a tailored run: grow and train the student, cut and fine-tune candidates."""

from itertools import islice
from typing import Any

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
from nettailor.core.trainer import Stop
from nettailor.core.training_state import Fitted
from nettailor.core.weights import load_pretrained
from nettailor.finetune import train
from nettailor.network import save_network
from nettailor.path_shares import PathCosts
from nettailor.prune.importance import measured_on
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.routes import Routes
from nettailor.prune.statistics import STATISTICS_BATCHES, reestimate
from nettailor.resolve import schedule_of
from nettailor.session import Session
from nettailor.student.drawing import StudentPictures
from nettailor.student.loss import TailorLoss
from nettailor.student.network import Student

_SCALE_BATCHES = 5
_IMPORTANCE_BATCHES = 8


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


class Tailoring:
    """The stages of one tailored run; each continues where an earlier session stopped.

    It is the `Bench` of `nettailor.candidates`. student: the trained one, once there is one.
    """

    student: Student

    def __init__(
        self, session: Session, folder: RunFolder, teacher: Backbone, costs: PathCosts
    ) -> None:
        self.session, self.folder, self.costs = session, folder, costs
        self.config = config = session.config
        self.device = session.accelerator.device
        self.teacher = place(teacher, self.device)
        self.taught = session.loaders.validate(self.teacher)
        self.epochs, self.say = config.prune.epochs, session.screen.say
        # candidates for a budget are compared with each other, not with the teacher
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
            complexity=settings.complexity,
            mimicry=settings.mimicry,
            costs=lambda student: self.costs.shares(student).paths,
            label_smoothing=config.label_smoothing,
            class_weights=session.loaders.class_weights,
        )
        # shuffled batches: files lie sorted by class, and one class alone varies less
        batches = islice(session.loaders.train.epoch(0), _SCALE_BATCHES)
        room = room_for(config.batch_size, "a pass of the teacher")
        with session.accelerator.autocast(), room:
            self.loss.calibrate(images.to(self.device) for images, _ in batches)

    def validate(self, network: nn.Module) -> Scores:
        """Scores on the validation split, judged beside the teacher's."""
        return self.judge.of(self.session.loaders.validate(network))

    def grown(self) -> Student:
        """The student before it is trained, with the weights that every session gives it."""
        self.session.seed_stage("student")
        return place(grow_student(self.config, self.chain), self.device)

    def share_of_time(self, network: Student) -> float:
        """The latency of a network over the backbone's, both measured now."""
        size, batch = self.config.image_size, self.config.budget.batch
        keep = self.costs.kept_times()
        with self.session.screen.counting("timing a cut") as tell:
            return share_of_time(
                network, self.teacher, size, self.device, batch=batch, keep=keep, tell=tell
            )

    def _fit(
        self, stage: str, network: Student, schedule: Schedule, loss: TailorLoss, **how: Any
    ) -> Fitted:
        """Train a student by the loss; `how` as for `train`."""
        complexity = loss.expected_cost(network, self.config.image_size)
        # after a cut the path weights hardly move: its start and its end say all
        drawn = range(schedule.epochs + 1) if stage == "student" else (0, schedule.epochs)
        pictures = StudentPictures(
            self.teacher.stages, drawn, lambda student: complexity(student.path_weights())
        )
        how |= {"validate": self.validate, "pictures": pictures}
        student = self.config.student
        how["path_lr"] = student.path_lr * schedule.lr / student.lr
        return train(self.session, network, loss, stage, self.folder, schedule, **how)

    def train_student(self) -> tuple[Fitted, Scores]:
        """Grow the student and train it.

        Returns its course, and its validation scores straight before any cut, with re-estimated
        statistics.
        """
        self.student = student = self.grown()
        self.costs.keep(student)
        self.session.seed_stage("training the student")
        schedule = schedule_of(self.config, "student")
        fitted = self._fit("student", student, schedule, self.loss, keep="last")
        self._reestimate(student)
        save_network(self.folder.path / "student", student, self.session.architecture(self.source))
        return fitted, self.validate(student)

    def routes(self, student: Student) -> Routes:
        """Every route through the trained student, by what it is worth and what it costs."""
        shares = self.costs.shares(student)
        batches = list(islice(self.session.loaders.train.epoch(0), _IMPORTANCE_BATCHES))
        screen = self.session.screen
        screen.say(f"weighing {len(student.wiring.paths)} paths on {len(batches)} batches each")
        with screen.counting("weighing paths") as tell:
            values = measured_on(student, batches, self.session.accelerator, tell)
        return Routes(student.wiring, values, shares.paths, fixed=shares.fixed)

    def _reestimate(self, network: Student) -> None:
        batches = islice(self.session.loaders.train.epoch(0), STATISTICS_BATCHES)
        reestimate(network, batches, self.session.accelerator)

    def cut(self, plan: PrunePlan) -> tuple[Student, Scores]:
        """The student without what the plan drops, its statistics re-estimated, and its scores."""
        network = remove(self.student, plan)
        self._reestimate(network)
        return network, self.validate(network)

    def finetune(self, plan: PrunePlan, stop: Stop | None = None) -> Candidate:
        """Cut and fine-tune with γ1 = 0, from where an earlier call stopped.

        Args:
            plan: what stays of the student.
            stop: as for `trainer.fit`; None: go on to the end.
        """
        settings = self.config.prune
        self.session.seed_stage(plan.name)
        network, straight_after = self.cut(plan)
        if settings.finetune == "all":
            network.finetune_all()
        loss = self.loss.after_cut(mimicry=settings.by == "rank")
        schedule = schedule_of(self.config, "prune")
        fitted = self._fit(plan.name, network, schedule, loss, stop=stop)
        lost = tuple(self.session.task.classes[one] for one in self.judge.lost(fitted.scores))
        return Candidate(plan, network, straight_after, fitted, settings.epochs, lost)
