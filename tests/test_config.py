"""Settings: the shipped files, what is refused and in which words."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nettailor.core.config import RunConfig, as_settings, flat, keys
from nettailor.core.errors import UserError
from nettailor.core.families import family
from nettailor.core.schedule import Schedule, require_optimizers
from nettailor.core.settings import parse_yaml, read_settings, set_key, shipped, validate
from nettailor.resolve import Stage, resolved, schedule_of

CONFIGS = Path(__file__).parent.parent / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
AUTHORS = ["resnet34-flowers", "resnet34-svhn", "resnet34-voc", "resnet50-cub"]


def refusal(text: str) -> str:
    """The text with which settings in YAML are refused."""
    with pytest.raises(UserError) as caught:
        validate(parse_yaml(text))
    return str(caught.value)


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
    assert (student.skips, student.complexity, config.prune.threshold) == (3, "published", 0.05)
    assert (config.image_size, config.weights) == (224, "hub")
    published(config)


def published(config: RunConfig) -> None:
    """The search space, the loss and the cut are the paper's."""
    student, prune = config.student, config.prune
    assert (student.identities, student.exits) == (False, False)
    assert (student.distill, student.skips, student.batch_norm) == (0, 3, "follow")
    assert student.complexity == "published"
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
    assert (student.complexity, student.cost, student.gamma) == ("route", "flops", 0.3)
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
        "student.complexity", "student.distill", "student.batch_norm", "prune.by",
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
    assert schedule_of(config, "teacher") == Schedule(10, "adamw", 0.002, 5e-4, "cosine", 1, 2)
    assert schedule_of(config, "scale").restarts == 2
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gama: 1", r"^settings: gama: unknown key; did you mean 'student\.gamma'\?$"),
        ("student: {gama: 1}", r"student\.gama: unknown key; did you mean 'student\.gamma'"),
        ("xyzzy: 1", r"xyzzy: unknown key; --help-all lists all keys"),
        ('"a\\nb": 1', r"^settings: 'a\\nb': unknown key.*$"),
        ("student: {1: 2}", r"student\.1: a key must be text"),
        ("student: 5", r"student = 5: must be a section of keys"),
        ("student:", r"student = None: must be a section of keys"),
        ("split: {seed: 4294967296}", r"split\.seed = .* ≥ 0 and ≤ 4294967295$"),
        ("data: 5", r"data = 5: must be text$"),
        ("download: 'yes'", r"download = 'yes': must be true or false"),
        ("batch_size: '64'", r"batch_size = '64': must be a whole number ≥ 2$"),
        ("teacher: {epochs: 1.5}", r"teacher\.epochs = 1\.5: must be a whole number ≥ 1"),
        ("teacher: {epochs: true}", r"teacher\.epochs = True: must be a whole number"),
        ("image_size: 9999", r"image_size = 9999: must be a whole number ≥ 16 and ≤ 4096"),
        ("student: {gamma: -1}", r"student\.gamma = -1: must be a number ≥ 0$"),
        ("student: {gamma: .nan}", r"student\.gamma = nan: must be finite: a number ≥ 0"),
        ("student: {gamma: .inf}", r"student\.gamma = inf: must be finite: a number ≥ 0"),
        ("student: {skips: -1}", r"student\.skips = -1: must be a whole number ≥ 0, or 'dense'"),
        ("student: {cost: time}", r"cost = 'time': must be one of flops, params, latency"),
        ("student: {lr: 0}", r"student\.lr = 0: must be a number > 0"),
        ("prune: {tolerance: 101}", r"tolerance = 101: must be a number ≥ 0 and ≤ 100"),
        ("prune: {tolerance: -0.1}", r"tolerance = -0\.1: must be a number ≥ 0 and ≤ 100"),
        ("prune: {by: luck}", r"prune\.by = 'luck': must be one of route, rank"),
        ("budget: {max_flops: 0}", r"budget\.max_flops = 0: must be a number > 0"),
        ("budget: {max_latency_ms: .nan}", r"max_latency_ms = nan: must be finite"),
        ("budget: {batch: 0}", r"budget\.batch = 0: must be a whole number ≥ 1"),
        (
            "budget: {max_flops: 0.5, max_params: 0.5}",
            r"budget: give one of max_flops, max_params and max_latency_ms$",
        ),
        ("budget: {max_params: 0.5, max_latency_ms: 4}", r"budget: give one of max_flops"),
        ("schedule: step-0", r"schedule = 'step-0': .* cosine, constant, or text such as step-20$"),
        ("scale: {coefficients: [1, 3, 1]}", r"coefficients = 3: .* of 3, each a number ≥ 1 and"),
        # gone since earlier versions
        ("teacher: {weight_decay: 0.1}", r"weight_decay: unknown key; did you mean 'weight_decay'"),
        ("teacher: {ema: 0.9}", r"teacher\.ema: unknown key"),
        ("class_weights: balanced", r"class_weights: unknown key"),
        ("prune: {max_flops: 0.5}", r"max_flops: unknown key; did you mean 'budget\.max_flops'"),
        ("knapsack: {max_params: 0.5}", r"unknown key; did you mean 'budget\.max_params'"),
        ("prune: {threshold: 1}", r"threshold = 1: must be a number ≥ 0 and < 1"),
        ("prune: {threshold: -1e-3}", r"threshold = -0\.001: must be a number ≥ 0 and < 1"),
        (
            "prune: {remove: [1, -1]}",
            r"prune\.remove = -1: must be a list, each a whole number ≥ 0, or null",
        ),
        ("augment: {scale: [1]}", r"augment\.scale = \[1\]: must be a list of 2, each a number"),
        ("augment: {scale: [0.5, 2]}", r"augment\.scale = \[0\.5, 2\]: .*at most 1\.0"),
        ("augment: {ratio: [2, 1]}", r"augment\.ratio = \[2, 1\]: the least must not exceed"),
        ("split: {val: 0.6, test: 0.5}", r"split: val \+ test is 1\.1, must stay below 1"),
        ("teacher: {epochs: 3, warmup_epochs: 3}", r"teacher: warmup_epochs 3 must be below"),
    ],
)
def test_fault(text: str, message: str) -> None:
    shown = refusal(text)
    assert re.search(message, shown), shown
    assert "\n" not in shown


