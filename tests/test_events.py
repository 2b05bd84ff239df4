"""What TensorBoard shows: the table of runs, their images, and the course of a student."""

import os
from pathlib import Path

import pytest
from tailor_runs import by_rank, by_route, front_of, summary_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from nettailor.core.hparams import note_figures


def events_of(folder: Path, stage: str) -> EventAccumulator:
    events = EventAccumulator(
        str(folder / "events" / stage), size_guidance={"scalars": 0, "images": 0}
    )
    events.Reload()
    return events


def curve(events: EventAccumulator, name: str) -> dict[int, float]:
    """Its values by epoch."""
    found = {event.step: event.value for event in events.Scalars(name)}
    assert len(found) == len(events.Scalars(name))
    return found


def test_a_row_holds_settings_and_figures(tmp_path: Path) -> None:
    """Written twice, as by --overwrite: the last one counts."""
    settings = {
        "data": "digits",
        "out": os.fsdecode(b"caf\xe9"),
        "student.lr": 0.001,
        "augment.scale": [0.8, 1.0],
        "crop": None,
    }
    for accuracy in (50.0, 98.5):
        figures = {"val accuracy": accuracy, "test accuracy": None, "parameters": 1000.0}
        note_figures(tmp_path / "events" / "hparams", settings, figures)
    events = events_of(tmp_path, "hparams")
    told = HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info.hparams
    assert told["data"].string_value == "digits"
    assert told["out"].string_value == "caf\\udce9"
    assert told["student.lr"].number_value == pytest.approx(0.001)
    assert told["augment.scale"].string_value == "[0.8, 1.0]"
    assert set(told) == {"data", "out", "student.lr", "augment.scale"}
    assert set(events.Tags()["scalars"]) == {"result/val accuracy", "result/parameters"}
    assert [one.value for one in events.Scalars("result/val accuracy")] == [98.5]


def test_events_hold_training_images_and_what_each_run_came_to(tailored: Path) -> None:
    (teacher,) = (tailored / "digits" / "teacher").iterdir()
    (grid,) = events_of(teacher, "teacher").Images("training_images")
    assert (grid.step, grid.width, grid.height) == (0, 8 * 32, 2 * 32)
    for folder in (teacher, by_route(tailored), by_rank(tailored)):
        events, figures = events_of(folder, "hparams"), summary_of(folder)
        assert "_hparams_/session_start_info" in events.summary_metadata
        for tag, value in (
            ("val accuracy", figures["accuracy"]["val"]),
            ("FLOPs", figures["flops"]),
        ):
            (found,) = events.Scalars(f"result/{tag}")
            assert found.value == pytest.approx(value)


def test_events_hold_how_a_student_shrank(tailored: Path) -> None:
    events, points = events_of(by_route(tailored), "student"), front_of(by_route(tailored)).points
    tags = events.Tags()["scalars"]
    cost, target = curve(events, "cost"), curve(events, "target")
    assert list(cost) == list(target) == list(range(5))
    assert (cost[0], target[0]) == (pytest.approx(1), 1)
    assert target[4] == pytest.approx(0.1)
    passed = sorted({cost[epoch] for epoch in range(1, 5)})
    assert passed == pytest.approx([point.cost for point in points])
    taken = [curve(events, tag) for tag in tags if tag.startswith("path_weight/")]
    assert {value for one in taken for value in one.values()} == {0, 1}
    assert [sum(one[0] for one in taken), sum(one[4] for one in taken)] == [5, len(points[0].paths)]
    prices = [curve(events, tag) for tag in tags if tag.startswith("price/")]
    assert prices
    assert all(value >= 0 and epoch > 0 for one in prices for epoch, value in one.items())
    assert [image.step for image in events.Images("architecture")] == list(range(5))
