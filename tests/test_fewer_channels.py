"""Channels as a lever: which go, what is left of the cost, and what a command ends with."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import lively_chain
from networks import lively_student, refused, student_of
from tailor_runs import NAME, SMALL, Runs, read, rows_of, summary_of
from test_api import digits
from test_gone_on_with import interrupt, same_bytes
from torch import nn
from torch.utils.data import DataLoader

import nettailor as nt
from nettailor.channel_lever import before_channels, refusal, whole_cost
from nettailor.cli import tailor
from nettailor.core.backbone import Backbone, create_backbone
from nettailor.core.cost import module_cost
from nettailor.core.device import start_accelerator
from nettailor.network import load_network
from nettailor.prune.channels import trace_channels
from nettailor.prune.fewer_channels import (
    deployed_cost,
    fewest_channels,
    with_fewer_channels,
    within_a_share,
)
from nettailor.prune.narrow import channels_left, narrow, widths
from nettailor.prune.plan import PrunePlan
from nettailor.prune.widths import allowed, count_flops
from nettailor.report.summary import read_summary
from nettailor.student.costs import shares_of
from nettailor.student.wiring import full_wiring

BOTH = ("blocks", "channels")
LEVERS = ["--levers", "[blocks, channels]"]
PLAN = PrunePlan("size", full_wiring(2, 0), full_wiring(2, 0))


def batches(count: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(count, 16, 3, 32, 32, generator=draw)
    return [(one, torch.arange(16) % 5) for one in images]


@pytest.mark.parametrize(
    ("make", "unit", "shares"),
    [
        (lambda: lively_chain("test_resnet"), "flops", (0.5, 0.8)),
        (lambda: lively_chain("test_resnet"), "params", (0.5, 0.8)),
        (lambda: lively_student("test_efficientnet", 0), "flops", (0.5, 0.8)),
        # as deployed: before its branches are fused it costs 3.8 times as much
        (lambda: lively_chain("mobileone_s0"), "flops", (0.5,)),
    ],
)
def test_a_cost_is_kept_and_not_missed_by_much(
    make: Any, unit: Any, shares: tuple[float, ...]
) -> None:
    network = make().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    whole = deployed_cost(network, 32, unit)
    for share in shares:
        left = with_fewer_channels(
            network, batches(1), start_accelerator("cpu", "auto"),
            image_size=32, unit=unit, most=share * whole,
        )  # fmt: skip
        cost = module_cost(left, (3, 32, 32))
        found = (cost.flops if unit == "flops" else cost.parameters) / whole
        assert 0.8 * share < found <= share  # in multiples of 8 channels
        assert isinstance(left, type(network))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0"])
def test_a_share_is_that_of_the_network_with_its_branches_fused(name: str) -> None:
    """Counted by its layers, before branches are fused, MobileOne would be left with 0.514."""
    network = lively_chain(name).eval()
    channels = trace_channels(network, 32)
    costs, ranges = count_flops(channels), allowed(channels.families, 8)
    values = np.random.default_rng(0).random(channels.count)
    kept, share = within_a_share(
        network, channels, values, costs, ranges, 0.5, image_size=32, unit="flops"
    )
    left = module_cost(narrow(network, channels, kept), (3, 32, 32)).flops
    assert share == left / module_cost(network, (3, 32, 32)).flops
    assert 0.47 < share <= 0.5


def test_what_says_nothing_goes_first() -> None:
    """Channels that nothing hears go, and the network computes what it did."""
    network = lively_chain("test_resnet").eval()
    channels = trace_channels(network, 32)
    family = max(channels.families, key=lambda one: len(one.items))
    silent = family.items[len(family.items) // 4 :]
    for name, parameter in network.named_parameters():
        read = channels.places.get((name, 1))
        if read is not None:  # whoever reads it does not look
            with torch.no_grad():
                parameter[:, torch.as_tensor(np.isin(read, silent))] = 0
    whole = deployed_cost(network, 32, "flops")
    images = batches()[0][0]
    left = with_fewer_channels(
        network, batches(), start_accelerator("cpu", "auto"),
        image_size=32, unit="flops", most=0.97 * whole,
    )  # fmt: skip
    with torch.no_grad():
        expected = network(images).logits
        torch.testing.assert_close(left.eval()(images).logits, expected, rtol=1e-4, atol=1e-5)
    assert sum(map(sum, widths(left).values())) < sum(map(sum, widths(network).values()))


def test_what_the_fewest_channels_cost_is_the_end() -> None:
    network = lively_chain("test_resnet").eval()
    whole, least = deployed_cost(network, 32, "flops"), fewest_channels(network, 32, "flops")
    left = with_fewer_channels(
        network, batches(), start_accelerator("cpu", "auto"),
        image_size=32, unit="flops", most=0.5 * least * whole,
    )  # fmt: skip
    assert deployed_cost(left, 32, "flops") == pytest.approx(least * whole)


def test_which_part_of_a_block_is_left() -> None:
    """Half of the 48 between two layers: of the first and of its norm, out of six times 48."""
    network = lively_chain("test_resnet").eval()
    channels = trace_channels(network, 32)
    everything = np.ones(channels.count, dtype=bool)
    assert channels_left(narrow(network, channels, everything), network) == {}
    inner = channels.places["blocks.1.conv1.weight", 0]
    kept = everything.copy()
    kept[inner[: len(inner) // 2]] = False
    left = channels_left(narrow(network, channels, kept), network)
    assert left == {2: pytest.approx(1 - 2 * 24 / (6 * 48))}


def test_below_three_tenths_blocks_leave_room_for_channels() -> None:
    """At another resolution, of what all blocks cost there."""
    assert before_channels(0.3, 1.0) == 0.3
    assert before_channels(0.29, 1.0) == pytest.approx(0.464)
    assert before_channels(0.2, 0.7) == pytest.approx(0.32)
    assert before_channels(0.22, 0.7) == 0.22


def test_what_all_blocks_cost() -> None:
    """Whatever exits and identities there are; at half of the side a quarter, and the last rows."""
    chain = create_backbone("test_resnet", 10)
    student = nt.Student(chain)
    assert whole_cost(student, shares_of(student, chain, 32, "params")) == pytest.approx(1)
    student.side = 16
    assert 0.25 < whole_cost(student, shares_of(student, chain, 32, "flops")) < 0.3


def test_a_cut_with_fewer_channels_says_so() -> None:
    narrow = PLAN.narrowed(0.25)
    assert (narrow.name, narrow.wide, narrow.most) == ("size-to-0.250", "size", 0.25)
    assert narrow.kept == PLAN.kept
    assert "with channels for 0.250 of the cost" in narrow.describe()
    assert "channels" not in PLAN.describe()


def test_who_has_no_channels_to_lose() -> None:
    class Plain(nn.Module):
        """Nothing in it is a layer whose channels are known."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    example = torch.zeros(1, 3, 32, 32)
    plain = nt.Backbone(Plain(), [Plain(), Plain()], head, example=example)
    assert refusal(create_backbone("test_resnet", 4), 32, "flops", BOTH) is None
    assert refusal(create_backbone("test_resnet", 4), 32, "flops", ("blocks",)) == ""
    assert refusal(create_backbone("test_resnet", 4), 32, "latency", BOTH) is None
    assert refusal(plain, 32, "latency", BOTH) == refusal(plain, 32, "flops", BOTH)
    reason = refusal(plain, 32, "flops", BOTH)
    assert reason is not None
    assert "cannot be grouped" in reason
    # a stem of one kernel, and little behind it
    layers = [nn.Conv2d(3, 8, 15, padding=7), nn.Conv2d(8, 8, 1)]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    stem = nt.Backbone(layers[0], layers[1:], head, example=example)
    assert refusal(stem, 32, "flops", BOTH) == "at least 1.00 of the cost is left without any more"


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    train, val = digits()
    return DataLoader(train, 32, shuffle=True), DataLoader(val, 80)


