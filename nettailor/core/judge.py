"""Which of two validation scores is better, how sure that is, and whether a class was lost."""

import math
from dataclasses import dataclass

import numpy as np

from nettailor.core.scores import Recall, Scores
from nettailor.core.sections import Metric

_MAY_LOSE = 10.0  # points of its recall, beyond the standard error
_SURE = 1.645  # standard errors: what a normal deviate stays below 19 times of 20


@dataclass(frozen=True)
class Judge:
    """Judges by a metric in %; and where there is a teacher, by the class that lost most.

    sure: a network stands lower by the `margin` of its difference from the teacher in accuracy,
    whatever the metric is: what a tolerance is compared with. A network is chosen out of many, so
    the luckiest looks better than it is.

    A class is lost when its recall falls behind the teacher's by more than ten points and the
    standard error of that difference. What is beyond counts against the network like points of the
    metric: with x points beyond, it is judged as if it were x points behind the teacher, or worse.
    """

    metric: Metric = "accuracy"
    teacher: Scores | None = None
    sure: bool = False

    def of(self, scores: Scores) -> Scores:
        """The scores with `judged` and `error` filled in."""
        looks = judged = self.value(scores)
        if self.teacher is not None:
            if self.sure:
                judged -= margin(self.teacher.right, scores.right)
            if (beyond := max(self._beyond(scores), default=0.0)) > 0:
                most = self.aim - beyond
                looks, judged = min(looks, most), min(judged, most)
        return scores._replace(judged=judged, error=looks - judged)

    @property
    def aim(self) -> float:
        """What the teacher reaches, in %."""
        assert self.teacher is not None, "there is a teacher"
        return self.value(self.teacher)

    def ahead(self, scores: Scores) -> float:
        """How many standard errors more accurate than the teacher, whatever the metric is."""
        assert self.teacher is not None, "there is a teacher"
        errors = [one.accuracy_error or math.inf for one in (scores, self.teacher)]
        return (scores.accuracy - self.teacher.accuracy) / math.hypot(*errors)

    def lost(self, scores: Scores) -> tuple[int, ...]:
        """The indices of the classes that are lost."""
        return tuple(index for index, points in enumerate(self._beyond(scores)) if points > 0)

    def value(self, scores: Scores) -> float:
        """The metric, in %."""
        match self.metric:
            case "accuracy":
                return scores.accuracy
            case "macro-f1":
                return scores.macro_f1
            case "worst-recall":
                return scores.worst_recall

    def _beyond(self, scores: Scores) -> list[float]:
        """By class: the points of recall that it has lost beyond what it may lose."""
        if self.teacher is None:
            return []
        pairs = zip(self.teacher.recalls, scores.recalls, strict=True)
        return [before.percent - after.percent - _MAY_LOSE - _error(before, after)
                for before, after in pairs]  # fmt: skip


def margin(one: bytes, other: bytes) -> float:
    """How much lower, in points, a network may be than it looks beside another: 95 %, one-sided.

    Args:
        one, other: as of `error_of_difference`, of which it is 1.645.
    """
    return _SURE * error_of_difference(one, other)


def error_of_difference(one: bytes, other: bytes) -> float:
    """The standard error of the difference in accuracy of two networks on the same images, points.

    Only images that one of them takes right and the other wrong make a difference, and half an
    image is added to either kind: with none there is no certainty either (Agresti and Min, 2005).

    Args:
        one, other: of each network, a byte an image, 1 where it is right.
    """
    first, second = (np.frombuffer(right, dtype=bool) for right in (one, other))
    images = len(first) + 2
    lost, won = (first & ~second).sum() + 0.5, (second & ~first).sum() + 0.5
    return float(100 * math.sqrt(lost + won - (lost - won) ** 2 / images) / images)


def _error(one: Recall, other: Recall) -> float:
    """The standard error of the difference, in points, as if the images were different ones."""
    return float(100 * (one.variance + other.variance) ** 0.5)
