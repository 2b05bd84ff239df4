"""A cut that was fine-tuned, and how it stands beside others."""

import math
from dataclasses import dataclass

from nettailor.core.printable import some
from nettailor.core.scores import Scores
from nettailor.core.training_state import Fitted
from nettailor.prune.depths import half_of, ruled_out
from nettailor.prune.plan import PrunePlan
from nettailor.student.network import Student

ROUNDING = 1e-6  # per cent, of sums and differences


@dataclass
class Candidate:
    """A student cut by one plan and fine-tuned.

    Attributes:
        before: validation scores before it was fine-tuned.
        epochs: of the whole fine-tuning.
        lost: names of the classes that it has lost, see `nettailor.core.judge`.
    """

    plan: PrunePlan
    network: Student
    before: Scores
    fitted: Fitted
    epochs: int
    lost: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether it was fine-tuned to its end."""
        return len(self.fitted.history) == self.epochs

    @property
    def name(self) -> str:
        """The plan's."""
        return self.plan.name

    @property
    def scores(self) -> Scores:
        """On validation, of its last epoch."""
        return self.fitted.scores

    def reaches(self, target: float) -> bool:
        """Whether it stands at `target` per cent at least on validation."""
        return self.scores.standing >= target

    def as_good_as(self, aim: float) -> bool:
        """Whether it stands at `aim` per cent on validation where chance is not allowed for."""
        return self.scores.standing + self.scores.error >= aim - ROUNDING

    def told(self, target: float, unsure: float = -math.inf) -> int:
        """After which of its first epochs it was ruled out, or else the last of them.

        A search that goes on in another session has to take the turns that it took before, whatever
        later epochs brought.

        Args:
            target, unsure: see `ruled_out`.
        """
        last = len(self.fitted.history)
        for epoch in range(1, last):
            standing, _, error = self.after(epoch)
            if ruled_out(epoch, self.epochs, standing, target, error, unsure):
                return epoch
        return last

    def after(self, epochs: int) -> tuple[float, float, float]:
        """What it is judged by, -loss and error after so many epochs, or after all that it has."""
        *_, row = self.fitted.history[:epochs]
        return row["val_judged"], -row["val_loss"], row["val_error"]

    @property
    def by_half(self) -> tuple[float, float, float]:
        """After half of its epochs, see `after`."""
        return self.after(half_of(self.epochs))

    @property
    def lost_in_words(self) -> str:
        """The classes that it has lost, such as `class 'defect'`."""
        return f"class{'es' * (len(self.lost) > 1)} {some(map(repr, self.lost))}"

    def verdict(self, target: float) -> str:
        """What became of it, in words."""
        if self.reaches(target):
            return "within tolerance"
        lost = f", loses {self.lost_in_words}" if self.lost else ""
        return ("not surely within tolerance" if self.ended else "ruled out early") + lost