def test_narrow_in_a_program() -> None:
    """The budget is kept, the same channels go again, and what is left can learn."""
    torch.manual_seed(0)
    train, val = loaders()
    network = create_backbone("test_resnet", 10)
    nt.fit(network, nt.CrossEntropy(), train, val, epochs=2, verbose=False)
    small = nt.narrow(network, train, max_flops=0.5)
    assert isinstance(small, Backbone)
    cost = deployed_cost(small, 32, "flops") / deployed_cost(network, 32, "flops")
    assert 0.45 < cost <= 0.5
    again = nt.narrow(network, train, max_flops=0.5).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in small.state_dict().items())
    fitted = nt.fit(small, nt.CrossEntropy(), train, val, epochs=2, verbose=False)
    assert fitted.history[1]["loss"] < fitted.history[0]["loss"]
    for budget in ({"max_flops": 0.01}, {"max_flops": 1.0}, {"max_params": 1.5}):
        with refused(r"no choice of channels costs .* give a share from 0\.\d+ to below 1"):
            nt.narrow(network, train, **budget)
    with refused("no budget is given: expected max_flops or max_params"):
        nt.narrow(network, train)
    with refused("the student's blocks are shared"):
        nt.narrow(student_of("test_resnet", shared=True), train, max_flops=0.5)


