"""`--time`: as many epochs as fit, which the run then keeps."""

from pathlib import Path

import pytest
import torch
import yaml
from shell import contents
from tailor_runs import NAME, SMALL, Runs, no_training, session_of
from test_gone_on_with import interrupt

from nettailor import in_time, stage
from nettailor.cli import tailor
from nettailor.core.errors import UserError
from nettailor.core.run_folder import RunFolder
from nettailor.time_limit import TimeLimit, fitting, read_time

pytestmark = pytest.mark.usefixtures("_quickly")

LONG = ["--student.epochs", "8", "--prune.epochs", "6"]


@pytest.fixture
def _a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock an epoch of the whole network takes a second."""
    monkeypatch.setattr(in_time, "plain_epoch", lambda _: 1.0)


def epochs_of(folder: Path, *stages: str) -> list[object]:
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return [settings[stage]["epochs"] for stage in stages]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("0.5m", 30)]
)
def test_a_time(text: str, seconds: float) -> None:
    assert read_time(text) == TimeLimit(text, seconds)


@pytest.mark.parametrize(
    "text", ["", "30", "m", "-3m", "0s", "3 m", "3d", "1h30m", "infm", "1e3s", "٣m", "3m\n"]
)
def test_no_time(text: str) -> None:
    with pytest.raises(UserError, match="expected a number and its unit, such as 90s"):
        read_time(text)


@pytest.mark.parametrize(
    ("room", "epochs"),
    [
        (99.0, (10, 8, 6)),
        (38.0, (10, 8, 6)),  # 10 + 8 · 2 + 6 · 2
        (37.9, (9, 7, 5)),
        (19.0, (5, 4, 3)),  # half of each
        (5.0, (1, 1, 1)),
        (4.9, None),
    ],
)
def test_epochs_that_fit(room: float, epochs: tuple[int, ...] | None) -> None:
    wanted = {"teacher": 10, "student": 8, "prune": 6}
    found = fitting(room, wanted, {"teacher": 1.0, "student": 2.0, "prune": 2.0})
    assert found == (epochs and dict(zip(wanted, epochs, strict=True)))


@pytest.mark.usefixtures("_a_second")
@pytest.mark.parametrize(
    ("asked", "seconds", "epochs", "said"),
    [
        # 0.9 of the time; a student's epoch is 1.1 and one of the sizes 2: 20.8 after the teacher
        ("auto", 90, "auto", "given up: nothing"),
        ("auto", 89, 20, "given up: longer training of a teacher that is not there yet"),
        ("auto", 46, 20, "given up: longer training of a teacher that is not there yet"),
        ("auto", 23, 10, "given up: 10 of 20 epochs of the teacher, 4 of 8 epochs of the student"),
        ("40", 68, 40, "given up: nothing"),
        ("40", 5, 1, "given up: 39 of 40 epochs of the teacher, 7 of 8 epochs of the student"),
    ],
)
def test_the_teachers_epochs(
    asked: str,
    seconds: float,
    epochs: int | str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = session_of(*LONG, "--teacher.epochs", asked)
    limit = TimeLimit(f"{seconds}s", seconds)
    teacher = in_time.in_time(session, limit, RunFolder(tmp_path)).config.teacher
    assert teacher.epochs == epochs
    assert teacher.warmup_epochs == (0 if epochs == 1 else 1)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"--time {limit.text}: an epoch of the whole network takes 1 s here; {said}" in shown


@pytest.mark.usefixtures("_a_second")
def test_a_run_keeps_the_epochs_that_it_began_with(runs: Runs) -> None:
    """10.8 epochs of the whole network fit: 4 of 1.1, and 3 of 2."""
    made = runs.tailored(*LONG, "--time", "12s")
    assert epochs_of(made, "student", "prune") == [4, 3]
    before = contents(made)
    assert runs.tailored(*LONG, "--time", "9h") == made
    assert contents(made) == before
    refusal = runs.refused(*LONG)
    assert "prune.epochs is 3 there and 6 here; student.epochs is 4 there and 8 here" in refusal
    runs.tailored(*LONG, "--time", "12s", "--pick", "flops=0.9")
    assert (made / "picked" / "flops0.9" / "summary.json").is_file()


@pytest.mark.usefixtures("_a_second")
def test_what_was_begun_is_gone_on_with_and_what_was_not_is_planned(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped as the teacher trains; then just after the run's settings were written."""
    argv = [*SMALL, *LONG, "--time", "20s", "--teacher.epochs", "9", "--out", str(tmp_path)]
    interrupt(argv, monkeypatch, 1, 2)
    (teacher,) = (tmp_path / "digits" / "teacher").iterdir()
    (taught,) = epochs_of(teacher, "teacher")
    assert taught == 5
    tailor.main([*argv, "--dry-run"])
    assert "(begun, would go on)" in " ".join(capsys.readouterr().out.split())
    tailor.main(argv)
    assert epochs_of(teacher, "teacher") == [taught]
    folder = runs.out / "digits" / "tailored" / f"{NAME}-all-blocks-gamma0.3-seed0"
    folder.mkdir(parents=True)
    (made,) = (tmp_path / "digits" / "tailored").iterdir()
    settings = (made / "config.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(settings, encoding="utf-8")
    runs.tailored(*LONG, "--time", "12s")
    assert epochs_of(folder, "student", "prune") == [4, 3]


def test_time_enough_changes_nothing(tmp_path: Path) -> None:
    """Neither settings nor, by the steps that are timed, what random numbers later stages draw."""
    session = session_of(*LONG)

    def drawn() -> torch.Tensor:
        session.seed_stage("student")
        return torch.rand(3)

    before = drawn()
    given = in_time.in_time(session, TimeLimit("9h", 32400), RunFolder(tmp_path))
    assert given.config == session.config
    assert torch.equal(drawn(), before)


@pytest.mark.usefixtures("_a_second")
def test_too_little_time(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs.refused(*LONG, "--time", "3s") == (
        "error: --time 3s: an epoch of the whole network takes 1 s here, and one of each stage "
        "3 s: give more, or fewer images (--limit.train)\n"
    )
    monkeypatch.setattr(stage, "fit", no_training)
    with pytest.raises(UserError, match=r"and one of each stage 5 s: give more"):
        tailor.main([*SMALL, "--time", "3s", "--out", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()
    assert "--time needs prune.by: route" in runs.refused("--time", "9h", "--prune.by", "rank")
