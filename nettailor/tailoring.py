"""The stages of a tailored run: grow and train the student, cut and fine-tune candidates."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn

from nettailor.core.backbone import Backbone
from nettailor.core.config import RunConfig
from nettailor.core.device import place
from nettailor.core.judge import Judge
from nettailor.core.latency import share_of_time
from nettailor.core.memory import room_for
from nettailor.core.modes import training
from nettailor.core.printable import printable
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import Schedule, parameter_groups
from nettailor.core.scores import Scores
from nettailor.core.trainer import Fitted, Stop, fit
from nettailor.core.watch import StageWatcher
from nettailor.core.weights import load_pretrained
from nettailor.network import save_network
from nettailor.path_shares import PathCosts
from nettailor.prune.depths import decided
from nettailor.prune.importance import by_path_weights, measured
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.routes import Routes
from nettailor.prune.statistics import reestimate
from nettailor.session import Session, schedule_of
from nettailor.student.drawing import StudentPictures
from nettailor.student.loss import TailorLoss, expected_cross_entropy
from nettailor.student.network import Student

_STATISTICS_BATCHES = 20
_SCALE_BATCHES = 5
_IMPORTANCE_BATCHES = 8


@dataclass
class Candidate:
    """A student cut by one plan and fine-tuned.

    Attributes:
        straight_after: validation scores after the cut and re-estimated statistics, untrained.
        epochs: of the whole fine-tuning.
        lost: names of the classes that it has lost, see `nettailor.core.judge`.
    """

    plan: PrunePlan
    network: Student
    straight_after: Scores
    fitted: Fitted
    epochs: int
    lost: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether it was fine-tuned to its end."""
        return len(self.fitted.history) == self.epochs

    @property
    def name(self) -> str:
        """The plan's."""
        return self.plan.name

    @property
    def scores(self) -> Scores:
        """On validation, after fine-tuning."""
        return self.fitted.scores

    def reaches(self, target: float) -> bool:
        """Whether it stands at `target` per cent at least on validation."""
        return self.scores.standing >= target

    def reached(self, target: float) -> bool:
        """The same when it was decided, whatever later epochs brought.

        A search that goes on in another session has to take the turns that it took before.
        """
        for epochs in range(1, len(self.fitted.history) + 1):
            row = self._best(epochs)
            error = row.get("val_error", 0.0)
            if decided(epochs, self.epochs, _standing(row), target, error):
                break
        return _standing(row) >= target

    def standing(self, epochs: int) -> tuple[float, float]:
        """How it stood after so many of its epochs; the greater one is the better one.

        By its best epoch until then, as `Scores.better_than` has it, whatever later ones brought.
        """
        row = self._best(epochs)
        return _standing(row), -row["val_loss"]

    def _best(self, epochs: int) -> Mapping[str, float]:
        """The metrics of its best epoch of so many."""
        rows = self.fitted.history[:epochs]
        return max(rows, key=lambda row: (_standing(row), -row["val_loss"]))

    @property
    def lost_in_words(self) -> str:
        """The classes that it has lost, such as `class 'defect'`."""
        names = ", ".join(map(repr, self.lost[:5])) + ", …" * (len(self.lost) > 5)
        return f"class{'es' * (len(self.lost) > 1)} {printable(names)}"

    def verdict(self, target: float | None) -> str:
        """What became of it, in words; None: it lost a race."""
        if target is None:
            return "dropped out"
        if self.reaches(target):
            return "within tolerance"
        lost = f", loses {self.lost_in_words}" if self.lost else ""
        return ("not surely within tolerance" if self.ended else "ruled out early") + lost


def _standing(row: Mapping[str, float]) -> float:
    """What an epoch is judged by; rows of earlier versions know the accuracy alone."""
    return row.get("val_judged", row["val_accuracy"])


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
            config.backbone, len(session.task.classes), config.weights
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
        with self.session.screen.counting("timing a cut") as tell:
            return share_of_time(network, self.teacher, size, self.device, batch=batch, tell=tell)

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
                lambda student: complexity(student.path_weights()),
            ),
        )
        with closing(watcher):
            return fit(
                network,
                loss,
                session.train_loader,
                groups=groups,
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
                look = partial(measured, student, self._loss(student, batches), tell)
                values = self._unmoved(student, look)
        return Routes(student.wiring, values, shares.paths, fixed=shares.fixed)

    def _loss(self, student: Student, batches: list[tuple[Tensor, Tensor]]) -> Callable[[], float]:
        """Cross-entropy over the batches, with the statistics of each batch."""

        def loss() -> float:
            total = 0.0
            for images, labels in batches:
                room = room_for(len(images), "weighing paths")
                with self.session.accelerator.autocast(), room:
                    output = student(images.to(self.device, memory_format=torch.channels_last))
                labels = labels.to(self.device)
                by_head, heads = torch.stack(output.by_head), student.of_heads(output.alpha)
                total += float(expected_cross_entropy(by_head.float(), heads, labels))
            return total / len(batches)

        return loss

    def _unmoved(self, student: Student, look: Callable[[], list[float]]) -> list[float]:
        """What a look at the student in training mode gives; its statistics are put back."""
        before = {name: value.clone() for name, value in student.state_dict().items()}
        with training(student):
            seen = look()
        student.load_state_dict(before)
        return seen

    def _reestimate(self, network: Student) -> None:
        batches = islice(self.session.train_loader.epoch(0), _STATISTICS_BATCHES)
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
