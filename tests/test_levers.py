"""Levers without blocks: the resolution and the channels alone or together."""

from collections.abc import Sequence
from typing import Any

import pytest
from networks import refused
from tailor_runs import NAME, Runs, read, rows_of, summary_of
from test_api import digits
from torch.utils.data import DataLoader

import nettailor as nt
from nettailor.core.backbone import create_backbone
from nettailor.core.cost import module_flops
from nettailor.core.sections import Lever
from nettailor.prune.fewer_channels import fewest_channels

EPOCHS: dict[str, Any] = {"teacher_epochs": 1, "finetune_epochs": 2}


def tailored(*levers: Lever, **how: Any) -> tuple[float, int]:
    """The FLOPs of what is kept, over the network's, and its parameters."""
    train, val = digits()
    network = create_backbone("test_resnet", 10)
    loaders = DataLoader(train, 32, shuffle=True), DataLoader(val, 80)
    small = nt.tailor(network, *loaders, levers=levers, **EPOCHS, **how)
    side = train[0][0].shape[-1]
    flops = [module_flops(one, (3, side, side)) for one in (small, network)]
    return flops[0] / flops[1], sum(one.numel() for one in small.parameters())


def test_channels_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """All blocks stay, nothing trains before the channels go, and the budget is used."""
    share, _ = tailored("channels", max_flops=0.5)
    assert 0.45 < share <= 0.5
    said = capsys.readouterr().out
    assert "channels for 0.500 of the cost" in said
    assert "student" not in said
    assert " px" not in said


def test_the_resolution_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """At the highest that keeps a budget, with all of the network."""
    network = create_backbone("test_resnet", 10)
    at = {side: module_flops(network, (3, side, side)) for side in (16, 24, 32)}
    for most, side in ((at[24] + 1, 24), (at[24] - 1, 16)):
        share, params = tailored("resolution", max_flops=most / at[32])
        assert share == pytest.approx(at[side] / at[32], abs=1e-3)
        assert params == pytest.approx(sum(one.numel() for one in network.parameters()), rel=0.01)
        assert f"of images of {side} px" in capsys.readouterr().out


def test_both_keep_a_budget_that_neither_keeps_alone() -> None:
    most = 0.1
    share, _ = tailored("channels", "resolution", max_flops=most)
    assert 0.9 * most < share <= most
    for alone in ("channels", "resolution"):
        with refused("no network costs 0.1 of the backbone's flops or less: give a budget from"):
            tailored(alone, max_flops=most)


@pytest.mark.usefixtures("_quickly")
def test_the_fewest_channels_are_those_of_each_resolution(runs: Runs) -> None:
    """A larger part of a network can go where images are smaller: less of it is the same there."""
    chain = create_backbone("test_resnet", 10)
    at = {side: module_flops(chain, (3, side, side)) for side in (16, 32)}
    fewest = {side: fewest_channels(chain, side, "flops") for side in at}
    assert fewest[16] < 0.95 * fewest[32]
    most = 0.95 * fewest[32] * at[16] / at[32]
    share, _ = tailored("channels", "resolution", max_flops=most)
    assert share <= most
    folder = runs.tailored("--levers", "channels,resolution", "--max-flops", f"{most:.4f}")
    summary = summary_of(folder)
    assert summary["flops"] <= most * summary["teacher"]["flops"]


@pytest.mark.parametrize(("tolerance", "sides"), [(100.0, ["16"]), (-100.0, ["16", "24"])])
def test_the_resolution_without_a_budget(
    tolerance: float, sides: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The lowest first; the images' own is the teacher's and saves nothing."""
    tailored("resolution", tolerance=tolerance)
    said = capsys.readouterr().out
    tried = [side for side in ("16", "24", "32") if f"of images of {side} px" in said]
    assert tried == sides


def test_channels_want_a_budget() -> None:
    with refused("channels go to a budget: give max_flops or max_params"):
        tailored("channels")


@pytest.mark.usefixtures("_quickly")
def test_a_command_with_channels_alone(runs: Runs) -> None:
    """No student trains; its front has the whole network and the narrow one, which is kept."""
    folder = runs.tailored("--levers", "channels", "--max-flops", "0.6")
    assert folder.name == f"{NAME}-all-channels-gamma0.3-flops0.6-seed0"
    summary = summary_of(folder)
    assert 0.55 < summary["flops"] / summary["teacher"]["flops"] <= 0.6
    assert summary["blocks"] == summary["teacher"]["blocks"]
    assert summary["tailored"]["channels"]
    narrow, whole = read(folder / "front.json")["points"]
    assert whole["cost"] == pytest.approx(1)
    assert narrow["wide"] == whole["name"]
    assert {row["stage"] for row in rows_of(folder)} == {narrow["name"]}
    again = (folder / "model.safetensors").read_bytes()
    runs.tailored("--levers", "channels", "--max-flops", "0.6", "--overwrite")
    assert (folder / "model.safetensors").read_bytes() == again


@pytest.mark.usefixtures("_quickly")
def test_a_command_with_the_resolution_alone(runs: Runs) -> None:
    folder = runs.tailored("--levers", "resolution", "--prune.tolerance", "100")
    assert read(folder / "architecture.json")["preprocessing"]["image_size"] == 16
    summary = summary_of(folder)
    assert summary["blocks"] == summary["teacher"]["blocks"]
    assert not any(row["stage"].startswith("student") for row in rows_of(folder))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["channels"], "channels go to a budget, and none is given"),
        (["channels", "--max-flops", "0.01"], "no network of this backbone costs no more than"),
        (["resolution", "--max-flops", "0.2"], "give a budget from 0.3"),
        (
            ["channels,resolution", "--max-flops", "0.01"],
            r"alone they reach: channels 0.11, resolution 0.301",
        ),
        (["resolution", "--max-params", "0.2"], "give a budget from 1"),
        (["nothing"], "student.levers"),
        (["[]"], "expected one at least"),
    ],
)
@pytest.mark.usefixtures("_quickly")
def test_refusals(runs: Runs, flags: list[str], said: str) -> None:
    assert said in runs.refused("--levers", *flags)
