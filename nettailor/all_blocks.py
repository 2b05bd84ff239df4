"""Tailoring where all blocks stay: a lower resolution, and to a budget fewer channels."""

import time
from collections.abc import Sequence

from nettailor.by_sizes import BySizes
from nettailor.candidate import Candidate
from nettailor.candidates import keep_first
from nettailor.channel_lever import whole_cost
from nettailor.front import Front, Seconds
from nettailor.sizes import saving
from nettailor.student.costs import PathShares
from nettailor.student.network import Student
from nettailor.student.wiring import Wiring


class AllBlocks(BySizes):
    """The whole backbone is the one size of each resolution; it trains when it is fine-tuned."""

    def leanest(self, student: Student, shares: PathShares) -> float:
        """See `BySizes`."""
        return whole_cost(student, shares) * self._narrowing.fewest(student)

    def holds(self, front: Front, target: float) -> bool:
        """Not before it is fine-tuned: at a lower resolution it has learnt nothing yet."""
        return False

    def keep_without_budget(
        self, fronts: Sequence[Front], whole: Wiring, target: float
    ) -> list[Candidate]:
        """The lowest resolution first; the images' own saves nothing, and is the last resort."""
        points = [one for front in fronts for one in front.points]
        plans = [points[i].plan(whole) for i in saving([one.cost for one in points])]
        return keep_first(self, plans, target)

    def sizes_at(self, target: float, side: int | None, shares: PathShares) -> Front:
        """The whole backbone, and to a budget what channels leave of it; see `BySizes`."""
        started, student = time.perf_counter(), self.grown()
        student.side = side
        network = self._whole(student, shares, 1.0)
        self.reestimate(network)
        self._pass(network, self.validate(network))
        last = self._point(network)
        if self._budget is not None:
            if self._narrowing.goes:
                last = self._narrowed(last)
            share = last.cost if last.wide or not self._timed else self._share_of_time(network)
            self._note(side, share)
        self._last[side] = last
        return Front([last], Seconds(0.0, time.perf_counter() - started))
