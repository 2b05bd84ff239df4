"""Command lines: every key is a flag, flags win over files, and faults are named."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nettailor.__main__ import dispatch
from nettailor.core.config import RunConfig, keys
from nettailor.core.errors import NotFiniteError, UserError
from nettailor.core.flags import parse, run_command
from nettailor.core.interruption import Interrupted
from nettailor.core.parser import short_names
from nettailor.core.settings import read_settings, validate


def parsed(*argv: str) -> RunConfig:
    """The settings of a command line."""
    return parse("python -m nettailor.teach", "", argv)[0]


def refusal(*argv: str) -> str:
    """The text with which a command line is refused."""
    with pytest.raises(UserError) as caught:
        parsed(*argv)
    return str(caught.value)


def test_the_data_chooses_the_settings_file() -> None:
    config, flags = parse("prog", "", [])
    assert config == parsed("--data", "Digits").model_copy(update={"data": "digits"})
    assert config == validate(read_settings("digits"))
    assert not flags.overwrite
    assert parsed("--data", "some/where") == validate(
        {**read_settings("folder"), "data": "some/where"}
    )
    assert parse("prog", "", ["--overwrite"])[1].overwrite


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 3\nstudent: {gamma: 0.7, lr: 0.5}\n", encoding="utf-8")
    config = parsed("--config", str(path), "--gamma", "0.1")
    assert (config.seed, config.student.gamma, config.student.lr) == (3, 0.1, 0.5)


def test_epochs_sets_all_stages_but_those_with_a_flag_of_their_own(tmp_path: Path) -> None:
    config = parsed("--student.epochs", "2", "--epochs", "7")
    assert [config.teacher.epochs, config.student.epochs, config.prune.epochs] == [7, 2, 7]
    path = tmp_path / "mine.yaml"
    path.write_text("teacher: {warmup_epochs: 3, epochs: 9}\n", encoding="utf-8")
    assert parsed("--config", str(path), "--epochs", "1").teacher.warmup_epochs == 0
    assert parsed("--config", str(path), "--epochs", "9").teacher.warmup_epochs == 3
    assert parsed("--config", "digits", "--epochs", "1").teacher.epochs == 1


@pytest.mark.parametrize("value", ["0", "x", "1.5", "[", "!!int x", "[1]"])
def test_bad_epochs(value: str) -> None:
    said = refusal("--epochs", value)
    assert re.fullmatch(r"--epochs: cannot read.*|--epochs .*: must be a whole number ≥ 1", said)


def test_short_flags_equal_dotted_ones() -> None:
    assert short_names()["gamma"] == "student.gamma"
    for short, dotted in short_names().items():
        assert dotted == short or dotted.endswith(f".{short}")
    assert parsed("--gamma", "0.125") == parsed("--student.gamma", "0.125")
    assert parsed("--gamma=0.125").student.gamma == 0.125


def test_values_are_read_as_yaml() -> None:
    config = parsed(
        "--prune.remove", "[4, 8]", "--teacher.lr", "1e-3", "--skips", "dense", "--download",
        "--teacher.warmup-epochs", "null", "--data", "123",
    )  # fmt: skip
    assert config.prune.remove == (4, 8)
    assert (config.teacher.lr, config.teacher.warmup_epochs) == (1e-3, None)
    assert (config.student.skips, config.download, config.data) == ("dense", True, "123")
    assert not parsed("--download", "false").download


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--lr", "1"],
            r"^--lr: say which one: --teacher\.lr, --student\.lr, --prune\.lr, --eliminate\.lr$",
        ),
        (["--lr=1"], r"^--lr=1: say which one: --teacher\.lr"),
        (["--val", "1"], r"^--val: say which one: --split\.val$"),
        (["--gama", "0.3"], r"^--gama: unknown flag; did you mean '--gamma'\?$"),
        (
            ["--student.gama=1"],
            r"^--student\.gama=1: unknown flag; did you mean '--student\.gamma'",
        ),
        (["--knapsack.max-flops", "1"], r"unknown flag; did you mean '--budget\.max-flops'\?$"),
        (["--teacher.weight-decay", "1"], r"unknown flag; did you mean '--weight-decay'\?$"),
        (["--data_dir", "x"], r"^--data_dir: unknown flag; did you mean '--data-dir'\?$"),
        (["--confg", "x"], r"^--confg: unknown flag; did you mean '--config'\?$"),
        (["--epoch", "3"], r"^--epoch: unknown flag; did you mean '--epochs'\?$"),
        (["--xyzzy"], r"^--xyzzy: unknown flag; --help-all lists all flags$"),
        (["digits"], r"^'digits': not a flag; flags look like --gamma 0\.3$"),
        (["--data"], r"--data: expected one argument; see python -m nettailor\.teach --help"),
        (["--gamma", "["], r"^--student\.gamma: cannot read '\[' as a value$"),
        (["--gamma=-1"], r"^settings: student\.gamma = -1: must be a number ≥ 0$"),
        (["--gamma", ".nan"], r"student\.gamma = nan: must be finite"),
        (["--device", "tpu"], r"device = 'tpu': must be one of auto, cpu, cuda"),
        (["--config", "digts"], r"no file 'digts'; did you mean 'digits'"),
    ],
)
def test_fault(argv: list[str], message: str) -> None:
    shown = refusal(*argv)
    assert re.search(message, shown), shown
    assert "\n" not in shown


def test_all_faults_come_at_once() -> None:
    assert len(refusal("--gama", "1", "--lr", "1", "--xyzzy").splitlines()) == 3
    assert len(refusal("--gamma=-1", "--tolerance=-1", "--device", "tpu").splitlines()) == 3


def test_plain_value_in_the_place_of_a_section(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("student: 5\n", encoding="utf-8")
    assert "student = 5: must be a section" in refusal("--config", str(path), "--gamma", "1")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["--gamma", "--lr", "--epochs", "--config", "--data", "--prune.remove"])
        | st.text("-=.[]{}:!&*'\"ab1e~ ", max_size=8),
        max_size=4,
    ).filter(lambda argv: not {"-h", "--help"} & set(argv))
)
def test_any_command_line_is_taken_or_refused(argv: list[str]) -> None:
    try:
        config = parsed(*argv)
    except UserError as error:
        assert str(error)  # noqa: PT017
    else:
        assert isinstance(config, RunConfig)


def help_of(*argv: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `tailor` says of itself."""
    with pytest.raises(SystemExit) as left:
        dispatch(["tailor", *argv])
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "prog"),
    [
        ("/bin/nettailor", "nettailor tailor"),
        ("C:/nettailor.exe", "nettailor tailor"),
        ("/site/nettailor/__main__.py", "python -m nettailor tailor"),
        ("/site/nettailor/tailor.py", "python -m nettailor.tailor"),
    ],
)
def test_help_calls_the_program_as_its_user_did(
    script: str, prog: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [script])
    assert help_of("--help", capsys=capsys).startswith(f"usage: {prog} ")


