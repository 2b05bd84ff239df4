"""Which run folders are compared, which are left out, and which comparison is refused."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_runs import searched, summary, timings, write_run

from nettailor.core.errors import UserError
from nettailor.report.comparison import compare_folders
from nettailor.report.runs import LeftOut, read_runs, task_name


def left_out(task: Path) -> LeftOut:
    """The one run that was left out, beside a teacher that was read."""
    runs, others = read_runs([task])
    assert [run.summary.kind for run in runs] == ["teacher"]
    (other,) = others
    return other


def test_the_trials_of_a_search_are_no_runs(tmp_path: Path) -> None:
    study = tmp_path / "search" / "tiny-32px-seed0"
    shutil.copytree(write_run(tmp_path, summary("searched")), study / "trials" / "7")
    assert len(read_runs([tmp_path])[0]) == 2
    (study / "study.journal").touch()
    assert len(read_runs([tmp_path])[0]) == 1


def test_runs_are_found_at_any_depth_and_those_inside_runs_are_not(tmp_path: Path) -> None:
    teacher = write_run(tmp_path / "deep/er/shapes", summary("teacher"))
    tailored = write_run(tmp_path / "shapes", summary("tailored"))
    for inner in ("student", "sizes/size-0.400", "candidates/remove-03"):
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
            closed, f"{closed}/config.yaml cannot be read: Permission denied"
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
    predictions = folder / "predictions.csv"  # with a file's name that is no text
    predictions.write_bytes(predictions.read_bytes().replace(b"4.png", b"\xff.png"))
    ((run,), _) = read_runs([folder])
    test = run.predictions["test"]
    assert len(test) == 30
    wrong = test[test["label"] != test["predicted"]]
    assert [*wrong.itertuples(name=None)] == [(1, 1, 2), (4, 1, 0)]
    assert run.epochs.to_numpy().tolist() == [["teacher", 50.0, 0.9], ["teacher", 95.0, 0.2]]
    assert run.settings["split.val"] == 0.2
    assert run.teacher is run.summary


def changed(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    """Sets a dotted key."""

    def change(content: dict[str, Any]) -> None:
        *outer, last = key.split(".")
        for name in outer:
            content = content[name]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("flops"), "flops: Field required"),
        (changed("flops", 0), "flops: Input should be greater"),
        (changed("loss.val", float("nan")), "loss.val: .* finite number"),
        (changed("teacher", None), "its teacher must be there"),
        (changed("teacher.kind", "scratch"), "teacher is a run of kind"),
        (changed("teacher.latency_ms", {"cuda": timings(1, 9)}), "not measured on cpu"),
        (changed("searched", searched(1)), "kind is 'tailored', but searched is"),
        (changed("searched", searched(1, study="../secrets")), "searched.study: String should"),
        (changed("tailored.paths", [[1, 9, "proxy", 0.5]]), "within 5"),
        (changed("tailored.paths", [[0, 1, "block", 1.0]]), "neither head nor exit"),
    ],
)
def test_a_damaged_summary_is_left_out_with_the_reason(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], reason: str
) -> None:
    write_run(tmp_path, summary("teacher"))
    content = summary("tailored")
    change(content)
    damaged = write_run(tmp_path, summary("tailored"))
    (damaged / "summary.json").write_text(json.dumps(content), "utf-8")
    other = left_out(tmp_path)
    assert other.folder == damaged
    assert re.match(f"damaged: summary.json.*{reason}", other.reason)


HEAD = "split,index,label,predicted,probability\n"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("summary.json", b"{", "damaged: summary.json: Invalid JSON"),
        ("summary.json", b"\xff\xfe", "damaged: summary.json cannot be read"),
        ("summary.json", None, "not finished"),
        ("model.safetensors", None, "model.safetensors: not found: the run is not whole"),
        ("config.yaml", b"data: [", "config.yaml cannot be read: it is no YAML"),
        ("config.yaml", b"weights: x", "damaged: config.yaml holds no settings of a run"),
        ("metrics.csv", None, "damaged: metrics.csv is missing"),
        ("metrics.csv", b"\xff\xfe\x00", "damaged: metrics.csv is no table"),
        ("metrics.csv", b"stage,val_accuracy,val_loss\nx,nan,1\n", "metrics.csv is no table"),
        ("metrics.csv", b"stage,val_accuracy,val_loss\n", "damaged: metrics.csv has no epochs"),
        ("predictions.csv", b"split,index,label\ntest,0,1\n", "predictions.csv is no table"),
        ("predictions.csv", f"{HEAD}val,0,1,3,0.5\n".encode(), "predictions.csv, line 2"),
        ("predictions.csv", f"{HEAD}val,0,1,2,1\nval,0,1,1,1\n".encode(), "of the split val twice"),
        ("predictions.csv", f"{HEAD}val,0,1,2,1\n".encode(), "no rows of the split test"),
    ],
)
def test_a_half_finished_or_damaged_run_is_left_out_with_the_reason(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    write_run(tmp_path, summary("teacher"))
    damaged = write_run(tmp_path, summary("scratch"))
    if content is None:
        (damaged / name).unlink()
    else:
        (damaged / name).write_bytes(content)
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
        compare_folders([tmp_path], 96)


def test_no_finished_run_is_refused_with_what_is_there(tmp_path: Path) -> None:
    folder = write_run(tmp_path, summary("teacher"))
    (folder / "summary.json").unlink()
    with pytest.raises(UserError, match=r"no finished run; train one first(.|\n)*not finished"):
        compare_folders([tmp_path])
    with pytest.raises(UserError, match="no such folder"):
        compare_folders([tmp_path / "absent"])


@pytest.mark.parametrize(
    ("content", "settings", "difference"),
    [
        ({"dataset": "other"}, {}, "dataset is 'shapes' in .* and 'other' in "),
        ({"classes": ["circle", "box", "star"]}, {}, "class 1 is 'square' in .* and 'box' in "),
        ({"image_size": 64}, {}, "image_size is 32 in .* and 64 in "),
        ({}, {"data": "elsewhere/forms"}, "data is 'shapes' in .* and 'forms' in "),
        ({}, {"crop_pct": 0.9}, "crop_pct is None in .* and 0.9 in "),
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
        compare_folders([first, second])
    assert str(first) in str(refusal.value)
    assert str(second) in str(refusal.value)
    assert "give the folders to compare" in str(refusal.value)


def test_other_images_under_the_same_name_are_refused(tmp_path: Path) -> None:
    teacher = write_run(tmp_path, summary("teacher"))
    labels = {"val": [i % 3 for i in range(20)], "test": [2] * 30}
    other = write_run(tmp_path, summary("scratch"), labels=labels)
    with pytest.raises(UserError, match="checksum of the test images"):
        compare_folders([teacher, other])


def test_another_spelling_of_the_data_and_another_backbone_are_no_difference(
    tmp_path: Path,
) -> None:
    one = write_run(tmp_path, summary("teacher"), settings={"data": "./images/shapes/"})
    whole = str(Path("images/shapes").resolve())
    other = write_run(tmp_path, summary("teacher", backbone="other"), settings={"data": whole})
    assert len(compare_folders([one, other]).runs) == 2
    names = [task_name(data) for data in ("Digits", "fashionmnist", "CIFAR10", "where/birds/")]
    assert names == ["digits", "FashionMNIST", "CIFAR10", "birds"]