def test_all_faults_come_at_once_a_line_each() -> None:
    lines = refusal(
        "gama: 1\nimage_size: big\nstudent: {gamma: -1}\nprune: {tolerance: 101, threshold: 2}"
    ).splitlines()
    for key in ("gama", "image_size", "student.gamma", "prune.tolerance", "prune.threshold"):
        assert len([line for line in lines if f"{key}:" in line or f"{key} =" in line]) == 1, key
    assert len(lines) == 5


def test_long_values_are_shortened() -> None:
    assert len(refusal(f"image_size: {'x' * 9000}\n'{'y' * 900}': 1")) < 500


def test_exponents_are_numbers_and_words_with_an_e_stay_text() -> None:
    for text in ("1e-3", "1E-3", "1.e-3", "1.0e-3", "+1e-3", "0.001"):
        assert validate(parse_yaml(f"teacher: {{lr: {text}}}")).teacher.lr == 1e-3
    assert parse_yaml("[e5, 1e, 1e5x, '1e5', v1e5]") == ["e5", "1e", "1e5x", "1e5", "v1e5"]


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "2001-99-99",
        "!!int x",
        "!!bool x",
        "!!timestamp x",
        "0b_",
        "[" * 5000,
        "1" * 5000,
        "!!python/object/apply:os.getcwd []",
        "\x00",
        "a: b: c",
        "? [a]\n: b",
        "seed: 0\nseed: 1",
        "knapsack: {of: teacher}\nknapsack:\n  round_to: 8",
    ],
    ids=range(14),
)
def test_unreadable_yaml(text: str, tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"^--config: cannot read .*mine\.yaml: [^\n]+$"):
        read_settings(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", r"cannot read .*mine\.yaml"),
        *((text, r"mine\.yaml must be a YAML mapping") for text in (b"- 1", b"3", b"x", b"1: 2")),
    ],
)
def test_file_of_no_settings(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_settings(str(path))


def test_an_empty_file_means_the_defaults_and_a_missing_one_gets_the_nearest_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("# nothing yet\n", encoding="utf-8")
    assert validate(read_settings(str(path))) == RunConfig()
    with pytest.raises(UserError, match=r"no file 'digit'; did you mean 'digits'.*give a YAML"):
        read_settings("digit")


def test_set_key_keeps_what_is_there() -> None:
    settings: dict[str, Any] = {"student": {"lr": 1}}
    set_key(settings, "student.gamma", 2)
    set_key(settings, "prune.remove", [3])
    set_key(settings, "seed", 4)
    assert settings == {"student": {"lr": 1, "gamma": 2}, "prune": {"remove": [3]}, "seed": 4}
    with pytest.raises(UserError, match=r"seed = 4: must be a section of keys"):
        set_key(settings, "seed.x", 1)


# Values and keys near the declared ones reach further into the checks than plain noise does.
_NAMES = st.sampled_from([part for name, _ in keys() for part in name.split(".")])
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.dates()
    | st.sampled_from(["dense", "auto", "sgd", "cuda"])
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_NAMES | st.text(max_size=4) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.dictionaries(_NAMES | st.text(max_size=6), _VALUES, max_size=4))
def test_any_settings_are_taken_or_refused(content: dict[str, Any]) -> None:
    try:
        config = validate(content)
    except UserError as error:
        assert str(error).startswith("settings: ")  # noqa: PT017
        for line in str(error).removeprefix("settings: ").splitlines():
            assert re.match(r"\S.*: \S", line), line
    else:
        assert validate(parse_yaml(yaml.safe_dump(as_settings(config)))) == config


@settings(deadline=None)
@given(st.text(max_size=60) | st.text("-+.:_!&*[]{}#|>?<'\"\\ \n\t0189eEbxa~=%@`,", max_size=40))
def test_any_text_is_yaml_or_refused(text: str) -> None:
    try:
        content = parse_yaml(text)
    except yaml.YAMLError:
        return
    if isinstance(content, dict):
        try:
            validate(content)
        except UserError as error:
            assert str(error)  # noqa: PT017


def test_optimizers_that_cannot_train_here_are_refused() -> None:
    with pytest.raises(UserError, match=r"^settings: student\.optimizer = 'fusedadam': no optim"):
        require_optimizers(validate({"student": {"optimizer": "fusedadam"}}))
