"""Tailoring by a student that shrinks as it trains; every size that it passed is kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from torch import nn

from nettailor.by_sizes import BySizes
from nettailor.core.resize import at_side
from nettailor.core.scores import Scores
from nettailor.front import Point, Seconds
from nettailor.prune.descent import TRIED_ON, Descent
from nettailor.prune.shrink import WITHIN, Shrinking, leanest_route
from nettailor.prune.shrink_loss import ShrinkLoss
from nettailor.prune.sides import cuts
from nettailor.shrinking import FLOOR, hopeless
from nettailor.sizes import in_order
from nettailor.student.costs import PathShares
from nettailor.student.network import Student
from nettailor.student.pictures import tag_of

_TRIES = 5  # at most, at a network that keeps a latency budget by the clock


class ByShrinking(BySizes):
    """A student that shrinks to a budget, or at all resolutions until its accuracy ends it."""

    together = True

    def leanest(self, student: Student, shares: PathShares) -> float:
        """See `BySizes`."""
        return leanest_route(student, shares)

    def order(self, points: Sequence[Point]) -> list[int]:
        """See `BySizes`."""
        costs, losses = [one.cost for one in points], [one.loss for one in points]
        return in_order(costs, losses, self.config.student.gamma)

    def make_sizes(self, target: float, at: Mapping[int | None, PathShares]) -> Seconds:
        """Train a student as it shrinks, at one side or at all at once; see `BySizes`."""
        student, sides = self.grown(), [*at]
        student.side = side = sides[-1]
        most = self._narrowing.down_to(student, at[side])
        network = self._whole(student, at, most or FLOOR)
        settings, loaders = self.config.student, self.session.loaders
        loss = ShrinkLoss(
            self.teacher,
            settings.distill,
            label_smoothing=self.config.label_smoothing,
            class_weights=loaders.class_weights,
        )
        schedule = replace(self.session.schedule("student"), shape="constant", warmup_epochs=1)
        descent = Descent(
            network,
            loss,
            islice(loaders.train.epoch(0), TRIED_ON),
            self.session.accelerator,
            epochs=schedule.epochs,
            steps_per_epoch=loaders.train.steps_per_epoch,
            far=most is not None,
            sides=sides,
        )

        def validate(_: nn.Module) -> Scores:
            found = []
            batches = partial(loaders.train.epoch, 0)
            for size in cuts(network, sides, batches, self.session.accelerator):
                found.append(self.validate(size))
                self._pass(network, size, found[-1])
            if self._timed and most is not None and network.cost < 2 * float(network.least):
                self._by_the_clock(network, most)
            return max(found, key=self.judge.value)

        def curves(_: nn.Module, epoch: int) -> dict[str, float]:
            prices = ((one.path, network.price(one)) for one in network.removals())
            found = {"cost": network.cost, "target": descent.target(epoch / schedule.epochs)}
            return found | {
                f"price/{tag_of(path, network.wiring.depth)}": price
                for path, price in prices
                if not math.isnan(price)
            }

        self.session.seed_stage("training the student")

        def ends(_: int, last: Scores) -> bool:
            return most is None and hopeless(network, self.judge, last, target)

        fitted = self.fit(
            at_side("student", side), network, schedule, loss, curves,
            validate=validate, stop=ends, before_step=descent.before_step,
        )  # fmt: skip
        seconds = Seconds(fitted.seconds, fitted.total_seconds)
        if self._budget is None:
            return seconds
        last = self._point(network)
        if most != self._budget:
            last = self._narrowed(last)
        if self._timed and (most == self._budget or last.cost > self._budget):
            # blocks keep it, by the clock, also where channels do not
            self._note(side, self._keep_the_budget(network, descent))
            last = self._point(network)
        self._last[side] = last
        return seconds

    def _by_the_clock(self, network: Shrinking, aim: float) -> float:
        """Shrink on to what the paths add up to where the network itself takes `aim` of the time.

        Returns its share of the time now.
        """
        share = self._share_of_time(network)
        network.least.fill_(aim * network.cost / share)
        return share

    def _keep_the_budget(self, network: Shrinking, descent: Descent) -> float:
        """Take more out where the last size takes longer than the budget; what it takes then."""
        assert self._budget is not None, "there is a budget of time"
        for _ in range(_TRIES):
            share = self._by_the_clock(network, (1 - WITHIN / 2) * self._budget)
            self.say(f"what is left takes {self._in_ms(share)} by the clock")
            if share <= self._budget or not descent.reach(float(network.least)):
                return share
            self.reestimate(network)
            size = network.cut("left")
            self._pass(network, size, self.validate(size))
        return self._share_of_time(network)
