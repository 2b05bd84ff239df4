"""Tailoring by networks of several sizes and resolutions, each of them kept on disk."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nettailor.budget import budget_share
from nettailor.candidates import keep_better, keep_first
from nettailor.core.architecture import Architecture
from nettailor.core.backbone import Backbone
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.latency import share_of_time
from nettailor.core.ranks import from_main
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import Schedule
from nettailor.core.scores import Scores
from nettailor.front import Front, Point, Seconds, size_name, write_front
from nettailor.kept_sizes import KeptSizes
from nettailor.narrowed_sizes import Narrowing
from nettailor.network import narrowed_structure
from nettailor.path_shares import PathCosts
from nettailor.prune.fold import fold
from nettailor.prune.plan import PrunePlan
from nettailor.prune.shrink import Shrinking
from nettailor.resolutions import may_lower, sides, tried
from nettailor.resolve import GOES_ON
from nettailor.session import Session
from nettailor.share import UNITS
from nettailor.student.costs import PathShares, shares_of
from nettailor.student.network import Student
from nettailor.tailoring import Tailored, Tailoring, grow_student


class BySizes(Tailoring):
    """Sizes at each resolution that is tried; those that may be kept are fine-tuned.

    sizes: the networks that there are, and those that lost channels. together: whether those of all
    resolutions are made at once where there is no budget.
    """

    together = False

    def __init__(
        self,
        session: Session,
        folder: RunFolder,
        teacher: Backbone,
        costs: PathCosts,
        *,
        of: Path | None = None,
    ) -> None:
        """of: the run whose sizes they are; None: the folder's own."""
        super().__init__(session, folder, teacher, costs)
        self._wiring = grow_student(self.config, self.chain).wiring
        self.sizes = KeptSizes(of or folder.path, self._wiring, self.device)
        self._timed = self.config.budget.max_latency_ms is not None
        self._budget: float | None = None  # a share of the backbone's cost
        # by side: of what blocks and channels leave; sides of which no network keeps the budget
        self._last, self._missed = dict[int | None, Point](), set[int | None]()

    def tailored(self, target: float) -> Tailored:
        """Make sizes at each resolution; then fine-tune the last of each, or what channels leave.

        Without a budget those are fine-tuned that may be within tolerance.
        """
        whole = self.grown()
        self._budget = budget_share(self.config.budget, self.costs.shares(whole))
        self._narrowing = Narrowing(
            self.session, self.teacher, self._budget, self.costs, self.folder.path
        )
        tried = self._tried(whole)
        if self._budget is None and self.together:
            took = [self.make_sizes(target, tried)]
        else:
            took = [self.make_sizes(target, {side: shares}) for side, shares in tried.items()]
        if self._budget is None:
            points = self.sizes.front.points
            plans = [points[i].plan(self._wiring) for i in self.order(points)]
            candidates = keep_first(self, plans, target, self.judge.aim)
        else:
            lasts = [one for side, one in self._last.items() if side not in self._missed]
            lasts = lasts or [*self._last.values()]
            candidates = keep_better(self, [one.plan(self._wiring) for one in lasts])
        ends = {one.name: one.scores.accuracy for one in candidates if one.ended}
        seconds = Seconds(*map(sum, zip(*took, strict=True)))
        points = [one._replace(finetuned=ends.get(one.name)) for one in self.sizes.front.points]
        write_front(self.folder.path, Front(points, seconds))
        return Tailored(candidates, seconds, {})

    def make_sizes(self, target: float, at: Mapping[int | None, PathShares]) -> Seconds:
        """Make the sizes of some resolutions; returns what that took.

        Notes the one that is fine-tuned where there is a budget, and whether it misses that.

        Args:
            target: in %, that a size has to reach where there is no budget.
            at: what paths cost by side: of one resolution, or of all of them that go together.
        """
        raise NotImplementedError

    def order(self, points: Sequence[Point]) -> list[int]:
        """Positions of the sizes in the order in which they are fine-tuned without a budget."""
        raise NotImplementedError

    def leanest(self, student: Student, shares: PathShares) -> float:
        """The least that a network may cost at a student's side, a share of the backbone's."""
        raise NotImplementedError

    def _tried(self, student: Student) -> dict[int | None, PathShares]:
        """What its paths cost, by each side at which there are sizes."""
        config, settings = self.config, self.config.student
        at = sides(self.teacher, config.image_size, settings.cost, settings.levers)
        if len(at) == 1 and may_lower(settings.levers, settings.cost):
            self.say(f"images stay at {config.image_size} px: the backbone takes no smaller ones")
        found = tried(student, at, self.costs.shares, self._budget, self.leanest)
        if not found:  # of a time: what the fewest channels take was measured just now
            least = math.inf
            for student.side in at:
                least = min(least, self.leanest(student, self.costs.shares(student)))
            raise UserError(
                f"no network of this backbone takes no more than "
                f"{config.budget.max_latency_ms:g} ms: give a budget from "
                f"{self._in_ms(1.005 * least)}"
            )
        return found

    def start(self, plan: PrunePlan) -> Student:
        """The size as the student passed it, or what is left of one when channels have gone."""
        return self.sizes.read(plan.name, plan.side)

    def architecture(self, plan: PrunePlan) -> Architecture:
        """Of what a plan leaves."""
        narrowed = self.sizes.narrowed(plan.name)
        return super().architecture(plan).model_copy(update={"narrowed": narrowed})

    def _narrowed(self, point: Point) -> Point:
        """What channels leave of the last size, where blocks left room for them."""
        assert self._budget is not None, "there is a budget"
        if point.cost <= self._budget and not self._timed:  # times of paths add up roughly
            return point
        plan = point.plan(self._wiring).narrowed(self._budget)
        # whether it is there is asked by the one that writes: others may be late, and see it
        from_main(lambda: None if plan.name in self.sizes else self._narrow(plan))
        (narrow,) = (one for one in self.sizes.front.points if one.name == plan.name)
        return narrow

    def _narrow(self, plan: PrunePlan) -> None:
        """Write down what is left of a size when as many channels have gone as a plan says."""
        assert plan.wide is not None, "what the student has passed is there"
        wide = self.sizes.read(plan.wide, plan.side)
        left = self._narrowing.narrowed(wide, plan.most)
        if left.cost > plan.most and not self._timed:
            raise UserError(
                f"the fewest channels of {plan.wide} cost {left.cost:.3g} of the backbone's: give "
                "a larger budget, or other --levers"
            )
        self.reestimate(left.network)
        scores = self.validate(left.network)
        point = Point(
            plan.name, plan.kept.paths, left.cost, left.shares["flops"], left.shares["params"],
            self.judge.value(scores), scores.loss, side=plan.side, wide=plan.wide,
        )  # fmt: skip
        narrowed = narrowed_structure(wide, left.network)
        architecture = super().architecture(plan).model_copy(update={"narrowed": narrowed})
        self.sizes.write(point, left.network, architecture)

    def schedule(self) -> Schedule:
        """As set; at a lower learning rate where a size has a few epochs to find its way."""
        schedule, config = super().schedule(), self.config
        if config.budget.given is None and config.prune.finetune == "all":
            return replace(schedule, lr=schedule.lr * GOES_ON)
        return schedule

    def _whole(
        self, student: Student, at: Mapping[int | None, PathShares], least: float
    ) -> Shrinking:
        """The route of the whole backbone, of which no size is written yet.

        Args:
            student: at the side whose costs it goes by.
            at: what paths cost, by all sides at which there are to be sizes.
            least: a share of the backbone's cost.
        """
        own, self._at, self._shares = student.side, at, {}
        for student.side in at:
            self._shares[student.side] = [
                shares_of(student, self.teacher, self.config.image_size, unit) for unit in UNITS
            ]
            self.costs.keep(student)
        student.side = own
        return place(Shrinking(student, at[own], least), self.device)

    def _point(self, network: Shrinking) -> Point:
        """Of what is left now; a run that goes on may have passed leaner sizes already."""
        name = size_name(network.cost, network.student.side)
        return next(one for one in self.sizes.front.points if one.name == name)

    def _pass(self, network: Shrinking, size: Student, scores: Scores) -> None:
        """Write a size down, the network and how it stands."""
        side, route = size.side, network.route
        cost = self._at[side].of(network.wiring, route)
        flops, params = (one.of(network.wiring, route) for one in self._shares[side])
        point = Point(
            size_name(cost, side), route, cost, flops, params,
            self.judge.value(scores), scores.loss, side=side,
        )  # fmt: skip
        architecture = super().architecture(point.plan(network.wiring))
        from_main(lambda: self.sizes.write(point, size, architecture))

    def _in_ms(self, share: float) -> str:
        """A share of the time of the whole network, against the budget."""
        assert self._budget is not None, "there is a budget of time"
        return f"{share / self._budget * (self.config.budget.max_latency_ms or 0):.4g} ms"

    def _note(self, side: int | None, share: float) -> None:
        """Note a side at which what is left takes too much by the clock, and say so."""
        assert self._budget is not None, "there is a budget of time"
        if share > self._budget:
            self._missed.add(side)
            of = f" of {side} px" if side else ""
            self.say(
                f"warning: no network{of} keeps {self.config.budget.max_latency_ms:g} ms by the "
                f"clock; the one that is kept takes {self._in_ms(share)}"
            )

    def _share_of_time(self, network: Shrinking) -> float:
        """The latency of the route over the backbone's, both measured now."""
        size, batch = self.config.image_size, self.config.budget.batch
        keep = self.costs.kept_times()
        with self.session.screen.counting("timing what is left") as tell:
            return share_of_time(
                fold(network.cut("timed")), fold(self.teacher), size, self.device,
                side=network.student.side, batch=batch, keep=keep, tell=tell,
            )  # fmt: skip