def test_help_shows_the_commands_own_keys_and_help_all_every_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    short, whole = (help_of(flag, capsys=capsys) for flag in ("--help", "--help-all"))
    for dotted, field in keys():
        assert re.search(rf"--{re.escape(dotted.replace('_', '-'))}[ ,\n]", whole), dotted
        assert field.description
        assert field.description.split()[0] in whole
    for shown in (short, whole):
        assert {"--config", "--overwrite", "--epochs", "--pick", "--dry-run", "--version"} <= set(
            re.findall(r"--\w[\w-]*", shown)
        )
    assert "--student.mimicry auto|mean-square|normalized" in short
    assert "--prune.remove [N, ...]|null" in short
    assert "--student.exits [true|false]" in short
    assert short.index("--data") < short.index("--student.gamma") < short.index("--student.lr")
    assert not re.search(r"--(teacher|eliminate|search)\.|--weight-decay|--precision", short)


def test_help_shows_what_will_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not what a key is without a settings file: no command goes without one."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("image_size: 48\nprune: {finetune: task}\n", encoding="utf-8")
    for flag, argv, default in [
        ("--image-size", [], "64"),
        ("--image-size", ["--data", "digits"], "64"),
        ("--image-size", ["--data", "photos"], "224"),
        ("--image-size", ["--data=photos"], "224"),
        ("--image-size", ["--data", "photos", "--config", str(mine)], "48"),
        ("--prune.finetune", ["--config", str(mine)], "task"),
        ("--student.lr", [], "0.001"),
        ("--student.optimizer", [], "adamw"),
        ("--augment.scale", [], "[0.8, 1.0]"),
    ]:
        shown = " ".join(help_of(*argv, "--help-all", capsys=capsys).split())
        found = re.search(rf" {re.escape(flag)} .*?\(default: (.*?)\) (--|\w+: )", shown)
        assert found, flag
        assert found[1] == default
    with pytest.raises(UserError, match="no file 'nowhere'"):
        parsed("--config", "nowhere", "--help")


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_listing_has_a_line_for_each_command(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    dispatch(argv)
    shown = capsys.readouterr().out
    for name in ("teach", "tailor", "predict"):
        assert len(re.findall(rf"^  {name} +\w.{{9,70}}$", shown, re.MULTILINE)) == 1


def raising(error: BaseException) -> Callable[[list[str]], None]:
    """A main that ends with an error."""

    def main(argv: list[str]) -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (UserError("line [1]\nline [2]" + " x" * 200), 2, "error: line [1]\nline [2]" + " x" * 200),
        (
            PermissionError(13, "Permission denied", "a/b"),
            2,
            "error: a/b: Permission denied; mend that or give another place",
        ),
        (NotFiniteError("the loss term 'ce'"), 3, "error: the loss term 'ce'"),
        (
            Interrupted(signal.SIGINT),
            130,
            "interrupted: the same command[^\n]+ goes on from [^\n]+",
        ),
        (Interrupted(signal.SIGTERM), 143, "interrupted: [^\n]+"),
    ],
)
def test_ends(
    error: BaseException, code: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run_command(raising(error))
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (code, "")
    assert err == f"{shown}\n" or re.fullmatch(f"{shown}\n", err)


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()))
    with pytest.raises(OSError, match="of no file"):
        run_command(raising(OSError("of no file")))


def test_success_ends_with_0() -> None:
    with pytest.raises(SystemExit) as left:
        run_command(lambda argv: None)
    assert left.value.code == 0
