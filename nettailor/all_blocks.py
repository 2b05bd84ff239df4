"""Tailoring where all blocks stay: a lower resolution, and to a budget fewer channels."""

import time
from collections.abc import Mapping, Sequence

from nettailor.by_sizes import BySizes
from nettailor.channel_lever import whole_cost
from nettailor.front import Point, Seconds
from nettailor.sizes import saving
from nettailor.student.costs import PathShares
from nettailor.student.network import Student


class AllBlocks(BySizes):
    """The whole backbone is the one size of each resolution; it trains when it is fine-tuned."""

    def leanest(self, student: Student, shares: PathShares) -> float:
        """See `BySizes`."""
        return whole_cost(student, shares) * self._narrowing.fewest(student)

    def order(self, points: Sequence[Point]) -> list[int]:
        """The lowest resolution first; without the images' own, which saves nothing."""
        return saving([one.cost for one in points])

    def make_sizes(self, target: float, at: Mapping[int | None, PathShares]) -> Seconds:
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
            if self._timed:
                self._note(side, last.cost if last.wide else self._share_of_time(network))
        self._last[side] = last
        return Seconds(0.0, time.perf_counter() - started)
