"""Tailoring by a student that shrinks as it trains; every size that it passed is kept."""

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

from torch import nn

from nettailor.budget import budget_share
from nettailor.candidates import keep_better
from nettailor.core.architecture import Architecture
from nettailor.core.backbone import Backbone
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.latency import share_of_time
from nettailor.core.ranks import from_main
from nettailor.core.resize import at_side
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import Schedule
from nettailor.core.scores import Scores
from nettailor.front import Front, Point, Seconds, size_name, write_front
from nettailor.kept_sizes import KeptSizes
from nettailor.narrowed_sizes import Narrowing
from nettailor.network import narrowed_structure
from nettailor.path_shares import PathCosts
from nettailor.prune.depths import half_of
from nettailor.prune.descent import TRIED_ON, Descent
from nettailor.prune.fold import fold
from nettailor.prune.plan import PrunePlan
from nettailor.prune.shrink import WITHIN, Shrinking
from nettailor.prune.shrink_loss import ShrinkLoss
from nettailor.resolutions import may_lower, sides, tried
from nettailor.resolve import GOES_ON, schedule_of
from nettailor.session import Session
from nettailor.share import UNITS
from nettailor.shrinking import FLOOR, hopeless
from nettailor.sizes import keep_without_budget
from nettailor.student.costs import PathShares, shares_of
from nettailor.student.network import Student
from nettailor.student.pictures import tag_of
from nettailor.tailoring import Tailored, Tailoring, grow_student

_TRIES = 5  # at most, at a network that keeps a latency budget by the clock


