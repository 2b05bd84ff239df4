"""`python -m nettailor.eliminate`: fixed removal of the top layers, the yardstick."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from nettailor.core.backbone import Chain
from nettailor.core.config import as_settings
from nettailor.core.console import Screen
from nettailor.core.errors import UserError
from nettailor.core.flags import parse, run_command
from nettailor.core.run_folder import RunFolder
from nettailor.core.weights import WeightsSource, load_pretrained
from nettailor.figures import networks_table
from nettailor.finetune import finetune
from nettailor.session import Session, start_session
from nettailor.teach import ready_teacher
from prune.eliminate import eliminate, kept_blocks, units

PROG = "python -m nettailor.eliminate"
DESCRIPTION = (
    "Cut the top 1, 2, 3 … stages off the pretrained network, put a new head on what is left and "
    "fine-tune it: the yardstick for tailored networks (ELimNet)."
)
Reference = Literal["head-only", "scratch"]
# the teacher that is there counts, not the settings with which one would be trained
_OTHER_SECTIONS = ("teacher", "student", "prune")
REFERENCES: tuple[Reference, ...] = ("head-only", "scratch")


def numbers_to_cut(session: Session) -> tuple[int, ...]:
    """How many units to cut off the top, one run each.

    Raises:
        UserError: a number is out of range.
    """
    settings = session.config.eliminate
    most = units(session.stages, settings.unit) - 1
    asked = tuple(range(1, most + 1)) if settings.top is None else settings.top
    if not asked or max(asked) > most:
        raise UserError(
            f"eliminate.top = {list(asked)}: {session.config.backbone} has {most + 1} "
            f"{settings.unit}, of which 1 to {most} can be cut off"
        )
    return tuple(sorted(set(asked)))


def train_eliminated(session: Session, top: int, *, overwrite: bool) -> RunFolder:
    """Cut `top` units off the pretrained network and fine-tune the rest, or go on with it."""
    config = session.config
    settings = config.eliminate
    details = [f"{settings.unit}{top}"]
    details += ["conv"] * settings.replacement + ["head"] * (settings.trainable == "head")
    kept = kept_blocks(session.stages, settings.unit, top)

    def make() -> tuple[Chain, WeightsSource]:
        chain, source = load_pretrained(config.backbone, len(session.task.classes), config.weights)
        chain = eliminate(chain, kept, replacement=settings.replacement)
        if settings.trainable == "head":
            shared = [chain.stem, *chain.blocks[:kept]]
            if settings.replacement:
                shared.append(chain.neck)
            # as in a student: shared weights, the task's own statistics
            chain.freeze(shared, statistics=False)
        return chain, source

    facts = {
        "unit": settings.unit,
        "top": top,
        "replacement": settings.replacement,
        "trainable": settings.trainable,
    }
    return _beside_teacher(
        session,
        RunFolder(session.folder("eliminated", *details), PROG),
        "eliminated",
        _settings(session, top=[top], references=False),
        make=make,
        eliminated={**facts, "kept_blocks": kept},
        overwrite=overwrite,
    )


def train_reference(session: Session, kind: Reference, *, overwrite: bool) -> RunFolder:
    """Train one of the plain references, or go on with it.

    head-only: a new classifier on the untouched pretrained network, its statistics included.
    scratch: the same network from random weights.
    """
    config = session.config
    weights = "none" if kind == "scratch" else config.weights

    def make() -> tuple[Chain, WeightsSource]:
        chain, source = load_pretrained(config.backbone, len(session.task.classes), weights)
        if kind == "head-only":
            chain.freeze([chain.stem, chain.blocks, chain.neck], statistics=True)
        return chain, source

    settings = {**_settings(session), "weights": weights}
    for name in ("unit", "top", "trainable", "replacement", "references"):
        del settings["eliminate"][name]  # nothing is cut off
    folder = RunFolder(session.folder(kind), PROG)
    return _beside_teacher(session, folder, kind, settings, make=make, overwrite=overwrite)


def _settings(session: Session, **eliminate: object) -> dict[str, Any]:
    """The settings that make such a run what it is, with these keys of `eliminate` set."""
    settings = as_settings(session.config)
    settings["eliminate"] |= eliminate
    return {key: settings[key] for key in settings if key not in _OTHER_SECTIONS}


def _beside_teacher(
    session: Session,
    folder: RunFolder,
    kind: str,
    settings: Mapping[str, Any],
    *,
    make: Callable[[], tuple[Chain, WeightsSource]],
    eliminated: Mapping[str, Any] | None = None,
    overwrite: bool,
) -> RunFolder:
    """Fine-tune as `nettailor.finetune.finetune` does; the teacher is trained first if need be."""
    finished = folder.finished and not overwrite
    finetune(
        session,
        folder,
        kind,
        settings,
        session.config.eliminate,
        make=make,
        beside=None if finished else ready_teacher(session),
        eliminated=eliminated,
        overwrite=overwrite,
    )
    return folder


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    config, flags = parse(PROG, DESCRIPTION, argv)
    with Screen() as screen:
        session = start_session(config, screen)
        tops = numbers_to_cut(session)
        blocks = " blocks" * (config.eliminate.unit == "blocks")
        folders = {
            f"elim {top}{blocks}": train_eliminated(session, top, overwrite=flags.overwrite)
            for top in tops
        }
        if config.eliminate.references:
            folders |= {
                kind: train_reference(session, kind, overwrite=flags.overwrite)
                for kind in REFERENCES
            }
    rows = {name: folder.read_summary() for name, folder in folders.items()}
    teacher = ready_teacher(session).figures
    title = f"{session.task.name}, fixed removal of the top beside the teacher"
    screen.console.print(networks_table({"teacher": teacher, **rows}, title))
    screen.say(f"run folders: {next(iter(folders.values())).path.parent}")


if __name__ == "__main__":
    run_command(main)
