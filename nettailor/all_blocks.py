"""Tailoring where all blocks stay: a lower resolution, and to a budget fewer channels."""

import time
from collections.abc import Mapping, Sequence

from nettailor.by_sizes import BySizes
from nettailor.candidate import Candidate
from nettailor.candidates import keep_first
from nettailor.channel_lever import whole_cost
from nettailor.front import Front, Point, Seconds
from nettailor.sizes import saving
from nettailor.student.costs import PathShares
from nettailor.student.network import Student
from nettailor.student.wiring import Wiring


class AllBlocks(BySizes):
    """The whole backbone is the one size of each resolution; it trains when it is fine-tuned."""

    def leanest(self, student: Student, shares: PathShares) -> float:
        """See `BySizes`."""
        return whole_cost(student, shares) * self._narrowing.fewest(student)

    def keep_without_budget(
        self, points: Sequence[Point], whole: Wiring, target: float
    ) -> list[Candidate]:
        """The lowest resolution first; the images' own saves nothing, and is the last resort."""
        plans = [points[i].plan(whole) for i in saving([one.cost for one in points])]
        return keep_first(self, plans, target, self.judge.aim)

    def sizes_at(self, target: float, at: Mapping[int | None, PathShares]) -> Front:
        """The whole backbone, and to a budget what channels leave of it; see `BySizes`."""
        started, student = time.perf_counter(), self.grown()
        (side,) = (student.side,) = at
        network = self._whole(student, at, 1.0)
        self.reestimate(network)
        size = network.cut("whole")
        self._pass(network, size, self.validate(size))
        last = self._point(network)
        if self._budget is not None:
            if self._narrowing.goes:
                last = self._narrowed(last)
            share = last.cost if last.wide or not self._timed else self._share_of_time(network)
            self._note(side, share)
        self._last[side] = last
        return Front([last], Seconds(0.0, time.perf_counter() - started))
