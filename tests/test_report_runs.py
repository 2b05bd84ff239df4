"""Which run folders are compared, which are left out, and which comparison is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_runs import accuracy, name_of, searched, summary, write_run

from nettailor.core.errors import UserError
from nettailor.report.runs import LeftOut, read_runs, task_name


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a run's summary says."""
    path = folder / "summary.json"
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def left_out(task: Path) -> LeftOut:
    """The one run that was left out, beside a teacher that was read."""
    runs, others = read_runs([task])
    assert [run.summary.kind for run in runs] == ["teacher"]
    (other,) = others
    return other


def test_no_path_in_the_name_of_a_study_is_followed(tmp_path: Path) -> None:
    write_run(tmp_path, summary("searched", searched=searched(1, study="../../secrets")))
    with pytest.raises(UserError, match=r"searched\.study: String should match pattern"):
        read_runs([tmp_path])


def test_the_trials_of_a_search_are_no_runs(tmp_path: Path) -> None:
    write_run(tmp_path, summary("searched"))
    study = tmp_path / "search" / "tiny-32px-seed0"
    shutil.copytree(tmp_path / "searched" / "tiny-32px-trial7-0a1b2c-seed0", study / "trials" / "7")
    assert len(read_runs([tmp_path])[0]) == 2
    (study / "study.journal").touch()
    assert len(read_runs([tmp_path])[0]) == 1


def test_runs_are_found_at_any_depth_and_those_inside_runs_are_not(tmp_path: Path) -> None:
    teacher = write_run(tmp_path / "deep/er/shapes", summary("teacher"))
    tailored = write_run(tmp_path / "shapes", summary("tailored"))
    for inner in ("student", "candidates/remove-03"):
        write_run(tailored / inner, summary("tailored"))
    write_run(tmp_path / ".hidden", summary("scratch"))
    runs, others = read_runs([tmp_path])
    assert {run.folder for run in runs} == {teacher, tailored}
    assert others == []
    # a run folder itself, and the same run by two ways, count once
    assert [run.folder for run in read_runs([tailored, tailored / ".." / tailored.name])[0]] == [
        tailored / ".." / tailored.name
    ]


def test_a_link_to_a_run_is_a_run(tmp_path: Path) -> None:
    elsewhere = write_run(tmp_path / "disk", summary("tailored"))
    task = tmp_path / "shapes"
    write_run(task, summary("teacher"))
    (task / "tailored").mkdir()
    (task / "tailored" / "linked").symlink_to(elsewhere)
    (task / "tailored" / "nowhere").symlink_to(tmp_path / "gone")
    runs, others = read_runs([task])
    assert {run.folder.name for run in runs} == {"linked", "tiny-32px-seed0"}
    assert others == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_left_out_with_the_reason(tmp_path: Path) -> None:
    write_run(tmp_path, summary("teacher"))
    closed = write_run(tmp_path, summary("tailored"))
    closed.chmod(0)
    try:
        assert left_out(tmp_path) == LeftOut(
            closed, "config.yaml cannot be read: Permission denied"
        )
    finally:
        closed.chmod(0o755)


