"""When a student that shrinks loses a part: at which steps, down to what, and at which price."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from conftest import lively_chain
from networks import grown
from small_stages import CLASSES, GOOD, PLAIN, Log, batches
from torch import Tensor, nn

from nettailor.core.schedule import parameter_groups
from nettailor.core.trainer import fit
from nettailor.core.training_state import TrainingState
from nettailor.prune.choice import Batches, Choice, least_lost
from nettailor.prune.descent import TRIED_ON, Descent
from nettailor.prune.shrink import Shrinking
from nettailor.prune.shrink_loss import ShrinkLoss
from nettailor.prune.sides import drawn
from nettailor.student.wiring import Path as Way

EPOCHS, STEPS = 4, 8  # a look before the fifth step of each
LEAST = 0.6


def descent(
    accelerator: Accelerator, least: float = LEAST, *,
    adapters: bool = False, epochs: int = EPOCHS, steps: int = STEPS, far: bool = False,
    choose: Choice = least_lost, sides: Sequence[int | None] = (None,),
) -> Descent:  # fmt: skip
    """Of a student whose exits are known; dropout draws from torch's generator at each step."""
    teacher, chain = (lively_chain("test_resnet", CLASSES) for _ in range(2))
    chain.classifier = nn.Sequential(nn.Dropout(0.3), chain.classifier)
    network = grown(least, chain, adapters=adapters).train()
    tried = islice(batches(STEPS * 8).epoch(0), TRIED_ON)
    loss = ShrinkLoss(teacher)
    return Descent(
        network,
        loss,
        tried,
        accelerator,
        epochs=epochs,
        steps_per_epoch=steps,
        far=far,
        choose=choose,
        sides=sides,
    )


def test_the_target_by_hand(accelerator: Accelerator) -> None:
    """Flat up to a quarter of the steps and from 90 % on; halfway, at 57.5 %, the square root."""
    target = descent(accelerator, least=0.25).target
    assert [target(done) for done in (0.0, 0.25, 0.575, 0.9, 1.0, 1.1)] == pytest.approx(
        [1, 1, 0.5, 0.25, 0.25, 0.25]
    )


@pytest.mark.parametrize("far", [False, True])
def test_parts_go_in_the_middle_of_an_epoch_until_the_target_is_kept(
    accelerator: Accelerator, far: bool
) -> None:
    tried, aims = list[int](), list[float]()

    def noted(*arguments: Any) -> tuple[Way, ...]:
        tried.append(step)
        aims.append(arguments[-1])
        assert not network.dropped, "a route is tried with all that is there"
        return least_lost(*arguments)

    found = descent(accelerator, far=far, choose=noted)
    network, went = found.network, []
    for step in range(EPOCHS * STEPS):
        before, looks = network.route, len(tried)
        marked, last = step % STEPS == 4, step == EPOCHS * STEPS - 1
        final = step >= EPOCHS * STEPS - STEPS // 2
        target = found.target(1.0 if final else step / (EPOCHS * STEPS))
        due = (marked or last) and network.cost > target
        changed = found.before_step(step)
        assert (network.route != before) == due
        assert changed or not due
        assert (len(tried) > looks) == due, "nothing is tried where nothing can go"
        if marked or last:
            assert network.cost <= target + 1e-9
        went += [step] * due
    assert len(went) > 1
    assert min(went) > 0.25 * EPOCHS * STEPS
    assert network.cost <= LEAST
    assert (max(aims) == pytest.approx(LEAST)) == far


def test_steps_of_the_first_half_leave_blocks_out(accelerator: Accelerator) -> None:
    """A tenth of those that an identity can stand in for, drawn by the number of the step."""
    found = descent(accelerator, epochs=1, steps=2000)
    network, twin = found.network, descent(accelerator, epochs=1, steps=2000)
    skippable, left_out = network.skippable, 0
    assert len(skippable) > 2
    before = frozenset[int]()
    for step in range(150):  # nothing goes yet
        changed = found.before_step(step)
        assert changed or network.dropped == before
        assert network.dropped <= set(skippable)
        left_out, before = left_out + len(network.dropped), network.dropped
    assert 0.05 < left_out / (150 * len(skippable)) < 0.2
    twin.before_step(149)
    assert twin.network.dropped == before
    assert found.before_step(1000)
    assert not network.dropped
    network.least.fill_(network.cost)
    for step in range(1, 151):
        found.before_step(step)
        assert not network.dropped


def test_a_block_that_is_left_out_is_an_identity_in_training(accelerator: Accelerator) -> None:
    network = descent(accelerator).network
    node, images = network.skippable[0], next(batches(8).epoch(0))[0]

    def answer() -> Tensor:
        torch.manual_seed(0)  # dropout
        return network(images)

    in_training, whole = answer(), network.eval()(images)
    network.dropped = frozenset({node})
    assert torch.equal(network(images), whole)
    network.train()
    left_out = answer()
    network.dropped = frozenset()
    (one,) = (one for one in network.removals() if one.path.target == node)
    network.take(one.route)
    assert torch.equal(answer(), left_out)
    assert not torch.equal(left_out, in_training)


