"""When a student shrinks: the course of its cost, and what it takes for a part to go."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from random import Random

from accelerate import Accelerator
from torch import Tensor

from nettailor.core.memory import room_for
from nettailor.core.ranks import from_main
from nettailor.core.resize import resized
from nettailor.prune.choice import Choice, least_lost
from nettailor.prune.shrink import Shrinking
from nettailor.prune.shrink_loss import ShrinkLoss
from nettailor.prune.sides import drawn
from nettailor.student.wiring import Path

TRIED_ON = 3  # batches that removals are tried on
_FROM, _TO = 0.25, 0.9  # of the steps: where the target begins to fall, and where it has fallen
_DROPPED = 0.1  # the probability that a step of an epoch's first half leaves a block out


class Descent:
    """Takes parts out of a network before steps at which it costs more than its target.

    The target is c (m / c)^f for a network that costs c, 1 where it has no adapters, and a least
    cost of m, where f rises from 0 to 1 between a quarter and 90 % of the steps. In the middle of
    an epoch, where the network costs more, parts go: on the way to the route within m that loses
    least, or, where `far` is not set, to the one within the target. In the second half the network
    gets over it: what an epoch leaves can be kept. In the last epoch's middle the target is m.

    In the first half a step leaves each block out that an identity can stand in for with a
    probability of 0.1 (stochastic depth: Huang and others, 2016; LayerDrop: Fan, Grave and Joulin,
    2020), until the network costs m: it learns to do without a block before one is taken out, and
    what its removal is found to do is then nearer to what it does in the end.

    All depends on the step and the network: training that goes on takes the same parts out.

    Attributes:
        network: that shrinks.
    """

    def __init__(
        self,
        network: Shrinking,
        loss: ShrinkLoss,
        batches: Iterable[tuple[Tensor, Tensor]],
        accelerator: Accelerator,
        *,
        epochs: int,
        steps_per_epoch: int,
        far: bool,
        sides: Sequence[int | None],
        choose: Choice = least_lost,
    ) -> None:
        """
        Args:
            network: on the device, whole.
            loss: says what a removal does.
            batches: images (B, C, S, S) and labels (B,) that removals are tried on.
            accelerator: says where, and in which precision.
            epochs, steps_per_epoch: of the training.
            far: aim at a route within the least cost from the beginning, since no other is wanted.
            sides: in pixels, None for the images' own, one at least: one is drawn for each step,
                and each is asked what can go.
            choose: where it goes.
        """
        self.network, self._loss, self._far, self._choose = network, loss, far, choose
        self._accelerator, self._whole = accelerator, network.cost
        self._steps, self._of_epoch = epochs * steps_per_epoch, steps_per_epoch
        self._shrinks: bool | None = None
        self._batches, self._sides = [], sides
        for number, (images, labels) in enumerate(batches, 1):
            images = images.to(accelerator.device)
            with accelerator.autocast(), room_for(len(images), "a pass of the teacher"):
                target = loss.teacher(images).logits
            # blocks alone are tried on the first batch: of three sides the middle one
            images = resized(images, sides[number % len(sides)])
            self._batches.append((images, labels.to(accelerator.device), target))

    def target(self, done: float) -> float:
        """The cost, a share of the backbone's, after a part of the steps."""
        fallen = min(max((done - _FROM) / (_TO - _FROM), 0.0), 1.0)
        return self._whole * math.pow(float(self.network.least) / self._whole, fallen)

    def before_step(self, step: int) -> bool:
        """Take out what is due; whether the network computes otherwise than at the last step.

        step: how many were taken.
        """
        last, went = step + 1 == self._steps, bool(self.network.dropped)
        student, side = self.network.student, self.network.student.side
        student.side = None  # batches on which removals are tried have their sides
        self.network.dropped = frozenset()
        half = self._of_epoch // 2
        if step % self._of_epoch == half or last:
            final = step >= self._steps - self._of_epoch + half
            went |= self.reach(self.target(1.0 if final else step / self._steps))
            self._shrinks = None
        if self._shrinks is None:  # asked seldom: the buffer waits for the device
            self._shrinks = self.network.cost > float(self.network.least)
        if step % self._of_epoch < half and self._shrinks:
            draw = Random(step)  # of ranks each draws the same, and whoever goes on from here
            nodes = (one for one in self.network.skippable if draw.random() < _DROPPED)
            self.network.dropped, went = frozenset(nodes), True
        student.side = drawn(self._sides, step)
        return self.network.settle() or went or student.side != side

    def reach(self, target: float) -> bool:
        """Take out parts until the network costs no more than a target; whether anything went."""
        if self.network.cost <= target:
            return False
        goal = min(float(self.network.least), target) if self._far else target
        route = from_main(partial(self._next, target, goal))
        went: bool = route != self.network.route
        if went:
            self.network.take(route)
        return went

    def _next(self, target: float, goal: float) -> tuple[Path, ...]:
        size = len(self._batches[0][0])
        with self._accelerator.autocast(), room_for(size, "trying what can go"):
            return self._choose(self.network, self._batches, self._loss.of, target, goal)
