"""TensorBoard's table of runs: a row holds the settings of a run and what it came to."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from nettailor.core.hparams import note_figures


def test_a_row_holds_settings_and_figures(tmp_path: Path) -> None:
    """Written twice, as by --overwrite: the last one counts."""
    settings = {"data": "digits", "student.lr": 0.001, "augment.scale": [0.8, 1.0], "crop": None}
    for accuracy in (50.0, 98.5):
        figures = {"val accuracy": accuracy, "test accuracy": None, "parameters": 1000.0}
        note_figures(tmp_path / "hparams", settings, figures)
    events = EventAccumulator(str(tmp_path / "hparams"))
    events.Reload()
    told = HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info.hparams
    assert told["data"].string_value == "digits"
    assert told["student.lr"].number_value == pytest.approx(0.001)
    assert told["augment.scale"].string_value == "[0.8, 1.0]"
    assert set(told) == {"data", "student.lr", "augment.scale"}
    assert set(events.Tags()["scalars"]) == {"result/val accuracy", "result/parameters"}
    assert [one.value for one in events.Scalars("result/val accuracy")] == [98.5]
