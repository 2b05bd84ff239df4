"""A lower resolution as a lever: what it costs, what computes with it, what a command ends with."""

import re
from typing import Any, Literal

import pytest
import torch
from conftest import lively_chain
from first_blocks import first_blocks
from networks import lively_student
from tailor_runs import SMALL, Runs, read, routes_by, rows_of, summary_of
from test_api import digits
from torch.utils.data import DataLoader
from torchvision.transforms import InterpolationMode, v2

import nettailor as nt
from nettailor.core.backbone import create_backbone
from nettailor.core.console import Screen
from nettailor.core.cost import module_flops
from nettailor.core.flags import parse
from nettailor.core.resize import resized
from nettailor.network import load_network
from nettailor.prune.remove import remove
from nettailor.resolutions import sides, tried
from nettailor.session import start_session
from nettailor.student.costs import PathShares, shares_of

BOTH = ("blocks", "resolution")


def test_images_are_resized_as_their_files_are() -> None:
    images = torch.rand(2, 3, 32, 32)
    usual = v2.Resize(24, InterpolationMode.BICUBIC, antialias=True)(images)
    torch.testing.assert_close(resized(images, 24), usual)
    assert resized(images, 32) is images
    assert resized(images, None) is images


def test_sides_are_three_quarters_and_half_in_multiples_of_eight() -> None:
    chain = create_backbone("test_resnet", 10)
    assert sides(chain, 64, "flops", BOTH) == (32, 48, None)
    assert sides(chain, 224, "latency", BOTH) == (112, 168, None)
    assert sides(chain, 20, "flops", BOTH) == (8, 16, None)
    assert sides(chain, 64, "params", BOTH) == sides(chain, 64, "flops", ("blocks",)) == (None,)
    fixed = create_backbone("test_vit", 10, 160)
    assert sides(fixed, 160, "flops", BOTH) == (None,), "its positions are learnt"


def test_a_lower_side_is_tried_where_blocks_have_to_go_there_as_well() -> None:
    """At 48 px the last stages have 2 × 2 positions as at 64: all of it costs 0.71, not 0.56."""
    chain = create_backbone("tf_efficientnet_lite0", 10, 64)
    student = nt.Student(chain)

    costs: dict[int | None, PathShares] = {}
    for student.side in (32, 48, None):
        costs[student.side] = shares_of(student, chain, 64, "flops")

    def at(most: float | None) -> list[int | None]:
        cost = lambda student: costs[student.side]  # noqa: E731
        return list(tried(student, (32, 48, None), cost, most))

    whole = [module_flops(chain, (3, side, side)) for side in (64, 48, 32)]
    assert [one / whole[0] for one in whole] == pytest.approx([1, 0.706, 0.250], abs=1e-3)
    assert at(None) == [32, 48, None]
    assert at(0.12) == [32, 48, None]
    assert at(0.13) == at(0.35) == [48, None]
    assert at(0.36) == at(1.0) == [None]
    assert at(0.03) == [32], "no network costs as little at the others"
    assert at(0.001) == []
    assert student.side is None


def test_a_student_of_a_side_computes_with_its_images_resized() -> None:
    student, images = lively_student("test_resnet").eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before = student(images).logits
        student.side = 48
        found, own = student(images).logits, student(resized(images, 48)).logits
        plain = nt.fold(student)
        folded = plain(images)
    torch.testing.assert_close(found, own, rtol=0, atol=0)
    assert not torch.allclose(found, before)
    torch.testing.assert_close(folded, found, rtol=1e-4, atol=1e-4)


def test_what_a_side_costs() -> None:
    """The shares of a route at 16 px add up to what the network costs there, over all at 32 px."""
    chain = lively_chain("test_resnet")
    student = nt.Student(chain)
    student.side = 16
    shares = shares_of(student, chain, 32, "flops")
    cost = lambda route: shares.of(student.wiring, route)  # noqa: E731
    plan = first_blocks(student.wiring, cost, 1.0)
    assert plan is not None
    small = remove(student, nt.PrunePlan(plan.name, plan.before, plan.kept, side=16))
    assert small.side == 16
    assert "of images of 16 px" in nt.PrunePlan("x", plan.before, plan.kept, side=16).describe()
    whole = module_flops(chain, (3, 32, 32))
    for seen_at in (16, 32):  # what resizes its images costs what it computes with
        expected = module_flops(small, (3, seen_at, seen_at)) / whole
        assert cost(plan.kept.paths) == pytest.approx(expected)
    assert shares.whole == whole


