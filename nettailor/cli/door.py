"""The way into a command: what is heavy is imported once its flags were found good."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from nettailor.core.config import RunConfig
from nettailor.core.errors import UserError
from nettailor.core.flags import CommandFlags, parse
from nettailor.core.launch import require_alone

# the settings that the help of a command that trains shows first
COMMON = ("data", "backbone", "weights", "image_size", "batch_size", "seed", "device", "out")
DRY_RUN: dict[str, dict[str, Any]] = {
    "--dry-run": {
        "action": "store_true",
        "help": "say what would be trained and in which folders; write nothing",
    },
}


def later(module: str) -> Any:
    """A module that is imported only where it is needed: the one place for this."""
    return import_module(module)


def enter(command: str, *given: object) -> None:
    """Run a command of `nettailor.commands` with what was given on its command line."""
    later(f"nettailor.commands.{command}").execute(*given)
    later("nettailor.core.ranks").leave()


def require_a_way_to_cut(config: RunConfig) -> None:
    """Raise UserError where a student could not be cut as the settings say."""
    if config.budget.given and config.prune.by == "rank":
        raise UserError("settings: prune.by = 'rank': a budget needs prune.by: route")
    if config.student.skips and config.prune.by == "route":
        raise UserError(
            f"settings: student.skips = {config.student.skips}: proxies need prune.by: rank"
        )


@dataclass(frozen=True)
class Training:
    """The command line of a command that trains by the settings.

    own, common, sections, discards: as for `parse`. alone: ranks cannot share the work.
    check: raises UserError for settings or flags that do not go together.
    """

    name: str
    description: str
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: DRY_RUN)
    common: Sequence[str] = COMMON
    sections: Sequence[str] = ()
    alone: bool = False
    discards: bool = True
    check: Callable[[RunConfig, CommandFlags], object] | None = None

    def __call__(self, argv: Sequence[str]) -> None:
        """Check flags and settings, then run the command; UserError for any fault of them."""
        if self.alone:
            require_alone()
        config, flags = parse(
            f"python -m nettailor.{self.name}",
            self.description,
            argv,
            self.own,
            common=self.common,
            sections=self.sections,
            discards=self.discards,
        )
        if self.check:
            self.check(config, flags)
        later("nettailor.core.schedule").require_optimizers(config)
        enter(self.name, config, flags)