def test_what_is_read_of_a_run(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path,
        summary("teacher"),
        wrong={1: 2, 4: 0},
        epochs=[("teacher", 50.0, 0.9), ("teacher", 95.0, 0.2)],
    )
    ((run,), _) = read_runs([folder])
    test = run.predictions["test"]
    # thirty test images that take turns in three classes; 1 and 4 are of class 1
    assert test.confusion(3).tolist() == [[10, 0, 0], [1, 8, 1], [0, 0, 10]]
    assert test.recall(3).tolist() == [100, 80, 100]
    assert [index for index, right in test.is_right().items() if not right] == [1, 4]
    assert [(epoch.stage, epoch.accuracy, epoch.loss) for epoch in run.epochs] == [
        ("teacher", 50.0, 0.9),
        ("teacher", 95.0, 0.2),
    ]
    assert run.settings["split.val"] == 0.2
    assert run.teacher is run.summary


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("flops"), "summary.json: flops: Field required"),
        (lambda content: content.update(bytes="13"), "summary.json: bytes: Input should be"),
        (lambda content: content.update(flops=0), "summary.json: flops: Input should be greater"),
        (lambda content: content["loss"].update(val=float("nan")), "loss.val: .* finite number"),
        (lambda content: content["accuracy"].update(val=101.0), "accuracy.val: .* equal to 100"),
        (lambda content: content["latency_ms"]["cpu"].pop("64"), "latency_ms.cpu.64: Field"),
        (lambda content: content.update(teacher=None), "its teacher must be there"),
        (lambda content: content["teacher"].update(kind="scratch"), "teacher is a run of kind"),
        (
            lambda content: content["teacher"].update(
                latency_ms={"cuda": content["latency_ms"]["cpu"]}
            ),
            "not measured on cpu",
        ),
        (
            lambda content: content.update(searched=searched(1)),
            "kind is 'tailored', but searched is",
        ),
        (lambda content: content.update(tailored=None), "kind is 'tailored', but tailored is None"),
        (lambda content: content["tailored"]["paths"].append([1, 9, "proxy", 0.5]), "within 5"),
        (lambda content: content["tailored"]["paths"].append([4, 5, "block", 1.0]), "heads and ex"),
        (lambda content: content["tailored"]["paths"].append([2, 3, "skip", 1.0]), "Input should"),
        (lambda content: content["tailored"]["paths"].pop(), "neither head nor exit"),
        (lambda content: content["tailored"].pop("cut"), "tailored.cut: Field required"),
        (lambda content: content["tailored"].update(cut="both"), "tailored.cut: Input should"),
        (lambda content: content["tailored"].pop("budget"), "tailored.budget: Field required"),
        (
            lambda content: content["tailored"].update(budget={"cost": "flops", "most": 0}),
            "tailored.budget.most: Input should be greater",
        ),
        (
            lambda content: content["tailored"].update(budget={"cost": "bytes", "most": 1}),
            "tailored.budget.cost: Input should be",
        ),
        (lambda content: content.update(kind="candidate"), "kind: Input should be 'teacher'"),
    ],
)
def test_a_damaged_summary_is_left_out_with_the_reason(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], reason: str
) -> None:
    write_run(tmp_path, summary("teacher"))
    damaged = write_run(tmp_path, summary("tailored"))
    rewrite(damaged, change)
    other = left_out(tmp_path)
    assert other.folder == damaged
    assert other.reason.startswith("damaged: summary.json")
    with pytest.raises(UserError, match=reason):
        raise UserError(other.reason)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("summary.json", "{", "damaged: summary.json: Invalid JSON"),
        ("summary.json", "[]", "damaged: summary.json: "),
        ("summary.json", None, "not finished"),
        ("model.safetensors", None, "model.safetensors: not found: the run is not whole"),
        ("model.safetensors", "{}", "model.safetensors: no readable safetensors file"),
        ("architecture.json", None, "architecture.json: not found: the run is not whole"),
        ("architecture.json", "{}", "architecture.json: backbone: Field required: the run is not"),
        ("config.yaml", "data: [", "damaged: config.yaml cannot be read"),
        ("config.yaml", "weights: x", "damaged: config.yaml holds no settings of a run"),
        ("metrics.csv", None, "damaged: metrics.csv is missing"),
        ("metrics.csv", "stage,val_accuracy,val_loss\nx,nan,1\n", "damaged: metrics.csv is no"),
        ("metrics.csv", "stage,val_accuracy,val_loss\n", "damaged: metrics.csv has no epochs"),
        ("predictions.csv", None, "damaged: predictions.csv is missing"),
        ("predictions.csv", "split,index,label\ntest,0,1\n", "damaged: predictions.csv, line 2"),
        ("predictions.csv", "split,index,label,predicted,probability\nval,0,1,3,0.5\n", "line 2"),
        ("predictions.csv", "split,index,label,predicted,probability\nval,0,1,2,nan\n", "line 2"),
        (
            "predictions.csv",
            "split,index,label,predicted,probability,picture\nval,0,1,2,1,../../mine.png\n",
            "line 2",
        ),
        (
            "predictions.csv",
            "split,index,label,predicted,probability\nval,0,1,2,1\nval,0,1,1,1\ntest,0,1,1,1\n",
            "lists an image of the split val twice",
        ),
        (
            "predictions.csv",
            "split,index,label,predicted,probability\nval,0,1,2,1\n",
            "no rows of the split test",
        ),
    ],
)
def test_a_half_finished_or_damaged_run_is_left_out_with_the_reason(
    tmp_path: Path, name: str, content: str | None, reason: str
) -> None:
    write_run(tmp_path, summary("teacher"))
    damaged = write_run(tmp_path, summary("scratch"))
    if content is None:
        (damaged / name).unlink()
    else:
        (damaged / name).write_text(content, "utf-8")
    other = left_out(tmp_path)
    assert other.folder == damaged
    assert reason in other.reason


