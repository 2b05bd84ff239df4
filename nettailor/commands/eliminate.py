"""`python -m nettailor.eliminate`: fixed removal of the top layers, the yardstick."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nettailor.commands.teach import ready_teacher, say_teacher
from nettailor.core.backbone import Backbone
from nettailor.core.config import TEACHERS_OWN_KEYS, RunConfig, recorded
from nettailor.core.console import Screen
from nettailor.core.errors import UserError
from nettailor.core.flags import CommandFlags
from nettailor.core.run_folder import Kind, RunFolder
from nettailor.core.side_sections import Reference
from nettailor.core.weights import WeightsSource, load_pretrained
from nettailor.figures import networks_table
from nettailor.finetune import ChainRun, finetune
from nettailor.outlook import say_folder, say_stages, say_task, start_dry
from nettailor.prune.eliminate import eliminate, kept_blocks, units
from nettailor.session import Session, start_session

PROG = "python -m nettailor.eliminate"


def eliminated_runs(session: Session) -> list[ChainRun]:
    """A run for each number of units to cut off the top that is asked for, all by default.

    Raises:
        UserError: a number is out of range.
    """
    settings = session.config.eliminate
    most = units(session.stages, settings.unit) - 1
    asked = tuple(range(1, most + 1)) if settings.top is None else settings.top
    if max(asked, default=0) > most:
        raise UserError(
            f"eliminate.top = {list(asked)}: {session.config.backbone} has {most + 1} "
            f"{settings.unit}, of which 1 to {most} can be cut off"
        )
    return [_eliminated_run(session, top) for top in sorted(set(asked))]


def _eliminated_run(session: Session, top: int) -> ChainRun:
    settings = session.config.eliminate
    kept = kept_blocks(session.stages, settings.unit, top)

    def backbone_of(chain: Backbone) -> Backbone:
        chain = eliminate(chain, kept, replacement=settings.replacement)
        if settings.trainable == "head":
            shared = [chain.stem, *chain.blocks[:kept]]
            if settings.replacement:
                shared.append(chain.neck)
            # as in a student: shared weights, the task's own statistics
            chain.freeze(shared, statistics=False)
        return chain

    details = [f"{settings.unit}{top}"]
    details += ["conv"] * settings.replacement + ["head"] * (settings.trainable == "head")
    eliminated = {
        "unit": settings.unit,
        "top": top,
        "kept_blocks": kept,
        "replacement": settings.replacement,
        "trainable": settings.trainable,
    }
    return _run(session, "eliminated", backbone_of, details=details, eliminated=eliminated)


def reference_runs(session: Session) -> list[ChainRun]:
    """The plain references that are asked for.

    head-only: a new classifier on the untouched pretrained network, its statistics included.
    scratch: the same network from random weights.
    """

    def rest(chain: Backbone) -> Backbone:
        chain.freeze([chain.stem, chain.blocks, chain.neck], statistics=True)
        return chain

    changes: dict[Reference, Callable[[Backbone], Backbone]] = {
        "head-only": rest,
        "scratch": lambda chain: chain,
    }
    return [_run(session, kind, changes[kind]) for kind in session.config.eliminate.references]


def _run(
    session: Session,
    kind: Kind,
    change: Callable[[Backbone], Backbone],
    *,
    details: Sequence[str] = (),
    eliminated: Mapping[str, Any] | None = None,
) -> ChainRun:
    """A run of the pretrained network after a change; its settings ask for it and no other."""
    config = session.config
    weights = "none" if kind == "scratch" else config.weights

    def make() -> tuple[Backbone, WeightsSource]:
        chain, source = load_pretrained(
            config.backbone, len(session.task.classes), weights, config.image_size
        )
        return change(chain), source

    settings = recorded(config, "teacher", "eliminate")
    ignored = [*TEACHERS_OWN_KEYS]
    if eliminated is None:
        settings["eliminate"] |= {"top": [], "references": [kind]}
        ignored += [f"eliminate.{key}" for key in ("unit", "replacement", "trainable")]
    else:
        settings["eliminate"] |= {"top": [eliminated["top"]], "references": []}
    folder = RunFolder(session.places.run(kind, *details), PROG)
    schedule = session.schedule("eliminate")
    return ChainRun(kind, folder, settings, ignored, schedule, make, eliminated)


def train_beside_teacher(session: Session, run: ChainRun, *, overwrite: bool) -> RunFolder:
    """Fine-tune a run, or go on with it; the teacher is trained first when there is none."""
    finished = not overwrite and run.folder.finished
    teacher = None if finished else ready_teacher(session)
    finetune(session, run, beside=teacher, overwrite=overwrite)
    return run.folder


def _label(run: ChainRun) -> str:
    """Such as `elim 2`, `elim 3 blocks` or `scratch`."""
    cut = run.eliminated
    return f"elim {cut['top']}" + " blocks" * (cut["unit"] == "blocks") if cut else str(run.kind)


def execute(config: RunConfig, flags: CommandFlags) -> None:
    """Run the command with settings and flags that were found good."""
    dry = flags.own["dry_run"]
    with Screen() as screen:
        session = (start_dry if dry else start_session)(config, screen)
        runs = [*eliminated_runs(session), *reference_runs(session)]
        if not runs:
            raise UserError(
                "eliminate.top and eliminate.references are both empty: say what to train"
            )
        for run in runs:  # before the first of them trains
            run.folder.check(None if flags.overwrite else run.settings, ignored=run.ignored)
        if dry:
            say_task(session)
            say_teacher(session)
            say_stages(session, {"each run": runs[0].schedule})
            for run in runs:
                say_folder(session, run.folder, overwrite=flags.overwrite)
            return
        for run in runs:
            train_beside_teacher(session, run, overwrite=flags.overwrite)
    rows = {_label(run): run.folder.read_summary() for run in runs}
    title = f"{session.task.name}, fixed removal of the top beside the teacher"
    screen.console.print(networks_table(rows, title))
    screen.say(f"run folders: {runs[0].folder.path.parent}")
