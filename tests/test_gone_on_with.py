"""`tailor` interrupted anywhere and gone on with leaves the bits of one that never was."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tailor_runs import (
    LEARNT,
    ROUTE,
    by_route,
    rows_of,
    teacher_of,
    wiring,
)

from nettailor import stage
from nettailor.cli import tailor
from nettailor.core.state import read_state, write_state
from nettailor.core.training_state import Fitted, TrainingState

pytestmark = pytest.mark.usefixtures("_quickly")


def same_bytes(one: Path, other: Path) -> bool:
    """Bit-equal weights, and equal figures but for what a clock says."""

    def weights(run: Path) -> dict[str, bytes]:
        found = run.rglob("model.safetensors")
        return {str(path.relative_to(run)): path.read_bytes() for path in found}

    def timeless(content: Any) -> Any:
        if isinstance(content, list):
            return [timeless(item) for item in content]
        if not isinstance(content, dict):
            return content
        kept = {key: value for key, value in content.items() if "seconds" not in key}
        return {key: timeless(value) for key, value in kept.items() if key not in clocks}

    def files(run: Path) -> list[Any]:
        found = [path for path in sorted(run.glob("*.json")) if path.name != "teacher.json"]
        return [json.loads(path.read_text(encoding="utf-8")) for path in found]

    clocks = {"latency_ms", "profile", "teacher", "peak_memory"}
    return (
        weights(one) == weights(other)
        and timeless(rows_of(one)) == timeless(rows_of(other))
        and timeless(files(one)) == timeless(files(other))
    )


def interrupted_at(call: int, epoch: int, step: int | None = None) -> Callable[..., Fitted]:
    """`fit`, but at the given call somebody presses Ctrl-C.

    When a step was taken, when an epoch is done, or, for epoch 0, before anything is.
    """
    calls, original = 0, stage.fit

    def fit(*arguments: Any, **settings: Any) -> Fitted:
        nonlocal calls
        calls += 1
        if calls != call:
            return original(*arguments, **settings)
        if epoch == 0:
            raise KeyboardInterrupt
        watcher = settings["watcher"]
        step_told, epoch_told = watcher.step, watcher.epoch

        def tell_step(*where: Any) -> None:
            step_told(*where)
            if where[:2] == (epoch, step):
                raise KeyboardInterrupt

        def tell_epoch(row: Any, network: Any) -> None:
            epoch_told(row, network)
            if row["epoch"] == epoch:
                raise KeyboardInterrupt

        watcher.step, watcher.epoch = tell_step, tell_epoch
        return original(*arguments, **settings)

    return fit


def interrupt(argv: list[str], monkeypatch: pytest.MonkeyPatch, *where: int) -> None:
    """Tailor until then, with a state saved at every step."""
    torch.manual_seed(99)  # another process begins in another state
    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "due", True)
        patch.setattr(stage, "fit", interrupted_at(*where))
        with pytest.raises(KeyboardInterrupt):
            tailor.main(argv)


def test_a_route_that_was_interrupted_and_gone_on_is_bit_identical(
    tailored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another teacher of the same seed is trained first."""
    argv = [*LEARNT, *ROUTE, "--out", str(tmp_path / "runs")]
    folder = by_route(tmp_path / "runs")
    state = folder / "state" / "student.pt"
    interrupt(argv, monkeypatch, 2, 2, 3)  # the teacher is the first call
    saved = read_state(state)
    assert (len(saved["history"]), len(saved["course"])) == (1, 2)
    taken = zip(wiring().paths, saved["network"]["taken"].tolist(), strict=True)
    assert sum(path.kind == "block" for path, stays in taken if stays) < 4

    spoilt = shutil.copytree(tmp_path / "runs", tmp_path / "spoilt")
    for slots in saved["optimizer"]["state"].values():
        slots["exp_avg"].zero_()
    write_state(by_route(spoilt) / "state" / "student.pt", saved)
    tailor.main([*argv[:-1], str(spoilt)])
    assert not same_bytes(by_route(tailored), by_route(spoilt))

    interrupt(argv, monkeypatch, 2, 0)  # before anything is fine-tuned
    assert len(rows_of(folder)) == 4
    interrupt(argv, monkeypatch, 2, 1, 2)
    assert not (folder / "summary.json").exists()
    tailor.main(argv)
    assert same_bytes(teacher_of(tailored), teacher_of(tmp_path / "runs"))
    assert same_bytes(by_route(tailored), folder)
    assert not (folder / "state").exists()