def test_a_budget_that_only_a_lower_resolution_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    """From Python: what is kept takes the loader's images, and costs what it may."""
    train, val = digits()
    loaders = DataLoader(train, 32, shuffle=True), DataLoader(val, 80)
    side = train[0][0].shape[-1]
    network = create_backbone("test_resnet", 10)
    leanest, _ = routes_by("flops").reach()
    epochs = {"teacher_epochs": 1, "student_epochs": 1, "finetune_epochs": 2}
    with pytest.raises(nt.UserError, match=r"no network costs .* give a budget from 0\.\d+ to 1"):
        nt.tailor(network, *loaders, max_flops=0.7 * leanest, levers=("blocks",), **epochs)
    plain = nt.tailor(network, *loaders, max_flops=0.7 * leanest, **epochs)
    share = module_flops(plain, (3, side, side)) / module_flops(network, (3, side, side))
    assert share <= 0.7 * leanest
    assert plain(next(iter(loaders[1]))[0]).shape == (80, 10)
    said = capsys.readouterr().out
    assert "of images of 24 px" in said
    assert "student  " not in said, "at the images' own side no network keeps it"
    assert "of images of 16 px" not in said, "whole it costs less than the budget there"


@pytest.mark.parametrize(("levers", "at"), [(BOTH, ["16", "24", ""]), (("blocks",), [""])])
def test_without_a_budget_one_student_shrinks_at_all_resolutions(
    levers: tuple[Literal["blocks", "resolution"], ...],
    at: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every epoch passes a size at each, and what is kept is one of these."""
    train, val = digits()
    loaders = DataLoader(train, 32, shuffle=True), DataLoader(val, 80)
    network = create_backbone("test_resnet", 10)
    epochs: dict[str, Any] = {"teacher_epochs": 1, "student_epochs": 2, "finetune_epochs": 1}
    small = nt.tailor(network, *loaders, tolerance=100.0, levers=levers, **epochs)
    said = capsys.readouterr().out
    assert re.findall(r"^(student\S*) +epoch", said, re.MULTILINE) == ["student", "student"]
    passed = re.findall(r"(\d+ px)?: (0\.\d+|1\.000) of the backbone's flops", said)
    assert [side.removesuffix(" px") for side, _ in passed] == 2 * at
    share = module_flops(small, (3, 32, 32)) / module_flops(network, (3, 32, 32))
    assert f"{share:.3f}" in [cost for _, cost in passed]


@pytest.mark.usefixtures("_quickly")
def test_a_command_ends_with_a_network_of_its_own_resolution(runs: Runs) -> None:
    """Whose files and figures say so, and whose accuracy is that of images read at its side."""
    leanest, _ = routes_by("flops").reach()
    budget = ["--max-flops", f"{0.5 * leanest:.3f}", "--levers", "[blocks, resolution]"]
    folder = runs.tailored(*budget)
    architecture, summary = read(folder / "architecture.json"), summary_of(folder)
    side = architecture["preprocessing"]["image_size"]
    assert side in (24, 16)
    assert summary["tailored"]["image_size"] == side
    assert summary["image_size"] == 32
    network, _ = load_network(folder)
    assert summary["flops"] == module_flops(network, (3, side, side))
    assert summary["flops"] <= 0.5 * leanest * summary["teacher"]["flops"] * 1.01
    front = read(folder / "front.json")["points"]
    assert {point["side"] for point in front} <= {24, 16}
    session = start_session(parse("test", "", SMALL)[0], Screen()).at(side)
    again = session.loaders.validate(network.eval())
    assert summary["accuracy"]["val"] == pytest.approx(again.accuracy, abs=1e-3)


@pytest.mark.usefixtures("_quickly")
def test_a_command_without_a_budget_keeps_a_size_of_any_resolution(runs: Runs) -> None:
    """Its front has those of one student at all of them."""
    flags = ["--levers", "[blocks, resolution]", "--prune.tolerance", "100"]
    folder = runs.tailored(*flags, "--student.epochs", "4", "--gamma", "9")
    stages = {row["stage"] for row in rows_of(folder)}
    (finetuned,) = stages - {"student"}
    points = read(folder / "front.json")["points"]
    assert {point["side"] for point in points} == {16, 24, None}
    (kept,) = [point for point in points if point["name"] == finetuned]
    image_size = read(folder / "architecture.json")["preprocessing"]["image_size"]
    assert image_size == (kept["side"] or 32) == summary_of(folder)["tailored"]["image_size"]
    for point in points:
        network, _ = load_network(folder / "sizes" / point["name"])
        cost = module_flops(network, (3, point["side"] or 32, point["side"] or 32))
        assert point["flops"] * summary_of(folder)["teacher"]["flops"] == pytest.approx(cost)
    runs.tailored(*flags, "--student.epochs", "4", "--gamma", "9", "--pick", "flops=0.9")
    (picked,) = (folder / "picked").iterdir()
    assert read(picked / "architecture.json")["preprocessing"]["image_size"] == image_size