@pytest.mark.parametrize(("steps", "middle"), [(1, 0), (7, 3), (11, 5)])
def test_the_last_part_goes_in_the_middle_of_the_last_epoch(
    accelerator: Accelerator, steps: int, middle: int
) -> None:
    """However many steps an epoch has, the second half of it is for the network to get over it."""
    found = descent(accelerator, epochs=5, steps=steps)
    went = set()
    for step in range(5 * steps):
        before = found.network.route
        found.before_step(step)
        if found.network.route != before:
            went.add(step % steps)
    assert went == {middle}
    assert found.network.cost <= LEAST


def test_what_is_left_is_made_up_for_before_the_last_step(accelerator: Accelerator) -> None:
    """Which is off the marks."""
    found = descent(accelerator)
    assert found.before_step(EPOCHS * STEPS - 1)
    assert found.network.cost <= LEAST


def test_all_goes_that_can(accelerator: Accelerator) -> None:
    found = descent(accelerator, least=0.0)
    assert found.reach(0.0)
    assert found.network.cost == pytest.approx(found.network.leanest)


def test_what_the_backbone_lacks_takes_nothing_out_before_the_target_falls(
    accelerator: Accelerator,
) -> None:
    """With adapters all of it costs more than the backbone."""
    found = descent(accelerator, adapters=True)
    assert found.network.cost > 1.01
    before = found.network.route
    found.before_step(0)
    assert found.network.route == before
    assert found.target(0.9) == pytest.approx(LEAST)


class Cut(Log):
    """The power is cut at a step of an epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__()
        self.cut = epoch, step

    def step(self, epoch: int, step: int, loss: Any) -> None:
        if (epoch, step) == self.cut:
            raise KeyboardInterrupt


def trained(
    path: Path, accelerator: Accelerator, watcher: Log
) -> tuple[Shrinking, dict[int, tuple[Way, ...]]]:
    """The network at the end, and the steps before which something went, each with what was left.

    Weights are random, and parts are worth what chance says.
    """
    torch.manual_seed(8)
    found, loader = descent(accelerator), batches(STEPS * 8)
    network, went = found.network, dict[int, tuple[Way, ...]]()

    def before_step(step: int) -> bool:
        before = network.route
        changed = found.before_step(step)
        if network.route != before:
            went[step] = network.route
        return changed

    schedule = replace(PLAIN, epochs=EPOCHS, optimizer="adamw", lr=1e-3)
    teacher = lively_chain("test_resnet", CLASSES)
    fit(
        network, ShrinkLoss(teacher), loader,
        groups=parameter_groups(network.named_parameters(), schedule), schedule=schedule,
        accelerator=accelerator, validate=lambda _: GOOD, state_path=path,
        watcher=watcher, before_step=before_step,
    )  # fmt: skip
    return network, went


@pytest.fixture
def _saved_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingState, "due", True)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, accelerator: Accelerator) -> Any:
    """Never stopped: what `trained` gives, and the log."""
    log = Log()
    return *trained(tmp_path_factory.mktemp("straight") / "a.pt", accelerator, log), log


@pytest.mark.usefixtures("_saved_every_step")
@pytest.mark.parametrize("kept", [False, True])
def test_what_is_stopped_within_an_epoch_goes_on_to_the_same_bits(
    tmp_path: Path, accelerator: Accelerator, straight: Any, kept: bool
) -> None:
    """After a step before which a part went; what is on disk is from before it, or it is kept."""
    expected, went, _ = straight
    step = next(one for one in went if min(went) <= one < max(went))
    cut = Cut(1 + step // STEPS, step % STEPS + 1 + kept)  # the state of the step before is there
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "pieces.pt", accelerator, cut)
    torch.manual_seed(99)
    network, rest = trained(tmp_path / "pieces.pt", accelerator, Log())
    assert rest == {one: route for one, route in went.items() if one >= step + kept}
    mine, theirs = network.state_dict(), expected.state_dict()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=0, equal_nan=True)


def test_what_went_is_not_trained_any_more(straight: Any) -> None:
    """And what stays is."""
    network, _, log = straight
    gone = 0
    for before, after in pairwise(log.weights):
        for path, taken in zip(network.wiring.paths, before["taken"].tolist(), strict=True):
            own = [name for name in before if name.startswith(f"student.blocks.{path.key}.")]
            still = all(torch.equal(before[name], after[name]) for name in own)
            if path.kind == "block" and not taken:
                gone += 1
                assert still, path.key
            elif path.kind == "block" and path in network.route:
                assert not still, path.key
    assert gone


def test_a_side_is_drawn_for_each_step(accelerator: Accelerator) -> None:
    """Whoever goes on draws the same; the batches that removals are tried on have all sides."""
    sides = (16, 24, None)
    draws = [drawn(sides, step) for step in range(300)]
    assert draws == [drawn(sides, step) for step in range(300)]
    assert all(60 < draws.count(side) < 140 for side in sides)
    seen: list[list[int]] = []

    def choose(network: Shrinking, batches: Batches, *_: object) -> tuple[Way, ...]:
        seen.append([images.shape[-1] for images, *_ in batches])
        assert network.student.side is None
        return network.route

    one = descent(accelerator, sides=sides, choose=choose)
    for step in range(EPOCHS * STEPS):
        one.before_step(step)
        assert one.network.student.side == draws[step]
    assert seen
    assert all(len(shapes) == TRIED_ON and len(set(shapes)) == 3 for shapes in seen)
    assert {shapes[0] for shapes in seen} == {24}