def test_of_a_given_image_size_others_are_left_out_with_the_reason(tmp_path: Path) -> None:
    small = write_run(tmp_path, summary("teacher"))
    large = write_run(tmp_path, summary("teacher", image_size=64))
    begun = write_run(tmp_path, summary("scratch", image_size=64))
    (begun / "summary.json").unlink()
    runs, others = read_runs([tmp_path], 32)
    assert [run.folder for run in runs] == [small]
    assert others == [
        LeftOut(begun, "another image size: 64"),
        LeftOut(large, "another image size: 64"),
    ]
    with pytest.raises(UserError, match=r"no finished run at 96 px(.|\n)*image size: 32"):
        read_runs([tmp_path], 96)


@pytest.mark.parametrize("name", ["summary.json", "config.yaml", "metrics.csv", "predictions.csv"])
def test_bytes_that_are_no_text_are_left_out(tmp_path: Path, name: str) -> None:
    write_run(tmp_path, summary("teacher"))
    damaged = write_run(tmp_path, summary("scratch"))
    (damaged / name).write_bytes(b"\xff\xfe\x00")
    assert left_out(tmp_path).reason.startswith("damaged: ")


def test_no_finished_run_is_refused_with_what_is_there(tmp_path: Path) -> None:
    folder = write_run(tmp_path, summary("teacher"))
    (folder / "summary.json").unlink()
    with pytest.raises(UserError, match=r"no finished run; train one first(.|\n)*not finished"):
        read_runs([tmp_path])
    with pytest.raises(UserError, match="no such folder"):
        read_runs([tmp_path / "absent"])


@pytest.mark.parametrize(
    ("content", "settings", "difference"),
    [
        ({"dataset": "other"}, {}, "dataset is 'shapes' in .* and 'other' in "),
        ({"classes": ["circle", "square"]}, {}, "number of classes is 3 in .* and 2 in "),
        ({"classes": ["circle", "box", "star"]}, {}, "class 1 is 'square' in .* and 'box' in "),
        ({"image_size": 64}, {}, "image_size is 32 in .* and 64 in "),
        ({}, {"data": "elsewhere/forms"}, "data is 'shapes' in .* and 'forms' in "),
        ({}, {"crop_pct": 0.9}, "crop_pct is None in .* and 0.9 in "),
        ({}, {"split": {"val": 0.2, "test": 0.2, "seed": 7}}, "split.seed is 0 in .* and 7 in "),
        (
            {},
            {"split": {"val": 0.2, "test": 0.2, "seed": 0, "group_by": "cat"}},
            "split.group_by is None in .* and 'cat' in ",
        ),
        ({}, {"limit": {"train": 50, "test": None}}, "limit.train is None in .* and 50 in "),
    ],
)
def test_runs_of_different_tasks_are_refused_with_the_difference(
    tmp_path: Path, content: dict[str, Any], settings: dict[str, Any], difference: str
) -> None:
    first = write_run(tmp_path, summary("teacher"))
    other_content = summary("scratch", **content)
    usual = yaml.safe_load((first / "config.yaml").read_text("utf-8"))
    second = write_run(tmp_path, other_content, settings=usual | settings)
    with pytest.raises(UserError, match=difference) as refusal:
        read_runs([first, second])
    assert str(first) in str(refusal.value)
    assert str(second) in str(refusal.value)
    assert "give the folders to compare" in str(refusal.value)


@pytest.mark.parametrize(
    ("labels", "difference"),
    [
        ({"val": [0, 1, 2], "test": [0, 1]}, "number of test images is 30 in .* and 2 in"),
        ({"val": [i % 3 for i in range(20)], "test": [2] * 30}, "checksum of the test images"),
    ],
)
def test_other_images_under_the_same_name_are_refused(
    tmp_path: Path, labels: dict[str, list[int]], difference: str
) -> None:
    teacher = write_run(tmp_path, summary("teacher"))
    labels = {**labels, "val": [i % 3 for i in range(20)]}
    other = write_run(tmp_path, summary("scratch"), labels=labels)
    with pytest.raises(UserError, match=difference):
        read_runs([teacher, other])


def test_another_spelling_of_the_data_and_another_backbone_are_no_difference(
    tmp_path: Path,
) -> None:
    one = write_run(tmp_path, summary("teacher"), settings={"data": "./images/shapes/"})
    content = summary("teacher", backbone="other", accuracy=accuracy(90.0, 80.0))
    other = write_run(tmp_path, content, settings={"data": str(Path("images/shapes").resolve())})
    assert len(read_runs([one, other])[0]) == 2
    assert name_of(content) == other.name


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("digits", "digits"),
        ("Digits", "digits"),
        ("fashionmnist", "FashionMNIST"),
        ("CIFAR10", "CIFAR10"),
        ("some/where/birds", "birds"),
        ("some/where/birds/", "birds"),
    ],
)
def test_a_task_has_one_name(data: str, name: str) -> None:
    assert task_name(data) == name
