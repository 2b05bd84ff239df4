"""`knapsack` before it trains: what its flags make of a run's name, and what is refused."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tailor_runs import NAME, SMALL, no_training, session_of

from nettailor import stage
from nettailor.cli import knapsack
from nettailor.commands.knapsack import knapsack_folder
from nettailor.core.errors import UserError

pytestmark = pytest.mark.usefixtures("_quickly")


def test_cuts_of_a_run_have_names_of_their_own(tmp_path: Path) -> None:
    session = session_of("--out", str(tmp_path), "--max-flops", "0.5")

    def name(of: Path) -> str:
        settings = session.config.knapsack.model_copy(update={"of": str(of)})
        asked = session.config.model_copy(update={"knapsack": settings})
        return knapsack_folder(replace(session, config=asked)).path.name

    for short in ("all-gamma0.3", "all-gamma1"):
        run = tmp_path / "digits" / "tailored" / f"{NAME}-{short}-seed0"
        assert name(run) == f"{NAME}-flops0.5-of-{short}-seed0"
        assert name(run / "picked" / "flops0.7") == f"{NAME}-flops0.5-of-{short}-flops0.7-seed0"
        assert name(run / "candidates" / "size-0.500") == (
            f"{NAME}-flops0.5-of-{short}-size-0.500-seed0"
        )


def test_milliseconds_of_another_device_are_another_run(tmp_path: Path) -> None:
    for flags, cpu, cuda in (
        (["--max-latency-ms", "4"], "4ms-batch1", "4ms-batch1-cuda"),
        (["--max-flops", "0.4"], "flops0.4", "flops0.4"),
    ):
        session = session_of("--out", str(tmp_path), *flags)
        assert knapsack_folder(session).path.name == f"{NAME}-{cpu}-seed0"
        elsewhere: Any = SimpleNamespace(device=torch.device("cuda"))
        there = replace(session, accelerator=elsewhere)
        assert knapsack_folder(there).path.name == f"{NAME}-{cuda}-seed0"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max-flops", "0.001"], r"costs 0\.001 of the multiply-adds: give a budget from 0\.\d+"),
        (["--max-flops", "1"], "give a budget from"),
        (["--max-params", "0.00001"], "of the parameters: give a budget from"),
        (["--max-latency-ms", "0.0000001"], r"give a budget from \S+ to below \S+ ms"),
        (["--max-flops", "0.5", "--max-params", "0.5"], "give one of max_flops"),
        (["--backbone", "nf_resnet26"], r"grouped: its layer stem\.conv does '"),
        (["--of", "nowhere"], "holds no run"),
        (["--of", "x" * 300], "File name too long"),
        (["--round-to", "0"], r"round_to"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_trained(
    flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "fit", no_training)
    with pytest.raises(UserError, match=message):
        knapsack.main([*SMALL, "--out", str(tmp_path), *flags])
    # what was measured is kept: the next budget is checked at once
    assert {path.parent.name for path in tmp_path.rglob("*") if path.is_file()} <= {"times"}
