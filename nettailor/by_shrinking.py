"""Tailoring by a student that shrinks as it trains; every size that it passed is kept."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from torch import nn

from nettailor.by_sizes import BySizes
from nettailor.candidate import Candidate
from nettailor.core.resize import at_side
from nettailor.core.scores import Scores
from nettailor.front import Front, Seconds
from nettailor.prune.depths import half_of
from nettailor.prune.descent import TRIED_ON, Descent
from nettailor.prune.shrink import WITHIN, Shrinking, leanest_route
from nettailor.prune.shrink_loss import ShrinkLoss
from nettailor.resolve import schedule_of
from nettailor.shrinking import FLOOR, hopeless
from nettailor.sizes import keep_without_budget
from nettailor.student.costs import PathShares
from nettailor.student.network import Student
from nettailor.student.pictures import tag_of
from nettailor.student.wiring import Wiring

_TRIES = 5  # at most, at a network that keeps a latency budget by the clock


class ByShrinking(BySizes):
    """A student that shrinks to a budget, or until its accuracy ends it."""

    def leanest(self, student: Student, shares: PathShares) -> float:
        """See `BySizes`."""
        return leanest_route(student, shares)

    def holds(self, front: Front, target: float) -> bool:
        """Whether one of its sizes was within tolerance when the student passed it."""
        return max(point.accuracy for point in front.points) >= target

    def keep_without_budget(
        self, fronts: Sequence[Front], whole: Wiring, target: float
    ) -> list[Candidate]:
        """Of the last resolution that was tried, `in_order`."""
        own = fronts[-1].points
        return keep_without_budget(
            self, [one.plan(whole) for one in own], [one.cost for one in own],
            [one.loss for one in own], gamma=self.config.student.gamma, target=target,
        )  # fmt: skip

    def sizes_at(self, target: float, side: int | None, shares: PathShares) -> Front:
        """Train a student as it shrinks; see `BySizes`."""
        student = self.grown()
        student.side = side
        self._aim = most = self._narrowing.down_to(student, shares)
        network = self._whole(student, shares, most or FLOOR)
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
            last = self._narrowed(last)
        if self._timed and (most == self._budget or last.cost > (self._budget or 0.0)):
            # blocks keep it, by the clock, also where channels do not
            self._aim = self._budget
            self._note(side, self._keep_the_budget(network, descent))
            last = self._point(network)
        self._last[side] = last
        passed = [one for one in self.sizes.front.points if one.side == side and not one.wide]
        return Front(passed, Seconds(fitted.seconds, fitted.total_seconds))

    def _by_the_clock(self, network: Shrinking, margin: float = 0.0) -> float:
        """Shrink on to what the paths add up to where the network itself takes what is aimed at.

        Returns its share of the time now.
        """
        assert self._aim is not None, "there is a budget of time"
        share = self._share_of_time(network)
        network.least.fill_((1 - margin) * self._aim * network.cost / share)
        return share

    def _keep_the_budget(self, network: Shrinking, descent: Descent) -> float:
        """Take more out where the last size takes longer than the budget; what it takes then."""
        assert self._budget is not None, "there is a budget of time"
        for _ in range(_TRIES):
            share = self._by_the_clock(network, margin=WITHIN / 2)
            self.say(f"what is left takes {self._in_ms(share)} by the clock")
            if share <= self._budget or not descent.reach(float(network.least)):
                break
            self.reestimate(network)
            self._pass(network, self.validate(network))
        return share
