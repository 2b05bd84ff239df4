"""Settings: the shipped files, the defaults, and what a run makes of what is left open."""

from pathlib import Path

import pytest
import yaml

from nettailor.core.config import RunConfig, as_settings, flat, keys
from nettailor.core.families import family
from nettailor.core.schedule import Schedule, require_optimizers
from nettailor.core.settings import parse_yaml, read_settings, shipped, validate
from nettailor.resolve import Stage, resolved, schedule_of

CONFIGS = Path(__file__).parent.parent / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
AUTHORS = ["resnet34-flowers", "resnet34-svhn", "resnet34-voc", "resnet50-cub"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_file(path: Path) -> None:
    config = validate(read_settings(str(path)))
    family(config.backbone)  # raises for one that timm does not have or that cannot be cut
    require_optimizers(config)
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert validate(parse_yaml(yaml.safe_dump(as_settings(config)))) == config


def test_shipped_names_reach_the_files() -> None:
    here = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert set(shipped()) == here >= {"digits", "folder", *AUTHORS}
    assert read_settings("folder") == read_settings(str(CONFIGS / "folder.yaml"))


@pytest.mark.parametrize("name", AUTHORS)
def test_authors_settings(name: str) -> None:
    config = validate(read_settings(name))
    stages: tuple[Stage, ...] = ("teacher", "student", "prune", "eliminate")
    schedules = [schedule_of(resolved(config), stage) for stage in stages]
    for schedule in schedules:
        assert (schedule.optimizer, schedule.weight_decay) == ("momentum", 5e-4)
        assert (schedule.shape[:5], schedule.warmup_epochs) == ("step-", 0)
    assert [schedule.lr for schedule in schedules] == [0.01, 0.1, 0.01, 0.01]
    assert schedules[0] == schedules[3]
    student = config.student
    assert (student.gamma, student.mimic, student.mimicry) == (0.3, 10, "mean-square")
    assert (student.skips, config.prune.threshold) == (3, 0.05)
    assert (config.image_size, config.weights) == (224, "hub")
    published(config)


def published(config: RunConfig) -> None:
    """The search space, the loss and the cut are the paper's."""
    student, prune = config.student, config.prune
    assert (student.identities, student.exits) == (False, False)
    assert (student.distill, student.skips, student.batch_norm) == (0, 3, "follow")
    assert student.adapters is False
    assert (prune.by, prune.finetune, config.budget.given) == ("rank", "task", None)


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "folder"])
def test_the_other_files_leave_the_improved_method_on(name: str) -> None:
    config, default = validate(read_settings(name)), RunConfig()
    for key in ("skips", "identities", "exits", "adapters", "distill", "batch_norm"):
        assert getattr(config.student, key) == getattr(default.student, key)
    for key in ("by", "finetune"):
        assert getattr(config.prune, key) == getattr(default.prune, key)
    assert config.budget == default.budget


def test_defaults_of_the_improved_method() -> None:
    student, prune, budget = RunConfig().student, RunConfig().prune, RunConfig().budget
    assert (student.skips, student.adapters) == (0, "auto")
    assert (student.identities, student.exits, student.batch_norm) == (True, True, "train")
    assert (student.levers, student.cost, student.gamma) == (
        ("blocks", "channels", "resolution"),
        "flops",
        0.3,
    )
    assert (student.distill, budget.given, budget.batch) == (0.5, None, 1)
    assert (prune.by, prune.finetune) == ("route", "all")


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("{max_flops: 0.5}", ("flops", 0.5)),
        ("{max_params: 0.1}", ("params", 0.1)),
        ("{max_latency_ms: 4, batch: 8}", ("latency_ms", 4)),
    ],
)
def test_a_budget_is_in_one_unit(text: str, budget: tuple[str, float]) -> None:
    assert validate(parse_yaml(f"budget: {text}")).budget.given == budget


