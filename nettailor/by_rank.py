"""Tailoring as published: a student trains with path weights, then blocks go by their rank."""

from functools import partial
from itertools import islice

from nettailor.candidates import by_rank, keep_first
from nettailor.core.config import RunConfig
from nettailor.core.errors import UserError
from nettailor.core.memory import room_for
from nettailor.front import Seconds
from nettailor.network import save_network
from nettailor.prune.depths import default_depths
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.prune.routes import most_valuable
from nettailor.student.network import Student
from nettailor.tailoring import Tailored, Tailoring, expected_cost, wiring_of

_SCALE_BATCHES = 5


class ByRank(Tailoring):
    """See NetTailor, section 3; student: the trained one, once there is one."""

    student: Student

    def tailored(self, target: float) -> Tailored:
        """Train the student, then fine-tune its cuts from the deepest on until one is there."""
        # shuffled batches: files lie sorted by class, and one class alone varies less
        batches = islice(self.session.loaders.train.epoch(0), _SCALE_BATCHES)
        room = room_for(self.config.batch_size, "a pass of the teacher")
        with self.session.accelerator.autocast(), room:
            self.loss.calibrate(images.to(self.device) for images, _ in batches)
        self.student = student = self.grown()
        self.costs.keep(student)
        self.session.seed_stage("training the student")
        schedule = self.session.schedule("student")
        curves = partial(expected_cost, self.loss, self.config.image_size)
        fitted = self.fit("student", student, schedule, self.loss, curves)
        self.reestimate(student)
        save_network(self.folder.path / "student", student, self.session.architecture(self.source))
        before = self.validate(student)
        self.say(f"student before the cut: validation {self.judge.value(before):.2f} %")
        prune = self.config.prune
        depths = prune.remove or (*default_depths(len(self.session.stages)), 0)
        plans = by_rank(student, depths, prune.threshold, self.say)
        spent = Seconds(fitted.seconds, fitted.total_seconds)
        candidates = keep_first(self, plans, target, self.judge.aim)
        return Tailored(candidates, spent, {"the student before the cut": before})

    def start(self, plan: PrunePlan) -> Student:
        """The student without what the plan drops, its statistics re-estimated."""
        network = remove(self.student, plan)
        self.reestimate(network)
        if self.config.prune.finetune == "all":
            network.finetune_all()
        return network


def check_depths(asked: tuple[int, ...] | None, blocks: int) -> None:
    """Raise UserError for numbers of blocks that a backbone cannot lose."""
    if asked is not None and (not asked or max(asked) > blocks):
        raise UserError(
            f"prune.remove = {list(asked)}: give numbers from 0 to the backbone's {blocks} blocks"
        )


def check_routes(config: RunConfig, classes: int) -> None:
    """Raise UserError where more blocks are to be removed by rank than any student can lose."""
    asked = config.prune.remove
    if config.prune.by != "rank" or asked is None:
        return
    wiring = wiring_of(config, classes)
    blocks = len(wiring.of_kind("block"))
    needed = -round(most_valuable(wiring, [-(path.kind == "block") for path in wiring.paths]).value)
    if max(asked) > blocks - needed:
        raise UserError(
            f"prune.remove = {list(asked)}: at most {blocks - needed} of the {blocks} blocks can "
            "go, beside the others there is no path; give fewer, or more --skips"
        )
