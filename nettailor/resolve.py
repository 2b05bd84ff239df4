"""What settings leave open: every `auto` and null that stands for one value, and each schedule."""

from typing import Literal

from nettailor.core.config import RunConfig
from nettailor.core.data import absolute
from nettailor.core.families import family
from nettailor.core.schedule import Schedule
from nettailor.core.sections import AUTO_EPOCHS
from nettailor.student.mimicry import DEFAULT_MIMIC, form_for

Stage = Literal["teacher", "student", "prune", "eliminate", "scale"]
MANY_STEPS = 2000  # of a whole network
# of a student as it shrinks, and of what is left
EPOCHS_TO_A_BUDGET, EPOCHS_WITHOUT = (4, 20), (8, 6)
# of prune.lr, without a budget: a size that was thrown back by the whole of it is not there by half
# of so few epochs, when it may be ruled out
GOES_ON = 0.5


def has_student(config: RunConfig) -> bool:
    """Whether a student trains: not where all blocks stay."""
    return config.prune.by == "rank" or "blocks" in config.student.levers


def resolved(config: RunConfig) -> RunConfig:
    """The settings as a run goes by them and writes them down; once more changes nothing.

    Some stay open, since they mean another thing for each network: `weights: auto` and a `crop_pct`
    of null, which a network's `architecture.json` tells, and `epochs: auto`, which its metrics do.

    Raises UserError for an unknown backbone.
    """
    teacher, student = config.teacher, config.student
    warmup = teacher.warmup_epochs
    if warmup is None:
        warmup = int(teacher.epochs == "auto" or teacher.epochs > 1)
    form = form_for(family(config.backbone)) if student.mimicry == "auto" else student.mimicry
    unit, _ = config.budget.given or (student.cost, None)
    shared = config.prune.finetune == "task"
    epochs, quarter = teacher.epochs, -(-config.search.epochs // 4)
    cut = EPOCHS_TO_A_BUDGET if config.budget.given else EPOCHS_WITHOUT
    changes = {
        "teacher": {"warmup_epochs": warmup},
        "student": {
            "epochs": student.epochs or cut[0],
            "adapters": shared if student.adapters == "auto" else student.adapters,
            "cost": "latency" if unit == "latency_ms" else unit,
            "mimic": DEFAULT_MIMIC[form] if student.mimic is None else student.mimic,
            "mimicry": form,
        },
        "prune": {"epochs": config.prune.epochs or cut[1]},
        "eliminate": {"epochs": config.eliminate.epochs or epochs},
        "scale": {"epochs": config.scale.epochs or epochs},
        "search": {"trial_epochs": config.search.trial_epochs or quarter},
    }
    sections = {
        section: getattr(config, section).model_copy(update=values)
        for section, values in changes.items()
    }
    return config.model_copy(update={"data": absolute(config.data), **sections})


def auto_epochs(steps_per_epoch: int) -> int:
    """What `epochs: auto` begins with: half as many where those are many steps already."""
    half = AUTO_EPOCHS // 2
    return half if half * steps_per_epoch >= MANY_STEPS else AUTO_EPOCHS


def schedule_of(config: RunConfig, stage: Stage, steps_per_epoch: int = 1) -> Schedule:
    """How a stage trains: after a cut as the student, beside the teacher as the teacher.

    Args:
        config: resolved.
        stage: of a run.
        steps_per_epoch: by which `epochs: auto` goes.
    """
    own = getattr(config, stage)
    cut = stage in ("student", "prune")
    warmup = config.teacher.warmup_epochs
    assert warmup is not None, "the settings are resolved"
    auto = own.epochs == "auto"
    epochs = auto_epochs(steps_per_epoch) if auto else own.epochs
    return Schedule(
        epochs=epochs,
        optimizer=(config.student if cut else config.teacher).optimizer,
        lr=own.lr,
        weight_decay=config.weight_decay,
        shape=config.schedule,
        warmup_epochs=0 if cut else min(warmup, epochs - 1),
        again=auto,
    )
