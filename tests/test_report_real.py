"""The comparison of runs that the commands themselves have written."""

import csv
import json
from pathlib import Path

import pytest
from conftest import quick_latency

from nettailor.cli import compare, eliminate, tailor
from nettailor.report.comparison import compare_folders

SETTINGS = [
    "--backbone", "test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "1",
    "--limit.train", "300", "--limit.test", "100", "--device", "cpu", "--workers", "0",
    "--teacher.lr", "0.1",
]  # fmt: skip


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a tailored network, one cut by two stages and both references."""
    out = tmp_path_factory.mktemp("runs")
    settings = [*SETTINGS, "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        quick_latency(patch)
        tailor.main([*settings, "--prune.tolerance", "100"])
        eliminate.main([*settings, "--top", "[2]"])
    return out / "digits"


def test_every_run_is_read_whole_and_none_is_left_out(task: Path) -> None:
    comparison = compare_folders([task])
    assert comparison.left_out == ()
    assert [*comparison.methods] == [
        "teacher", "tailored all, γ 0.3", "elim 2", "head only", "from scratch",
    ]  # fmt: skip
    for run in comparison.runs:
        # the predictions are those that the accuracy was counted on
        for split, predictions in run.predictions.items():
            right = 100 * (predictions["label"] == predictions["predicted"]).mean()
            assert right == pytest.approx(getattr(run.summary.accuracy, split), abs=0.01)


def test_the_report_tells_what_the_summaries_say(task: Path) -> None:
    compare.main([*SETTINGS, "--out", str(task.parent)])
    with (task / "comparison" / "comparison.csv").open(encoding="utf-8") as handle:
        rows = {row["method"]: row for row in csv.DictReader(handle)}
    row = rows["elim 2"]
    summary = json.loads((Path(row["folder"]) / "summary.json").read_text("utf-8"))
    assert float(row["accuracy_test"]) == summary["accuracy"]["test"]
    assert float(row["flops_ratio"]) == summary["flops"] / summary["teacher"]["flops"]
    assert float(row["latency_ratio_1"]) == (
        summary["latency_ms"]["cpu"]["1"]["median"]
        / summary["teacher"]["latency_ms"]["cpu"]["1"]["median"]
    )
    assert float(rows["teacher"]["latency_ratio_1"]) == 1
