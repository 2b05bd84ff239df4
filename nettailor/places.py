"""Where the runs of a task live, and what they are called."""

from dataclasses import dataclass
from pathlib import Path

from nettailor.core.config import RunConfig
from nettailor.core.sections import BudgetConfig


@dataclass(frozen=True)
class Places:
    """Names of folders. task: its name. device: cpu or cuda."""

    config: RunConfig
    task: str
    device: str

    def run(self, kind: str, *details: str) -> Path:
        """Where a run of this kind lives: `<out>/<task>/<kind>/<backbone>-<px>px-…-seed<n>`."""
        config = self.config
        name = "-".join([config.backbone, f"{config.image_size}px", *details, f"seed{config.seed}"])
        return Path(config.out) / self.task / kind / name

    @property
    def times(self) -> Path:
        """Where times of parts of networks are kept, which serve runs of any budget."""
        return Path(self.config.out) / self.task / "times"

    def limit(self, budget: BudgetConfig) -> str:
        """A budget as a part of a run's name; milliseconds are those of one kind of device."""
        timed = budget.max_latency_ms is not None and self.device != "cpu"
        return f"{budget.label}-{self.device}" if timed else budget.label