def test_the_published_method_on_digits_differs_from_digits_in_nothing_else() -> None:
    ours, theirs = (validate(read_settings(name)) for name in ("digits", "digits-published"))
    published(theirs)
    mine = flat(as_settings(ours))
    assert {key for key, value in flat(as_settings(theirs)).items() if mine[key] != value} <= {
        "student.epochs", "prune.epochs", "student.lr", "student.skips", "student.identities",
        "student.exits", "student.adapters",
        "student.distill", "student.batch_norm", "prune.by",
        "prune.threshold", "prune.finetune",
    }  # fmt: skip


def test_settings_are_few() -> None:
    assert len(list(keys())) <= 80


@pytest.mark.parametrize("name", shipped())
def test_what_is_left_open_is_resolved_once(name: str) -> None:
    """To what a run writes down: no `auto`, no null that stands for a number."""
    given = validate(read_settings(name))
    config = resolved(given)
    assert resolved(config) == config
    left = {key for key, value in flat(as_settings(config)).items() if value in (None, "auto")}
    assert left <= {
        "weights", "crop_pct", "device", "precision", "workers", "cache", "split.group_by",
        "limit.train", "limit.test", "augment.auto_augment", "budget.max_flops",
        "budget.max_params", "budget.max_latency_ms", "prune.remove", "eliminate.top",
        "teacher.epochs", "eliminate.epochs", "scale.epochs",
    }  # fmt: skip
    assert validate(parse_yaml(yaml.safe_dump(as_settings(config)))) == config


def test_resolved_settings() -> None:
    config = resolved(validate({"prune": {"finetune": "task"}, "budget": {"max_params": 0.5}}))
    student = config.student
    assert (student.adapters, student.cost) == (True, "params")
    assert (student.mimicry, student.mimic, config.prune.lr) == ("normalized", 5, 0.003)
    assert (config.teacher.warmup_epochs, config.eliminate.epochs, config.scale.epochs) == (
        1,
        "auto",
        "auto",
    )
    assert config.search.trial_epochs == 10
    config = resolved(validate({"backbone": "resnet18", "teacher": {"epochs": 1}}))
    assert (config.student.mimicry, config.student.mimic, config.student.adapters) == (
        "mean-square", 10, False
    )  # fmt: skip
    assert (config.teacher.warmup_epochs, config.eliminate.epochs) == (0, 1)


def test_epochs_that_are_found_in_training() -> None:
    config = resolved(validate({"eliminate": {"epochs": 3}}))
    assert schedule_of(config, "teacher") == Schedule(20, "adamw", 0.002, 5e-4, "cosine", 1, True)
    assert schedule_of(config, "scale").again
    assert schedule_of(config, "eliminate") == Schedule(3, "adamw", 0.002, 5e-4, "cosine", 1)


def test_schedules_are_composed() -> None:
    """After a cut the student's, beside the teacher the teacher's, but for epochs and rate."""
    config = resolved(validate({
        "schedule": "step-3", "weight_decay": 0.1, "teacher": {"warmup_epochs": 2, "epochs": 7},
        "student": {"lr": 0.5, "optimizer": "adam"}, "prune": {"epochs": 3},
        "eliminate": {"epochs": 2},
    }))  # fmt: skip
    assert schedule_of(config, "teacher") == Schedule(7, "adamw", 0.002, 0.1, "step-3", 2)
    assert schedule_of(config, "student") == Schedule(8, "adam", 0.5, 0.1, "step-3", 0)
    assert schedule_of(config, "prune") == Schedule(3, "adam", 0.003, 0.1, "step-3", 0)
    assert schedule_of(config, "eliminate") == Schedule(2, "adamw", 0.002, 0.1, "step-3", 1)
    assert schedule_of(config, "scale") == Schedule(7, "adamw", 0.002, 0.1, "step-3", 2)


def test_defaults_alone_are_valid_and_come_back() -> None:
    config = validate({})
    assert config == RunConfig()
    assert validate(parse_yaml(yaml.safe_dump(as_settings(config)))) == config
    assert set(flat(as_settings(config))) == {name for name, _ in keys()}
