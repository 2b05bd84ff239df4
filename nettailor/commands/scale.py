"""`python -m nettailor.scale`: EfficientNet's compound scaling, a size of the family for each φ."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nettailor.commands.teach import ready_teacher
from nettailor.core.backbone import Backbone, backbone_of
from nettailor.core.compound_scaling import PUBLISHED, Coefficients, make_scaled, scaling_of
from nettailor.core.config import TEACHERS_OWN_KEYS, RunConfig, recorded
from nettailor.core.console import Screen
from nettailor.core.errors import UserError
from nettailor.core.families import data_defaults
from nettailor.core.flags import CommandFlags
from nettailor.core.run_folder import RunFolder
from nettailor.core.settings import changed, set_key
from nettailor.core.weights import (
    WeightsSource,
    has_weights,
    is_source,
    load_pretrained,
    untrained,
)
from nettailor.figures import networks_table
from nettailor.finetune import ChainRun, finetune
from nettailor.session import Session, start_session

PROG = "python -m nettailor.scale"


def scaled_run(session: Session, phi: float) -> tuple[Session, ChainRun]:
    """The run of one φ, and the session that it trains in: its images are of its own size.

    Raises:
        UserError: the backbone is of no family that scales, or φ is out of range.
    """
    config, settings = session.config, session.config.scale
    coefficients = Coefficients(*settings.coefficients)
    scaling = scaling_of(config.backbone, phi, coefficients, config.image_size)
    weights = _weights_of(config, scaling.member)
    start = weights if settings.pretrained else None
    classes = len(session.task.classes)

    def fresh() -> Backbone:
        return backbone_of(
            make_scaled(config.backbone, classes, depth=scaling.depth, width=scaling.width)
        )

    def make() -> tuple[Backbone, WeightsSource]:
        return load_pretrained(start, classes, config.weights) if start else untrained(fresh())

    details = [f"phi{phi:g}"]
    if coefficients != PUBLISHED:
        details += ["by", *(f"{value:g}" for value in coefficients)]
    details += ["scratch"] if weights and not settings.pretrained else []
    alone = recorded(config, "teacher", "scale")
    set_key(alone, "scale.phi", [phi])
    run = ChainRun(
        "scaled",
        RunFolder(session.places.run("scaled", *details), PROG),
        alone,
        # where there are no weights to start from, nothing was left out
        [*TEACHERS_OWN_KEYS, *["scale.pretrained"] * (weights is None)],
        session.schedule("scale"),
        make,
        scaled={
            "phi": phi,
            "coefficients": list(coefficients),
            **scaling._asdict(),
            "pretrained": start is not None,
        },
    )
    with torch.device("meta"):
        stages = fresh().stages
    expected = session.preprocessing
    if start is not None:
        expected = replace(data_defaults(start), crop_pct=expected.crop_pct)
    preprocessing = replace(expected, image_size=scaling.image_size)
    return replace(session, preprocessing=preprocessing, stages=stages), run


def _weights_of(config: RunConfig, member: str | None) -> str | None:
    """The timm name whose weights a member of the family can start from; None: there are none."""
    if member is None:
        return None
    if is_source(config.weights):
        return member if has_weights(member, config.weights) else None
    # a file, or a teacher of another task, is of the backbone and fits no other member
    return member if member.split(".")[0] == config.backbone.split(".")[0] else None


def _announce(run: ChainRun, screen: Screen) -> None:
    """Say what φ made of the family and where the network starts.

    Raises UserError where the weights that it starts from are out of reach.
    """
    assert run.scaled is not None, "a scaled run says how"
    how = run.scaled
    start = f"the weights of {how['member']}" if how["pretrained"] else "random weights"
    screen.say(
        f"phi {how['phi']:g}: depth × {how['depth']:.3g}, width × {how['width']:.3g}, "
        f"{how['image_size']} px, from {start}"
    )
    try:
        run.make()
    except UserError as error:
        raise UserError(f"{error}; or give --scale.pretrained false to start from none") from error


def execute(config: RunConfig, flags: CommandFlags) -> None:
    """Run the command with settings and flags that were found good."""
    if flags.own["phi"] is not None:
        config = changed(config, scale__phi=flags.own["phi"])
    # + 0.0: minus zero is zero
    phis = sorted({phi + 0.0 for phi in config.scale.phi})
    rows: dict[str, Any] = {}
    with Screen() as screen:
        session = start_session(config, screen)
        begun: dict[Path, float] = {}
        for phi in phis:  # before the first of them trains
            _, run = scaled_run(session, phi)
            if (other := begun.setdefault(run.folder.path, phi)) != phi:
                raise UserError(f"φ {other!r} and {phi!r} would share the run {run.folder.path}")
            run.folder.check(None if flags.overwrite else run.settings, ignored=run.ignored)
            if flags.overwrite or not run.folder.finished:
                _announce(run, screen)
        for phi in phis:
            # made here and dropped here: a session holds on to the processes that load its images
            own, run = scaled_run(session, phi)
            finished = not flags.overwrite and run.folder.finished
            teacher = None if finished else ready_teacher(session)
            rows[f"phi {phi:g}"] = finetune(own, run, beside=teacher, overwrite=flags.overwrite)
    title = f"{session.task.name}, compound scaling beside the teacher"
    screen.console.print(networks_table(rows, title))
    screen.say(f"run folders: {run.folder.path.parent}")
