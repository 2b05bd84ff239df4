"""All that the next step of a stage depends on, kept on disk so that training can go on there."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nettailor.core import ranks
from nettailor.core.epochs import Epochs
from nettailor.core.errors import UserError
from nettailor.core.gradients import Gradients
from nettailor.core.objective import Objective, require_finite
from nettailor.core.random_state import random_state, set_random_state
from nettailor.core.schedule import Schedule, make_optimizer, make_scheduler
from nettailor.core.scores import Scores, as_scores
from nettailor.core.state import latest_state, write_state

_KEYS = (
    "network", "optimizer", "scaler", "random", "history", "scores", "course", "terms", "seconds",
)  # fmt: skip
# A state is saved when at least so many seconds have passed, and fifty times what the last one
# took, so that saving costs at most 2 % of the time; and once more at the end.
_LEAST_SECONDS = 30.0
_LEAST_RATIO = 50.0


@dataclass
class Fitted:
    """The course of a stage.

    history: a row of metrics an epoch. last: validation scores after the last one.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    last: Scores | None = None

    @property
    def scores(self) -> Scores:
        """Validation scores of the weights that the stage ended with."""
        assert self.last is not None, "the stage has finished an epoch"
        return self.last

    @property
    def seconds(self) -> float:
        """Training time without validation, over all sessions of the stage."""
        return sum(row["seconds"] for row in self.history)

    @property
    def total_seconds(self) -> float:
        """The same with validation."""
        return self.seconds + sum(row["val_seconds"] for row in self.history)


class TrainingState:
    """A stage where it stands.

    course: the loss terms, (terms,), of each of the epoch's steps so far. seconds: spent on them,
    over all sessions. unsaved: whether a step was taken since it was saved.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        loader: Epochs,
        groups: list[dict[str, Any]],
        schedule: Schedule,
        accelerator: Accelerator,
        path: Path | None,
    ) -> None:
        """Before the first step; arguments as for `nettailor.core.trainer.fit`."""
        self.network, self.accelerator = network, accelerator
        self.optimizer = accelerator.prepare_optimizer(make_optimizer(groups, schedule))
        self.gradients = Gradients(network, objective, accelerator, loader.batch_size)
        self.scaler = accelerator.scaler
        if self.scaler is not None:  # as no stage before has left it
            self.scaler.load_state_dict(torch.amp.GradScaler().state_dict())
        self.scheduler = make_scheduler(self.optimizer, schedule, loader.steps_per_epoch)
        self.fitted = Fitted()
        self.course: list[Tensor] = []
        self.seconds = 0.0
        self.unsaved = False
        self._path = path
        self._looked_at = 0
        self._saved = time.perf_counter()
        self._saving = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to save, for this process."""
        waited = time.perf_counter() - self._saved
        return waited > max(_LEAST_SECONDS, _LEAST_RATIO * self._saving)

    def look(self) -> None:
        """Raise NotFiniteError where a step's loss is not finite; waits for the device once."""
        new = self.course[self._looked_at :]
        epoch = len(self.fitted.history) + 1
        require_finite(new, self.gradients.names, epoch, self._looked_at)
        self._looked_at = len(self.course)

    def end_epoch(self, row: dict[str, float], scores: Scores) -> None:
        """Take an epoch's metrics, save if it is time."""
        self.fitted.history.append(row)
        self.fitted.last = scores
        self.course, self._looked_at, self.seconds = [], 0, 0.0
        (due,) = ranks.highest([int(self.due)])
        if due:
            self.save()

    def restore(self, warn: Callable[[str], None]) -> None:
        """Go back to where `save` was called last, if it was.

        Args:
            warn: told of a damaged file.

        Raises UserError where no state can be read that is there, or it is another network's.
        """
        state = self._path and latest_state(self._path, _KEYS, warn)
        if not state:
            return
        try:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            set_random_state(state["random"])
            if self.scaler is not None and state["scaler"] is not None:
                self.scaler.load_state_dict(state["scaler"])
            self.fitted.history = state["history"]
            self.fitted.last = None if state["scores"] is None else as_scores(state["scores"])
            self.course = list(state["course"].to(self.accelerator.device))
            self.gradients.names = tuple(state["terms"])
            self.seconds = state["seconds"]
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self._path}: the state of another network than is trained here; delete it "
                "to train this stage again, or give --overwrite"
            ) from error
        self._looked_at = len(self.course)

    def save(self) -> None:
        """Write the state; steps that broke the weights raise NotFiniteError instead."""
        started = time.perf_counter()
        self.look()
        if self._path is None:
            return
        path, last = self._path, self.fitted.last
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "random": random_state(),
            "history": self.fitted.history,
            "scores": None if last is None else last.plain(),
            "course": torch.stack(self.course) if self.course else torch.empty(0),
            "terms": list(self.gradients.names),
            "seconds": self.seconds,
        }
        ranks.from_main(lambda: write_state(path, state))
        self.unsaved = False
        self._saved = time.perf_counter()
        self._saving = self._saved - started
