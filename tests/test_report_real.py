"""The comparison of runs that the commands themselves have written."""

import csv
import json
from pathlib import Path

import pytest
from conftest import quick_latency

from nettailor.cli import compare, eliminate, tailor
from nettailor.report.methods import group
from nettailor.report.path_weights import read_path_weights
from nettailor.report.runs import read_runs
from nettailor.student.wiring import KINDS

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
    runs, left_out = read_runs([task])
    assert left_out == []
    assert [method.label for method in group(runs)] == [
        "teacher",
        "tailored all, γ 0.3",
        "elim 2",
        "head only",
        "from scratch",
    ]
    for run in runs:
        # the predictions are those that the accuracy was counted on
        for split, predictions in run.predictions.items():
            right = 100 * (predictions.label == predictions.predicted).mean()
            assert right == pytest.approx(getattr(run.summary.accuracy, split), abs=0.01)


def test_the_students_path_weights_are_found(task: Path) -> None:
    (run,) = (run for run in read_runs([task])[0] if run.summary.tailored)
    epochs, weights = read_path_weights(run)
    assert epochs == [0, 1]
    # test_resnet has four blocks in four stages; the student has every kind of path but proxies
    kinds = {kind: [path.target for path in weights if path.kind == kind] for kind in KINDS}
    assert kinds["block"] == [1, 2, 3, 4]
    assert set(kinds["identity"]) <= {1, 2, 3, 4}
    assert kinds["identity"]
    assert [path.source for path in weights if path.kind == "exit"] == [1, 2, 3, 4]
    assert kinds["head"] == [5]
    assert kinds["proxy"] == []


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
    page = (task / "comparison" / "report.html").read_text("utf-8")
    assert "Path weights through time, tailored all, γ 0.3, seed 0" in page
    assert page.count("data:image/png;base64") >= 3  # maps of weights and mistakes
