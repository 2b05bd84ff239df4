"""What a command says that it will do, and that `--dry-run` does nothing else."""

import re
from pathlib import Path

import pytest
from shell import DIGITS, Shell

from nettailor.cli import eliminate, knapsack, tailor, teach
from nettailor.core.errors import UserError

NAME = "test_resnet-32px"
# of 60 training images validation takes a quarter: two steps of 16 in the 45 that are left
TASK = [
    "digits: 10 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)",
    "training 45 images, 2 of the smallest class, what is left; "
    "validation 15 images, 1 of the smallest class, cut from train: 25 %; "
    "test 20 images, 0 of the smallest class, cut from train: 20 %",
    "one validation image is 6.67 points; an epoch has 2 steps of 16 images",
]


def dry(main: object, out: Path, *flags: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What `--dry-run` says, line by line."""
    capsys.readouterr()
    before = sorted((path, path.stat().st_mtime_ns) for path in out.parent.rglob("*"))
    main([*DIGITS, *flags, "--dry-run", "--out", str(out)])  # type: ignore[operator]
    assert before == sorted((path, path.stat().st_mtime_ns) for path in out.parent.rglob("*"))
    return capsys.readouterr().out.splitlines()


def test_before_anything_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs"
    task = out / "digits"
    taught = [
        "teacher: 3 epochs, 6 steps",
        f"run folder: {task}/teacher/{NAME}-seed0 (new)",
    ]
    three = ["--teacher.epochs", "3"]
    assert dry(teach.main, out, *three, capsys=capsys) == [*TASK, *taught]
    flags = [*three, "--prune.epochs", "4"]
    assert dry(tailor.main, out, *flags, capsys=capsys) == [
        *TASK,
        *taught,
        "student, at several resolutions at once: 1 epoch, 2 steps; each size that is tried, "
        "at most: 4 epochs, 8 steps",
        f"run folder: {task}/tailored/{NAME}-all-gamma0.3-seed0 (new)",
    ]
    flags = [*three, "--eliminate.top", "[1, 2]", "--references", "[scratch]"]
    assert dry(eliminate.main, out, *flags, capsys=capsys) == [
        *TASK,
        *taught,
        "each run: 1 epoch, 2 steps",
        f"run folder: {task}/eliminated/{NAME}-stages1-seed0 (new)",
        f"run folder: {task}/eliminated/{NAME}-stages2-seed0 (new)",
        f"run folder: {task}/scratch/{NAME}-seed0 (new)",
    ]
    assert dry(knapsack.main, out, *three, "--prune.epochs", "null", capsys=capsys) == [
        *TASK,
        *taught,
        "fine-tuning after the cut: 20 epochs, 40 steps",  # half is a budget as well
        f"run folder: {task}/knapsack/{NAME}-flops0.5-seed0 (new)",
    ]
    # a budget of time is not measured for it
    flags = [*three, "--max-latency-ms", "2"]
    assert dry(knapsack.main, out, *flags, capsys=capsys)[-1].endswith(
        "/test_resnet-32px-2ms-batch1-seed0 (new)"
    )


def test_beside_what_is_there(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell(*DIGITS)[0] == 0
    folder = shell.out / "digits" / "teacher" / f"{NAME}-seed0"
    there = f"run folder: {folder} (finished, nothing would be trained)"
    assert dry(teach.main, shell.out, capsys=capsys) == [*TASK, there]
    assert dry(tailor.main, shell.out, capsys=capsys)[len(TASK)] == there
    discarded = f"run folder: {folder} (what is there would be discarded)"
    assert dry(teach.main, shell.out, "--overwrite", capsys=capsys)[-1] == discarded
    with pytest.raises(UserError, match=r"teacher\.lr is 0\.002 there and 0\.5 here"):
        dry(teach.main, shell.out, "--teacher.lr", "0.5", capsys=capsys)
    with pytest.raises(UserError, match=r"split\.seed is 0 there and 3 here"):
        dry(tailor.main, shell.out, "--split.seed", "3", capsys=capsys)
    (folder / "summary.json").unlink()
    assert (
        dry(teach.main, shell.out, capsys=capsys)[-1]
        == f"run folder: {folder} (begun, would go on)"
    )


@pytest.mark.parametrize(
    ("main", "flags", "says"),
    [
        (tailor.main, ["--prune.by", "rank", "--prune.remove", "[99]"], "give numbers from 0 to"),
        (tailor.main, ["--max-flops", "1e-9"], "no network of this backbone costs"),
        (tailor.main, ["--pick", "flops=0.5"], "--dry-run: says nothing of a pick"),
        (eliminate.main, ["--eliminate.top", "[9]"], "of which 1 to 3 can be cut off"),
        (knapsack.main, ["--max-flops", "1e-9"], "no choice of channels costs 1e-09"),
        (teach.main, ["--data", "MNIST"], "--download"),
    ],
)
def test_what_would_be_refused_is_refused(
    tmp_path: Path, main: object, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        dry(main, tmp_path / "runs", *flags, "--data-dir", str(tmp_path / "none"), capsys=capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_says_how_long_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After 10 steps, with no more than twice what those of its epochs took."""
    teach.main([*DIGITS, "--teacher.epochs", "7", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert shown.index("\n".join(TASK)) < shown.index("teacher: 7 epochs of 2 steps\n")
    (said,) = re.findall(
        r"^teacher: all of its 14 steps take about (\d+) s, validation", shown, re.M
    )
    assert (
        shown.index("epoch   5/7") < shown.index("all of its 14 steps") < shown.index("epoch   6/7")
    )
    took = sum(map(float, re.findall(r"epoch   \d/7 .* (\d+\.\d) s$", shown, re.M)))
    assert float(said) <= 2 * took + 5
