"""Settings that are read: YAML with its pitfalls, and what is refused and in which words."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nettailor.core.config import RunConfig, as_settings, keys
from nettailor.core.errors import UserError
from nettailor.core.schedule import require_optimizers
from nettailor.core.settings import parse_yaml, read_settings, set_key, validate


def refusal(text: str) -> str:
    """The text with which settings in YAML are refused."""
    with pytest.raises(UserError) as caught:
        validate(parse_yaml(text))
    return str(caught.value)


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
        ("budget: {batch: 0}", r"budget\.batch = 0: must be a whole number ≥ 1"),
        (
            "budget: {max_flops: 0.5, max_params: 0.5}",
            r"budget: give one of max_flops, max_params and max_latency_ms$",
        ),
        ("schedule: step-0", r"schedule = 'step-0': .* cosine, constant, or text such as step-20$"),
        ("scale: {coefficients: [1, 3, 1]}", r"coefficients = 3: .* of 3, each a number ≥ 1 and"),
        ("teacher: {weight_decay: 0.1}", r"weight_decay: unknown key; did you mean 'weight_decay'"),
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
        "[", "2001-99-99", "!!int x", "!!bool x", "!!timestamp x", "0b_", "[" * 5000, "1" * 5000,
        "!!python/object/apply:os.getcwd []", "\x00", "a: b: c", "? [a]\n: b", "seed: 0\nseed: 1",
        "knapsack: {of: teacher}\nknapsack:\n  round_to: 8",
    ],
    ids=range(14),
)  # fmt: skip
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
