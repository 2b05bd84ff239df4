"""Which channels are kept: by their values, on training images, within the budget."""

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import no_training
from torch import Tensor, nn

from nettailor import narrowing
from nettailor.core import latency
from nettailor.core.backbone import create_backbone
from nettailor.core.console import Screen
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.flags import parse
from nettailor.narrowing import Budget, choose, kept_items, ready_budget
from nettailor.prune.items import FIXED, Channels
from nettailor.session import Session, start_session

SMALL = [
    "--backbone", "test_efficientnet", "--weights", "none", "--image-size", "32",
    "--limit.train", "300", "--limit.test", "100", "--device", "cpu", "--workers", "0",
]  # fmt: skip


@cache
def made_ready(*flags: str) -> tuple[Session, nn.Module, Budget]:
    config, _ = parse("python -m nettailor.knapsack", "", [*SMALL, *flags])
    with Screen() as screen:
        session = start_session(config, screen)
        network = place(create_backbone(config.backbone, 10), torch.device("cpu"))
        return session, network, ready_budget(session, network)


def in_milliseconds(session: Session, most: float) -> Session:
    settings = session.config.budget.model_copy(update={"max_latency_ms": most})
    return replace(session, config=session.config.model_copy(update={"budget": settings}))


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where times are kept


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Instead of Taylor's: random ones; and the images that they would have been estimated on."""
    noted: dict[str, Any] = {}

    def random(
        network: nn.Module, channels: Channels, batches: Iterable[tuple[Tensor, Tensor]], _: object
    ) -> np.ndarray:
        noted["batches"] = list(batches)
        noted["values"] = np.random.default_rng(0).random(channels.count)
        return noted["values"]

    monkeypatch.setattr(narrowing, "taylor_values", random)
    return noted


def test_the_best_of_each_family_stay(values: dict[str, Any]) -> None:
    session, network, budget = made_ready("--max-flops", "0.4")
    choice = choose(session, network, budget, "abc")
    kept = kept_items(choice, budget.channels, Path("file"))
    worth = values["values"]
    lost = 0
    for family in budget.channels.families:
        stays = kept[family.items]
        lost += int((~stays).sum())
        if stays.any() and not stays.all():
            assert worth[family.items][stays].min() > worth[family.items][~stays].max()
    assert lost > 20
    assert choice.whole == "abc"
    assert choice.value == pytest.approx(worth[kept].sum() / worth.sum())
    assert 0.392 <= choice.cost <= 0.4


def test_values_are_of_training_images(values: dict[str, Any]) -> None:
    session, network, budget = made_ready("--max-flops", "0.4")
    choose(session, network, budget, "")
    expected = list(session.loaders.train.epoch(0))[:20]
    assert len(values["batches"]) == len(expected) > 2
    for (mine, labels), (theirs, others) in zip(values["batches"], expected, strict=True):
        assert torch.equal(mine, theirs)
        assert torch.equal(labels, others)


def test_a_budget_that_no_timed_network_keeps(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers alone say that it can be kept; the clock says 0.7 of the whole network's time."""
    session, network, budget = made_ready("--max-flops", "0.4")
    session = in_milliseconds(session, 4.0)
    monkeypatch.setattr(narrowing, "share_of_time", lambda *_, **__: 0.7 * budget.most / 0.5)
    with pytest.raises(UserError, match=r"keeps 4 ms by the clock: .* takes 5\.6 ms; give a"):
        choose(session, network, budget, "")


def test_a_budget_that_a_timed_network_keeps(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session, network, budget = made_ready("--max-flops", "0.4")
    session = in_milliseconds(session, 4.0)
    timed: list[nn.Module] = []

    def share(narrowed: nn.Module, whole: nn.Module, *_: object, **__: object) -> float:
        x = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(whole(x), network.eval()(x).logits, atol=1e-4, rtol=1e-4)
        assert not any(
            isinstance(part, nn.BatchNorm2d) for one in (whole, narrowed) for part in one.modules()
        )
        timed.append(narrowed)
        return budget.most * (1.3 if len(timed) == 1 else 0.99)

    monkeypatch.setattr(narrowing, "share_of_time", share)
    choice = choose(session, network, budget, "")
    assert choice.cost == pytest.approx(0.99 * budget.most)
    shown = re.findall(r"groups of channels take ([\d.]+) ms by the clock", capsys.readouterr().out)
    assert shown == ["5.2", "3.96"]
    first, second = (sum(p.numel() for p in one.parameters()) for one in timed)
    assert second < first


def test_what_rounding_leaves_over_is_said(
    values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    session, network, budget = made_ready("--max-flops", "0.9", "--round-to", "8")
    choice = choose(session, network, budget, "")
    assert choice.cost < 0.98 * 0.9
    assert f"multiples of 8 leave {choice.cost:.3f} of the cost, where 0.9 is allowed" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept.clear(),
        lambda kept: kept.popitem(),
        lambda kept: kept.update({next(iter(kept)): ()}),
        lambda kept: kept.update({next(iter(kept)): (-1,)}),
        lambda kept: kept.update({next(iter(kept)): (999,)}),
        lambda kept: kept.update({"nowhere": (0,)}),
    ],
)
def test_a_choice_that_does_not_fit(damage: Any, values: dict[str, Any]) -> None:
    session, network, budget = made_ready("--max-flops", "0.4")
    choice = choose(session, network, budget, "")
    kept = dict(choice.kept)
    damage(kept)
    with pytest.raises(UserError, match="file: holds channels of another network"):
        kept_items(choice.model_copy(update={"kept": kept}), budget.channels, Path("file"))


def test_every_place_keeps_a_channel(values: dict[str, Any]) -> None:
    session, network, budget = made_ready("--max-flops", "0.1", "--round-to", "1")
    kept = kept_items(choose(session, network, budget, ""), budget.channels, Path("file"))
    for items in budget.channels.places.values():
        assert ((items == FIXED) | kept[items]).any()


def test_a_budget_below_eights_names_the_way_out(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"costs 0\.1 .* below 1 .*, or --round-to 1"):
        made_ready("--max-flops", "0.1")


def test_a_second_budget_of_milliseconds_measures_nothing_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match="no choice of channels costs 1e-06 ms") as first:
        made_ready("--max-latency-ms", "1e-6")
    monkeypatch.setattr(latency, "_pass", no_training)
    with pytest.raises(UserError) as second:
        made_ready("--max-latency-ms", "1e-6")
    assert str(second.value) == str(first.value)
    with pytest.raises(AssertionError, match="something was trained"):
        made_ready("--max-latency-ms", "1e-6", "--image-size", "40")
