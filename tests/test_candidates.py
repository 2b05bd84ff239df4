"""When a candidate is decided, which cuts are tried in which order, and which one is kept."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import student_of

from nettailor.by_rank import check_depths
from nettailor.candidate import Candidate
from nettailor.candidates import by_rank, keep_better, keep_first
from nettailor.core.errors import UserError
from nettailor.core.scores import Scores
from nettailor.core.training_state import Fitted
from nettailor.sizes import in_order


def candidate(*accuracies: float, epochs: int = 6, error: float = 0.0) -> Candidate:
    """One whose epochs had these accuracies, less an error; the last weights are kept."""
    history = [
        {"epoch": float(i), "val_judged": a, "val_loss": 1.0, "val_error": error}
        for i, a in enumerate(accuracies, 1)
    ]
    last = Scores(accuracies[-1], 0.5, 1.0, error=error)
    nothing: Any = None
    return Candidate(nothing, nothing, Scores(0.0, 0.0, 1.0), Fitted(history, last), epochs)


def test_what_was_ruled_out_stays_so() -> None:
    """Kept all the same and fine-tuned to its end, it came to 93 %."""
    for accuracies in ((50, 60, 80), (50, 60, 80, 85, 92, 93), (50, 60, 84.9, 90, 90, 90)):
        assert candidate(*accuracies).told(90.0) == 3
    late = candidate(50, 60, 80, 85, 92, 93)
    assert late.reaches(90.0)
    assert late.ended
    # later than half of the epochs, or not at all
    assert candidate(50, 85, 85, 84, 99, 99).told(90.0) == 4
    assert candidate(50, 60, 85, 85, 85, 99).told(90.0) == 6
    assert candidate(50, 60, 86, 99, epochs=4).told(99.5) == 2


def test_by_half_of_its_epochs_it_is_beside_others() -> None:
    """Later ones count for nothing there."""
    assert candidate(50, 60, 88).told(90.0) == 3
    found = candidate(50, 60, 88, 99, 99, 99)
    assert found.told(90.0, unsure=88.0) == 3
    assert found.told(90.0, unsure=87.9) == 6
    assert found.by_half[0] == 88


def test_chance_rules_nobody_out() -> None:
    """85 % of which 2 points may be chance: judged by 83, and 4 short all the same."""
    assert candidate(50, 60, 83, 83, 83, 90, error=2.0).told(89.0) == 6
    assert candidate(50, 60, 83, 83, 83, 90).told(89.0) == 3


def test_as_it_was_before_fine_tuning_does_not_count() -> None:
    found = candidate(50, 60, 70)
    found.before = Scores(90.5, 0.5, 1.0)
    assert not found.reaches(90.0)
    assert found.by_half[0] == 70


@given(st.lists(st.floats(0, 100), min_size=8, max_size=8), st.floats(1, 100))
def test_what_was_told_is_not_changed_by_later_epochs(
    accuracies: list[float], target: float
) -> None:
    stops = candidate(*accuracies, epochs=8).told(target)
    for epochs in range(stops, 9):
        assert candidate(*accuracies[:epochs], epochs=8).told(target) == stops


def test_a_candidate_that_loses_a_class_says_which() -> None:
    """However accurate it is: it stands below the target, and no later epoch counts instead."""
    judged = [{"epoch": 1.0, "val_judged": 40.0, "val_loss": 0.3, "val_error": 0.0}]
    nothing: Any = None
    scores = Scores(99.0, 0.5, 1.0, judged=40.0)
    lost = Candidate(nothing, nothing, scores, Fitted(judged, scores), 1, ("defect", "a\nb"))
    assert not lost.reaches(90.0)
    assert lost.verdict(90.0) == "not surely within tolerance, loses classes 'defect', 'a\\nb'"
    assert lost.verdict(30.0) == "within tolerance"


class Plan(NamedTuple):
    """A cut that is known by its name."""

    name: str

    def describe(self) -> str:
        return "a cut"


class Track:
    """A bench of cuts that stand by epoch at what is given; notes who was trained how far.

    error: how many points lower each stands for what may be chance. before: epochs of each that an
    earlier session trained.
    """

    def __init__(
        self, error: float = 0.0, before: dict[str, int] | None = None, **accuracies: list[float]
    ) -> None:
        self.accuracies, self.error, self.before = accuracies, error, before or {}
        self.epochs = len(next(iter(accuracies.values())))
        self.calls: list[tuple[str, int]] = []
        self.said: list[str] = []
        self.say = self.said.append

    def finetune(self, plan: Any, stop: Any = None) -> Candidate:
        course = self.accuracies[plan.name]
        done = course[: self.before.get(plan.name, 0)]
        while len(done) < len(course):
            last = Scores(done[-1] if done else 0.0, 0.0, 1.0, error=self.error)
            if done and stop is not None and stop(len(done), last):
                break
            done.append(course[len(done)])
        self.calls.append((plan.name, len(done)))
        found = candidate(*done, epochs=self.epochs, error=self.error)
        found.plan = plan
        return found

    def kept(self, target: float, aim: float = 100.5) -> list[str]:
        """What was tried, the one that is kept first; the leanest is given first."""
        plans: Any = [Plan(name) for name in self.accuracies]
        return [one.name for one in keep_first(self, plans, target, aim)]


def test_each_goes_on_until_it_is_ruled_out_or_to_its_end() -> None:
    track = Track(
        a=[50, 60, 70, 75],  # more than 5 points short after half of its epochs
        b=[70, 91, 91, 93],  # reaches
        c=[95, 95, 95, 95],
    )
    assert track.kept(90.0) == ["b", "a"]
    assert track.calls == [("a", 2), ("b", 4)]
    assert [line for line in track.said if "after" in line] == [
        "a: before fine-tuning 0.00 %, after 2 epochs 60.00 %: ruled out early",
        "b: before fine-tuning 0.00 %, after 4 epochs 93.00 %: within tolerance",
    ]


def test_what_falls_back_by_its_end_is_not_kept() -> None:
    track = Track(a=[91, 91, 91, 89], b=[95, 95, 95, 95])
    assert track.kept(90.0) == ["b", "a"]


@pytest.mark.parametrize("before", [{}, {"a": 3, "b": 2}, {"a": 4, "b": 2}])
def test_who_is_kept_does_not_depend_on_where_a_session_ended(before: dict[str, int]) -> None:
    """Both are ruled out; the better one by then goes on, and comes to less than the other had."""
    track = Track(before=before, a=[90, 92, 91, 91], b=[90, 91.5, 99, 99])
    assert track.kept(98.0) == ["a", "b"]


def test_where_none_reaches_the_first_of_the_best_is_kept() -> None:
    track = Track(a=[80, 81], b=[84, 85], c=[70, 85], d=[80, 82])
    assert track.kept(90.0) == ["b", "a", "c", "d"]
    assert track.calls == [("a", 1), ("b", 1), ("c", 1), ("d", 1), ("b", 2)]


def test_of_two_the_better_one_after_half_of_the_epochs_is_kept() -> None:
    """Whatever the other would have come to, and when it is asked again after the end."""
    plans: Any = [Plan("a"), Plan("b")]
    track = Track(a=[70, 80, 80, 99], b=[60, 81, 81, 82])
    for _ in range(2):
        assert [one.name for one in keep_better(track, plans)] == ["b", "a"]
    assert track.calls == 2 * [("a", 2), ("b", 2), ("b", 4)]
    alone = Track(a=[70, 80, 80, 99])
    keep_better(alone, plans[:1])
    assert alone.calls == [("a", 4)]
    ended = candidate(70, 80, 80, 99, epochs=4)
    assert ended.after(2)[0] == 80


def test_loss_and_cost_are_weighed_and_then_dearer_ones_follow() -> None:
    costs, losses = [0.97, 0.5, 0.2, 0.1, 0.3], [0.1, 0.1, 0.2, 0.6, 0.15]
    # after fine-tuning √(0.1 · loss), or 0.1, 0.1, 0.141, 0.245, 0.122
    assert in_order(costs, losses, 0.1) == [1, 0]  # 0.197, 0.15, 0.161, 0.255, 0.152
    assert in_order(costs, losses, 0.3) == [2, 4, 1, 0]  # 0.391, 0.25, 0.201, 0.275, 0.212
    assert in_order(costs, losses, 1.1) == [3, 2, 4, 0]  # 1.167, 0.65, 0.361, 0.355, 0.452
    assert in_order(costs, losses, 9.0) == [3, 2, 4, 0]
    assert in_order(costs, losses, 0.0) == [0]  # of equals the first
    many = [cost / 20 for cost in range(1, 20)]
    assert in_order(many, [0.0] * 19, 0.3) == [0, 1, 2, 4, 8, 16, 18]
    # less than 5 % below the loss of a leaner one, but for the dearest
    assert in_order([0.1, 0.2, 0.3, 0.5, 0.6], [0.2, 0.195, 0.185, 0.178, 0.11], 9.0) == [0, 2, 4]
    # the whole network is left out, whatever it loses, where there are others
    assert in_order([1.0, 0.98, 0.5], [0.0, 0.9, 0.9], 0.3) == [2, 1]
    assert in_order([1.0, 1.0], [0.9, 0.5], 0.3) == [1]


def test_where_none_reaches_the_best_is_kept_and_goes_to_its_end() -> None:
    track = Track(a=[50, 60, 70, 75], b=[70, 80, 85, 86], c=[60, 70, 80, 99])
    assert track.kept(99.5) == ["b", "a", "c"]
    assert track.calls == [("a", 2), ("b", 2), ("c", 2), ("b", 4)]


def test_a_dearer_one_that_is_no_better_than_one_that_may_reach_is_the_last() -> None:
    """89.5 % may be 90, or 91; both are looked at after half of the epochs."""
    track = Track(error=1.0, a=[60, 86], b=[88.5, 89.5], c=[88.5, 99], d=[99, 99])
    assert track.kept(90.0) == ["b", "a", "c"]
    assert track.calls == [("a", 1), ("b", 2), ("c", 1)]
    assert track.said[-1] == (
        "c: before fine-tuning 0.00 %, after 1 epoch 88.50 %: "
        "no better than a leaner one that may be within tolerance: no more are tried"
    )
    # one that reaches, that is better by half, or only as good as one that surely falls short
    track = Track(error=1.0, a=[90, 90], b=[88.5, 89.5])
    assert track.kept(90.0) == ["a"]
    track = Track(error=1.0, a=[88, 89.5], b=[88.1, 88.2], c=[88.2, 91], d=[99, 99])
    assert track.kept(90.0) == ["c", "a", "b"]
    track = Track(error=1.0, a=[88, 88.9], b=[88, 88.8], c=[88, 88.7], d=[99, 99])
    assert track.kept(90.0) == ["d", "a", "b", "c"]


@pytest.mark.parametrize("before", [{}, {"a": 2}, {"b": 2}])
def test_one_that_is_as_good_as_the_teacher_ends_the_search(before: dict[str, int]) -> None:
    """By its end, though it may owe a point of that to chance."""
    track = Track(error=1.0, before=before, a=[89, 88.9], b=[89.2, 89.0], c=[99, 99])
    assert track.kept(89.5, aim=90.0) == ["b", "a"]
    assert track.said[-1] == (
        "b: before fine-tuning 0.00 %, after 2 epochs 89.00 %: "
        "as good as the teacher, not surely within tolerance: no more are tried"
    )
    assert Track(error=1.0, a=[89.1, 88.9], b=[89.2, 89.6]).kept(89.5, aim=90.0) == ["b", "a"]


@given(st.lists(st.floats(50, 100), min_size=1, max_size=8), st.floats(50, 100))
def test_what_is_kept_is_the_first_that_reaches(ends: list[float], target: float) -> None:
    """Else the best; it is trained to its end, and nothing is tried after it."""
    track = Track(**{chr(ord("a") + i): [end, end] for i, end in enumerate(ends)})
    kept, *others = track.kept(target)
    by_name = dict(zip(track.accuracies, ends, strict=True))
    first = next((name for name, end in by_name.items() if end >= target), None)
    assert kept == first or (first is None and by_name[kept] == max(ends))
    tried = list(by_name) if first is None else [one for one in by_name if one <= first]
    assert sorted([kept, *others]) == tried
    assert dict(track.calls)[kept] == 2


@pytest.mark.parametrize("asked", [(), (5,), (1, 9)])
def test_depths_out_of_range(asked: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"give numbers from 0 to the backbone's 4 blocks"):
        check_depths(asked, 4)


def test_a_rank_that_leaves_no_path_is_left_out() -> None:
    """Without identities the first block must stay; it is the least."""
    student = student_of("test_resnet", 0, identities=False)
    with torch.no_grad():
        student.path_weights.logits.zero_()
    said: list[str] = []
    weights = [0.1 if path.key == "block-0-1" else 0.9 for path in student.wiring.paths]
    student.path_weights.forward = lambda: torch.tensor(weights)  # type: ignore[method-assign]
    (plan,) = by_rank(student, [0, 1], 0.0, said.append)
    assert plan.name == "remove-00"
    assert said == ["no path is left without the 1 least blocks"]
    with pytest.raises(UserError, match=r"remove = \[1, 2\]: no such cut of this student leaves"):
        by_rank(student, [2, 1], 0.0, said.append)


def test_depths_in_range() -> None:
    check_depths(None, 4)
    check_depths((0, 4), 4)