class ByShrinking(Tailoring):
    """A student that shrinks to a budget, or until its accuracy ends it.

    sizes: the networks that it passed, and those that lost channels.
    """

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
        # shares of the backbone's cost: the budget, and down to where blocks go at the side at work
        self._budget: float | None = None
        self._aim: float | None = None
        # by side: of what blocks and channels leave; sides of which no network keeps the budget
        self._last, self._missed = dict[int | None, Point](), set[int | None]()

    def tailored(self, target: float) -> Tailored:
        """Shrink at each resolution; then fine-tune the last sizes, or what channels leave of them.

        Without a budget the lowest comes first, until one holds; of its sizes those are fine-tuned
        that may be within tolerance.
        """
        whole = self.grown()
        self._budget = budget_share(self.config.budget, self.costs.shares(whole))
        narrowing = Narrowing(
            self.session, self.teacher, self._budget, self.costs, self.folder.path
        )
        at, fronts = self._tried(whole), list[Front]()
        for side, shares in at.items():
            fronts.append(self.shrink(target, side, shares, narrowing))
            reached = max(point.accuracy for point in fronts[-1].points)
            if self._budget is None and reached >= target:
                break
        if self._budget is None:
            own = fronts[-1].points
            candidates = keep_without_budget(
                self, [one.plan(whole.wiring) for one in own], [one.cost for one in own],
                [one.loss for one in own], gamma=self.config.student.gamma, target=target,
            )  # fmt: skip
        else:
            lasts = [one for side, one in self._last.items() if side not in self._missed]
            lasts = lasts or [*self._last.values()]
            candidates = keep_better(self, [one.plan(whole.wiring) for one in lasts])
        ends = {one.name: one.scores.accuracy for one in candidates if one.ended}
        seconds = Seconds(
            *(sum(each) for each in zip(*(one.seconds for one in fronts), strict=True))
        )
        points = [one._replace(finetuned=ends.get(one.name)) for one in self.sizes.front.points]
        write_front(self.folder.path, Front(points, seconds))
        return Tailored(candidates, seconds, {})

    def _tried(self, student: Student) -> dict[int | None, PathShares]:
        """What its paths cost, by each side at which students shrink."""
        config, settings = self.config, self.config.student
        at = sides(self.teacher, config.image_size, settings.cost, settings.levers)
        if len(at) == 1 and may_lower(settings.levers, settings.cost):
            self.say(f"images stay at {config.image_size} px: the backbone takes no smaller ones")
        return tried(student, at, self.costs.shares, self._budget)

    def start(self, plan: PrunePlan) -> Student:
        """The size as the student passed it, or what is left of one when channels have gone."""
        return self.sizes.read(plan.name, plan.side)

    def architecture(self, plan: PrunePlan) -> Architecture:
        """Of what a plan leaves."""
        narrowed = self.sizes.narrowed(plan.name)
        return super().architecture(plan).model_copy(update={"narrowed": narrowed})

    def _narrowed(self, point: Point, narrowing: Narrowing) -> Point:
        """What channels leave of the last size, where blocks left room for them."""
        assert self._budget is not None, "there is a budget"
        if point.cost <= self._budget and not self._timed:  # times of paths add up roughly
            return point
        plan = point.plan(self._wiring).narrowed(self._budget)
        # whether it is there is asked by the one that writes: others may be late, and see it
        from_main(lambda: None if plan.name in self.sizes else self._narrow(plan, narrowing))
        (narrow,) = (one for one in self.sizes.front.points if one.name == plan.name)
        return narrow

    def _narrow(self, plan: PrunePlan, narrowing: Narrowing) -> None:
        """Write down what is left of a size when as many channels have gone as a plan says."""
        assert plan.wide is not None, "what the student has passed is there"
        wide = self.sizes.read(plan.wide, plan.side)
        left = narrowing.narrowed(wide, plan.most)
        if left.cost > plan.most and not self._timed:
            raise UserError(
                f"the fewest channels of {plan.wide} cost {left.cost:.3g} of the backbone's: give "
                "--levers blocks,resolution, or a larger budget"
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

    def shrink(
        self, target: float, side: int | None, shares: PathShares, narrowing: Narrowing
    ) -> Front:
        """Train a student at a side as it shrinks; returns what it passed, the leanest first."""
        student = self.grown()
        student.side = side
        self._aim = most = narrowing.down_to(student, shares)
        self._shares = [shares_of(student, self.teacher, self.config.image_size, u) for u in UNITS]
        self.costs.keep(student)
        network = Shrinking(student, shares, most or FLOOR)
        network = place(network, self.device)
        settings, loaders = self.config.student, self.session.loaders
        loss = ShrinkLoss(
            self.teacher,
            settings.distill,
            label_smoothing=self.config.label_smoothing,
            class_weights=loaders.class_weights,
        )
        schedule = replace(schedule_of(self.config, "student"), shape="constant", warmup_epochs=1)
        descent = Descent(
            network,
            loss,
            islice(loaders.train.epoch(0), TRIED_ON),
            self.session.accelerator,
            epochs=schedule.epochs,
            steps_per_epoch=loaders.train.steps_per_epoch,
            far=most is not None,
        )

        def validate(module: nn.Module) -> Scores:
            scores = self.validate(module)
            self._pass(network, scores)
            if self._timed and network.cost < 2 * float(network.least):
                self._by_the_clock(network)
            return scores

        def curves(_: nn.Module, epoch: int) -> dict[str, float]:
            prices = ((one.path, network.price(one)) for one in network.removals())
            found = {"cost": network.cost, "target": descent.target(epoch / schedule.epochs)}
            return found | {
                f"price/{tag_of(path, network.wiring.depth)}": price
                for path, price in prices
                if not math.isnan(price)
            }

        self.session.seed_stage("training the student")

        def ends(epoch: int, last: Scores) -> bool:
            half = epoch >= half_of(schedule.epochs)
            return most is None and hopeless(network, self.judge, last, target, half=half)

        fitted = self.fit(
            at_side("student", side), network, schedule, loss, curves,
            validate=validate, stop=ends, before_step=descent.before_step,
        )  # fmt: skip
        last = self._point(network)
        if most != self._budget:
            last = self._narrowed(last, narrowing)
        if self._timed and (most == self._budget or last.cost > (self._budget or 0.0)):
            # blocks keep it, by the clock, also where channels do not
            self._aim = self._budget
            if not self._keep_the_budget(network, descent):
                self._missed.add(side)
            last = self._point(network)
        self._last[side] = last
        passed = [one for one in self.sizes.front.points if one.side == side and not one.wide]
        return Front(passed, Seconds(fitted.seconds, fitted.total_seconds))

    def _point(self, network: Shrinking) -> Point:
        """Of what is left now; a run that goes on may have passed leaner sizes already."""
        name = size_name(network.cost, network.student.side)
        return next(one for one in self.sizes.front.points if one.name == name)

    def _pass(self, network: Shrinking, scores: Scores) -> None:
        """Write a size down, its network and how it stands."""
        side = network.student.side
        flops, params = (one.of(network.wiring, network.route) for one in self._shares)
        point = Point(
            size_name(network.cost, side), network.route, network.cost, flops, params,
            self.judge.value(scores), scores.loss, side=side,
        )  # fmt: skip
        plan = point.plan(network.wiring)
        size, architecture = network.cut(plan.name), super().architecture(plan)
        from_main(lambda: self.sizes.write(point, size, architecture))

    def _share_of_time(self, network: Shrinking) -> float:
        """The latency of the route over the backbone's, both measured now."""
        size, batch = self.config.image_size, self.config.budget.batch
        keep = self.costs.kept_times()
        with self.session.screen.counting("timing what is left") as tell:
            return share_of_time(
                fold(network.cut("timed")), fold(self.teacher), size, self.device,
                side=network.student.side, batch=batch, keep=keep, tell=tell,
            )  # fmt: skip

    def _by_the_clock(self, network: Shrinking, margin: float = 0.0) -> float:
        """Shrink on to what the paths add up to where the network itself takes what is aimed at.

        Returns its share of the time now.
        """
        assert self._aim is not None, "there is a budget of time"
        share = self._share_of_time(network)
        network.least.fill_((1 - margin) * self._aim * network.cost / share)
        return share

    def _keep_the_budget(self, network: Shrinking, descent: Descent) -> bool:
        """Take more out where the last size takes longer than the budget; whether it is kept."""
        assert self._budget is not None, "there is a budget of time"
        for _ in range(_TRIES):
            share = self._by_the_clock(network, margin=WITHIN / 2)
            in_ms = share / self._budget * (self.config.budget.max_latency_ms or 0)
            self.say(f"what is left takes {in_ms:.4g} ms by the clock")
            if share <= self._budget or not descent.reach(float(network.least)):
                break
            self.reestimate(network)
            self._pass(network, self.validate(network))
        if share > self._budget:
            of = f" of {network.student.side} px" if network.student.side else ""
            self.say(
                f"warning: no network{of} keeps {self.config.budget.max_latency_ms:g} ms by the "
                f"clock; the one that is kept takes {in_ms:.4g} ms"
            )
        return share <= self._budget