def test_tailored_in_a_program_to_a_small_budget(capsys: pytest.CaptureFixture[str]) -> None:
    """Where channels may go, some do."""
    train, val = loaders()
    network = create_backbone("test_resnet", 10)
    budget = {"max_params": 0.2, "teacher_epochs": 1, "student_epochs": 1, "finetune_epochs": 1}
    for levers in (BOTH, ("blocks",)):
        small = nt.tailor(network, train, val, levers=levers, **budget)
        whole = sum(one.numel() for one in network.parameters())
        assert sum(one.numel() for one in small.parameters()) <= 0.2 * whole
        said = capsys.readouterr().out
        assert ("with channels for 0.200 of the cost" in said) == (levers == BOTH)


@pytest.mark.usefixtures("_quickly")
def test_a_command_with_a_small_budget(runs: Runs) -> None:
    """Its network is narrow, keeps the budget, and is the one that its files tell of."""
    flags = ["--max-params", "0.2", *LEVERS]
    folder = runs.tailored(*flags)
    assert folder.name == f"{NAME}-all-blocks-channels-gamma0.3-params0.2-seed0"
    summary, architecture = summary_of(folder), read(folder / "architecture.json")
    assert summary["params"]["total"] <= 0.2 * summary["teacher"]["params"]["total"]
    assert architecture["narrowed"]["layers"]
    network, _ = load_network(folder)
    assert isinstance(network, nt.Student)
    assert [spec.channels for spec in network.specs] == architecture["narrowed"]["nodes"]
    layers = {name: now for name, now in widths(network).items() if name.startswith("blocks")}
    assert layers.keys() & architecture["narrowed"]["layers"].keys()
    parts = dict(summary["tailored"]["channels"])
    assert parts == channels_left(network, create_backbone("test_resnet", 10))
    assert all(0 < part < 1 for part in parts.values())
    assert read_summary(folder).channels == parts
    points = read(folder / "front.json")["points"]
    (narrow,) = [one for one in points if one["wide"]]
    assert narrow["name"] == f"{narrow['wide']}-to-0.200"
    assert narrow["wide"] in {one["name"] for one in points}
    assert narrow["params"] <= 0.2
    assert narrow["finetuned"] == pytest.approx(summary["accuracy"]["val"], abs=1e-3)
    stages = {row["stage"] for row in rows_of(folder)}
    assert stages == {"student", narrow["name"]}
    # what was kept can be picked again, without another cut
    runs.tailored(*flags, "--pick", "params=0.2")
    (picked,) = (folder / "picked").iterdir()
    assert read(picked / "architecture.json")["narrowed"] == architecture["narrowed"]
    assert {file.name for file in (folder / "sizes").iterdir()} == {one["name"] for one in points}


@pytest.mark.usefixtures("_quickly")
@pytest.mark.parametrize(
    "flags", [["--max-params", "0.2", "--prune.finetune", "task"], ["--prune.tolerance", "100"]]
)
def test_shared_blocks_and_runs_without_a_budget_keep_their_channels(
    flags: list[str], runs: Runs
) -> None:
    folder = runs.tailored(*flags, *LEVERS)
    assert read(folder / "architecture.json")["narrowed"] is None
    assert not any(one["wide"] for one in read(folder / "front.json")["points"])


@pytest.mark.usefixtures("_quickly")
def test_a_run_that_goes_on_leaves_the_same_channels(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped when they have gone, and once more as what is left is trained."""
    flags = [*SMALL, "--max-params", "0.2", *LEVERS, "--prune.epochs", "3"]
    shutil.copytree(runs.out, tmp_path / "whole")
    tailor.main([*flags, "--out", str(tmp_path / "whole")])
    argv = [*flags, "--out", str(runs.out)]
    interrupt(argv, monkeypatch, 2, 0)
    assert len(list((runs.only() / "sizes").iterdir())) == 2
    interrupt(argv, monkeypatch, 2, 2)
    tailor.main(argv)
    assert any(one["wide"] for one in read(runs.only() / "front.json")["points"])
    (whole,) = (tmp_path / "whole" / "digits" / "tailored").iterdir()
    assert same_bytes(whole, runs.only())
