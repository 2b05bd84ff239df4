"""Trained while it shrinks to a budget: what is passed, when it ends, and what goes on."""

import itertools
from math import exp, log

import pytest
import torch
from networks import grown, labelled, lively_chain, refused
from torch.utils.data import DataLoader, TensorDataset

from nettailor.core.cost import module_flops
from nettailor.core.judge import Judge
from nettailor.core.scores import Recall, Scores
from nettailor.core.training_state import TrainingState
from nettailor.errors import UserError
from nettailor.fitting import Run
from nettailor.prune.shrink_loss import ShrinkLoss
from nettailor.shrinking import Snapshot, hopeless, shrink
from nettailor.student.network import Student


def loaders() -> tuple[DataLoader, DataLoader]:
    train, val = TensorDataset(*labelled(64)), TensorDataset(*labelled(32, 6))
    return DataLoader(train, 16, shuffle=True), DataLoader(val, 32)


@pytest.mark.parametrize("budget", [{"max_flops": 0.6}, {"max_params": 0.3}])
def test_follows_the_target(budget):
    found = []
    for _ in range(2):
        chain = lively_chain("test_resnet")
        torch.manual_seed(1)
        passed = shrink(Student(chain), chain, *loaders(), epochs=5, verbose=False, **budget)
        found.append(passed)
    first, again = found
    (least,) = budget.values()
    assert [one.cost for one in first] == [one.cost for one in again]
    assert [one.scores.loss for one in first] == [one.scores.loss for one in again]
    for one, after in itertools.pairwise(first):
        assert after.cost <= one.cost + 1e-9
    assert first[-1].cost <= 1.02 * least
    for number, one in enumerate(first[:-1], 1):
        part = ((4 * number - 2) / 20 - 0.25) / 0.65  # the last look at its cost
        assert one.cost <= max(exp(max(part, 0) * log(least)), 1.02 * least) + 1e-9
    small = first[-1].network
    assert all(len(group) <= 1 for group in small.wiring.incoming)
    assert small(labelled(2)[0]).logits.shape == (2, 5)
    assert first[-1].cost >= 0.9 * least


@pytest.mark.parametrize("how", [{"max_flops": 0.6}, {"sides": (16, None)}], ids=["one", "several"])
def test_a_call_that_was_stopped_goes_on_where_it_stopped(how, tmp_path, monkeypatch):
    """In the third of four epochs of four steps; what was passed before is read again."""

    def passed(run: Run | None) -> list[Snapshot]:
        chain = lively_chain("test_resnet")
        torch.manual_seed(1)
        settings = {"epochs": 4, "run": run, "verbose": False}
        return shrink(Student(chain), chain, *loaders(), **settings, **how)

    expected, run = passed(None), Run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "due", True)
        step, steps = ShrinkLoss.__call__, itertools.count(1)

        def pressed(*arguments):
            if next(steps) == 11:
                raise KeyboardInterrupt
            return step(*arguments)

        patch.setattr(ShrinkLoss, "__call__", pressed)
        with pytest.raises(KeyboardInterrupt):
            passed(run)
    found = passed(run)
    sides = how.get("sides", (None,))
    assert [one.epoch for one in found] == [epoch for epoch in (1, 2, 3, 4) for _ in sides]
    assert [one.network.side for one in found] == 4 * [*reversed(sides)]
    assert len({one.cost for one in found}) > 1
    for one, other in zip(found, expected, strict=True):
        assert (one.plan, one.cost) == (other.plan, other.cost)
        assert one.scores.plain() == other.scores.plain()
        weights = other.network.state_dict()
        for name, value in one.network.state_dict().items():
            torch.testing.assert_close(value, weights[name], rtol=0, atol=0)
    (tmp_path / "sizes" / "student-1.json").write_text('{"paths": []}', encoding="utf-8")
    with pytest.raises(UserError, match=r"student-1\.json: is damaged; begin anew in another"):
        passed(run)
    run.close()


def test_however_few_steps_there_are_the_budget_is_met():
    chain = lively_chain("test_resnet")
    (only,) = shrink(Student(chain), chain, *loaders(), max_flops=0.6, epochs=1, verbose=False)
    assert only.cost <= 0.612


def test_bad_budgets_and_students():
    chain = lively_chain("test_resnet")
    student = Student(chain)
    with pytest.raises(UserError, match="expected one of them"):
        shrink(student, chain, *loaders(), max_flops=0.5, max_params=0.5)
    with pytest.raises(UserError, match=r"no network costs 0.0001 .* from 0\.\d+ to 1"):
        shrink(student, chain, *loaders(), max_flops=0.0001)
    with pytest.raises(UserError, match="proxies"):
        shrink(Student(chain, skips=1), chain, *loaders(), max_flops=0.5)


def test_a_student_of_several_sides() -> None:
    """At each it has the same weights, running statistics of its own, and its own cost."""
    chain = lively_chain("test_resnet")
    student, size = Student(chain), labelled(1)[0].shape[-1]
    first, second, *_ = shrink(
        student, chain, *loaders(), sides=(16, None), epochs=2, verbose=False
    )
    assert (first.network.side, second.network.side) == (None, 16)
    assert first.cost == pytest.approx(1)
    flops = [module_flops(one.network, (3, size, size)) for one in (first, second)]
    assert second.cost == pytest.approx(flops[1] / flops[0])
    weights = second.network.state_dict()
    for name, value in first.network.state_dict().items():
        if "running" in name:
            assert not torch.equal(value, weights[name])
        elif "num_batches" not in name:
            assert torch.equal(value, weights[name])
    for wrong in ({"max_flops": 0.5, "sides": (16, None)}, {"sides": (16,)}):
        with refused("sides are for a student without a budget, the images' own among them"):
            shrink(Student(chain), chain, *loaders(), **wrong)


@pytest.mark.parametrize(
    ("accuracies", "ends"),
    [
        ([95.0, 81.0, 80.0, 79.9], [False, False, False, True]),  # of 90 %
        ([70.0, 61.0, 60.0, 59.9], [False, False, False, True]),  # it never had more than 70 %
        ([50.0, 70.0, 59.0], [False, False, True]),
    ],
)
def test_ten_points_below_what_it_has_to_reach_or_ever_had_it_ends(
    accuracies: list[float], ends: list[bool]
) -> None:
    """A class that is lost counts like many points, and does not end it; states hold the best."""
    network, found = grown(), []
    for accuracy in accuracies:
        last = Scores(accuracy, accuracy, 1.0, judged=accuracy - 40)
        found.append(hopeless(network, Judge(), last, 90.0))
        again = grown()
        again.load_state_dict(network.state_dict())
        network = again
    assert found == ends


def test_what_may_be_chance_does_not_end_it() -> None:
    """Of 100 images, 77 right and a standard error of 4.2 are above 80 %, 74 and 4.4 are not."""
    for right, ends in ((77, False), (74, True)):
        last = Scores(float(right), 0.0, 1.0, recalls=(Recall(right, 100),))
        assert hopeless_of(90.0, last) == ends


def hopeless_of(target: float, last: Scores) -> bool:
    """Of a student that was as good as it had to be."""
    network = grown()
    assert not hopeless(network, Judge(), Scores(target, target, 1.0), target)
    return hopeless(network, Judge(), last, target)
