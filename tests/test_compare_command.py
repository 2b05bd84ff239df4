"""`compare`: which runs it takes, what it refuses, and where its files go that are whole."""

import shutil
from pathlib import Path

import pytest
from report_runs import summary, write_run

from nettailor.cli import compare
from nettailor.core.errors import UserError


def test_markdown_is_printable_and_its_tables_are_whole(tmp_path: Path) -> None:
    data = tmp_path / "a|b\x1b[31m"
    backbone = "net|\x1b[31m"
    for name in ("tiny", backbone):
        write_run(data, summary("teacher", backbone=name))
    (write_run(data, summary("scratch")) / "summary.json").unlink()
    compare.main([str(data), "--report", str(tmp_path / "out")])
    markdown = (tmp_path / "out" / "comparison.md").read_text("utf-8")
    assert "\x1b" not in markdown
    assert "| net\\|\\x1b[31m teacher | 0 |" in markdown
    assert f"- {tmp_path}/a\\|b\\x1b[31m/scratch/tiny-32px-seed0: not finished" in markdown
    # a table's rows follow each other on lines of their own
    assert markdown.count("\n| --- | --- |") == 3
    assert markdown.count("\n| tiny teacher | 0 |") == 3


def test_the_task_folder_is_read_at_the_settings_image_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "shapes"
    for size in (32, 64):
        write_run(task, summary("teacher", image_size=size))
    compare.main(["--data", "anywhere/shapes", "--out", str(tmp_path), "--image-size", "64"])
    text = " ".join(capsys.readouterr().out.split())
    assert "shapes at 64 px" in text
    assert "tiny-32px-seed0: another image size: 32" in text
    with pytest.raises(UserError, match="image_size is"):
        compare.main([str(task), "--image-size", "32"])


SWEEP = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "1",
    "--limit.train", "40", "--device", "cpu", "--workers", "0", "--seeds", "7",
    "--split.val", "0.2", "--split.test", "0.2", "--split.seed", "0", "--crop-pct", "0.9",
]  # fmt: skip
AS_SWEPT = {"limit": {"train": 40, "test": None}, "crop_pct": 0.9}


def test_a_sweep_that_could_not_be_compared_trains_nothing(tmp_path: Path) -> None:
    changes = {"split": {"val": 0.2, "test": 0.2, "seed": 3}}
    folder = write_run(
        tmp_path / "digits", summary("teacher", dataset="digits"), settings=AS_SWEPT | changes
    )
    # of another image size, so that it counts for nothing
    write_run(tmp_path / "digits", summary("teacher", image_size=64), settings={"crop_pct": 0.7})
    difference = "split.seed is 3 there and 0 here"
    with pytest.raises(UserError, match=f"{folder} cannot be compared.* {difference}"):
        compare.main([*SWEEP, "--out", str(tmp_path)])
    assert len(list((tmp_path / "digits").glob("*/*"))) == 2


def test_a_sweep_beside_runs_that_exclude_each_other_trains_nothing(tmp_path: Path) -> None:
    first = write_run(tmp_path / "digits", summary("teacher"), settings=AS_SWEPT)
    shutil.copytree(first, first.with_name("copied"))
    with pytest.raises(UserError, match="are both 'teacher' of seed 0"):
        compare.main([*SWEEP, "--out", str(tmp_path)])
    assert len(list((tmp_path / "digits").glob("*/*"))) == 2


def test_the_report_goes_where_all_runs_belong(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", summary("teacher"))
    two = write_run(tmp_path / "b", summary("scratch"))
    loose = tmp_path / "copied"
    shutil.copytree(two, loose)
    for folders, place in (
        ([one], tmp_path / "a"),
        ([one, two], tmp_path),
        ([loose], tmp_path),
    ):
        compare.main([str(folder) for folder in folders])
        assert (place / "comparison" / "report.html").is_file()
        shutil.rmtree(place / "comparison")


def test_help_keeps_quiet_about_what_a_comparison_refuses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        compare.main(["--help"])
    text = capsys.readouterr().out
    assert "--report DIR" in text
    assert "--overwrite" not in text
    with pytest.raises(UserError, match="a comparison discards no run"):
        compare.main(["--overwrite"])
