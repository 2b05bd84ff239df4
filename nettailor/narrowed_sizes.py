"""The channels of one tailored run: where blocks leave room for them, and what is left of sizes."""

from collections.abc import Iterable
from contextlib import suppress
from copy import deepcopy
from itertools import islice
from pathlib import Path as FilePath
from typing import NamedTuple

import numpy as np
from torch import nn

from nettailor.channel_lever import before_channels, refusal, too_few, whole_cost
from nettailor.core.backbone import Backbone
from nettailor.core.device import place
from nettailor.core.epochs import Batch
from nettailor.core.errors import UserError
from nettailor.core.files import read_json, write_json
from nettailor.core.latency import share_of_time
from nettailor.core.ranks import from_main
from nettailor.core.sections import Unit
from nettailor.core.side_sections import ROUND_TO
from nettailor.latency_budget import keep_by_the_clock
from nettailor.narrowing import timed_layers
from nettailor.path_shares import PathCosts
from nettailor.prune.channels import trace_channels
from nettailor.prune.fewer_channels import (
    VALUE_BATCHES,
    best_channels,
    deployed_cost,
    fewest_channels,
    with_fewer_channels,
)
from nettailor.prune.fold import fold
from nettailor.prune.items import Channels
from nettailor.prune.narrow import Kept, narrow
from nettailor.prune.taylor import taylor_values
from nettailor.prune.widths import Costs, Ranges, allowed
from nettailor.session import Session
from nettailor.share import UNITS
from nettailor.student.costs import PathShares
from nettailor.student.network import Student

FEWEST_FILE = "fewest_channels.json"


class Narrow(NamedTuple):
    """What is left of a size.

    shares: by unit what it costs over the backbone; cost: the same in the unit of the budget.
    """

    network: Student
    shares: dict[Unit, float]
    cost: float


class Narrowing:
    """Takes channels out of the sizes that a student passed, to the budget of a run."""

    def __init__(
        self,
        session: Session,
        teacher: Backbone,
        budget: float | None,
        costs: PathCosts,
        folder: FilePath,
    ) -> None:
        """Says in a line why channels stay, where they cannot go and nobody asked for that.

        Args:
            session: of the run.
            teacher: on the device.
            budget: a share of the backbone's cost; None: there is none, and all channels stay.
            costs: of paths; they know where what is timed is kept.
            folder: the run's, for what a run that goes on must not measure anew.
        """
        self._session, self._teacher, self._costs = session, teacher, costs
        self._budget, self._file = budget, folder / FEWEST_FILE
        config, settings = session.config, session.config.student
        self._timed = settings.cost == "latency"
        self._unit: Unit = "params" if settings.cost == "params" else "flops"
        reason: str | None = ""
        if budget is not None and config.prune.finetune == "all":  # shared blocks keep theirs
            reason = refusal(teacher, config.image_size, settings.cost, settings.levers)
        if reason:
            session.screen.say(f"channels stay: {reason}")
        self.goes = reason is None

    def down_to(self, student: Student, shares: PathShares) -> float | None:
        """The cost down to which blocks go at a student's side: the budget, or above it."""
        if self._budget is None or not self.goes:
            return self._budget
        most = before_channels(self._budget, whole_cost(student, shares))
        if most > self._budget and self._timed:
            size = student.side or self._session.config.image_size
            if reason := too_few(self.fewest(student)):
                self._session.screen.say(f"channels stay at {size} px: {reason}")
                return self._budget
        return most

    def fewest(self, student: Student) -> float:
        """What the fewest channels cost of the whole network at a student's side; 1: they stay."""
        size = student.side or self._session.config.image_size
        if not self.goes:
            return 1.0
        if self._timed:
            return from_main(lambda: self._in_time(size))
        return fewest_channels(self._teacher, size, self._unit)

    def _in_time(self, size: int) -> float:
        """The share of the backbone's time that its fewest channels take, measured once a run."""
        known: dict[str, float] = {}
        with suppress(UserError, TypeError, ValueError):
            known = {side: float(share) for side, share in dict(read_json(self._file)).items()}
        if str(size) not in known:
            costs, ranges = self._times_of(self._teacher, trace_channels(self._teacher, size), size)
            least, whole = costs.of(np.stack([ranges.least, ranges.most])).tolist()
            write_json(self._file, known | {str(size): least / whole})
            return float(least / whole)
        return known[str(size)]

    def narrowed(self, wide: Student, most: float) -> Narrow:
        """As much of a size as a budget leaves; its running statistics stay.

        Args:
            wide: on the device, at its side.
            most: a share of the backbone's cost.
        """
        config, batches = self._session.config, self._session.loaders.train.epoch(0)
        batches = islice(batches, VALUE_BATCHES)
        if self._timed:
            return self._by_the_clock(wide, most, batches)
        size, unit = config.image_size, self._unit
        network = with_fewer_channels(
            wide, batches, self._session.accelerator, image_size=size, unit=unit,
            most=most * deployed_cost(self._teacher, size, unit),
        )  # fmt: skip
        shares = self._shares(network)
        return Narrow(network, shares, shares[unit])

    def _shares(self, network: nn.Module) -> dict[Unit, float]:
        """What a network costs over the backbone, at the resolution of its images."""
        size = self._session.config.image_size
        return {
            unit: deployed_cost(network, size, unit) / deployed_cost(self._teacher, size, unit)
            for unit in UNITS
        }

    def _by_the_clock(self, wide: Student, most: float, batches: Iterable[Batch]) -> Narrow:
        """The same by measured time, each choice timed itself beside the backbone."""
        session, side, alone = self._session, wide.side, deepcopy(wide)
        alone.side = None  # as it is deployed, it has images of its own size
        size = side or session.config.image_size
        channels = trace_channels(alone, size)
        costs, ranges = self._times_of(alone, channels, size)
        whole = float(costs.of(ranges.most[None])[0])
        values = taylor_values(wide, channels, batches, session.accelerator)
        before = self._share_of_time(alone, size)

        def choose(share: float) -> Kept:
            return best_channels(channels, values, costs, ranges, share / before * whole)

        def network_of(kept: Kept) -> Student:
            return place(narrow(alone, channels, kept), session.accelerator.device)

        kept, share = np.ones(channels.count, dtype=bool), before
        if before > most:
            kept, share = keep_by_the_clock(
                most, choose, lambda kept: self._share_of_time(network_of(kept), size)
            )
        network = network_of(kept)
        network.side = side
        return Narrow(network, self._shares(network), share)

    def _share_of_time(self, network: Student, size: int) -> float:
        config, device = self._session.config, self._session.accelerator.device
        with self._session.screen.counting("timing a choice of channels") as tell:
            return share_of_time(
                fold(network), fold(self._teacher), config.image_size, device,
                side=size, batch=config.budget.batch, keep=self._costs.kept_times(), tell=tell,
            )  # fmt: skip

    def _times_of(
        self, network: Backbone | Student, channels: Channels, size: int
    ) -> tuple[Costs, Ranges]:
        """What the widths of a network take of its time, measured, and those that are allowed."""
        costs, _ = timed_layers(self._session, network, channels, size, self._costs.kept_times())
        return costs, allowed(channels.families, ROUND_TO)
