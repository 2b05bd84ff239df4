"""What a choice goes by: the metric, and that no class is lost."""

import pytest
import torch

from nettailor.core.judge import Judge, error_of_difference
from nettailor.core.scores import Predictions, Recall, Scores, as_scores
from nettailor.core.state import read_state, write_state


def scores(*recalls: tuple[int, int], accuracy: float | None = None, f1: float = 50.0) -> Scores:
    right, images = (sum(column) for column in zip(*recalls, strict=True))
    shown = 100 * right / images if accuracy is None else accuracy
    return Scores(shown, f1, 1.0, tuple(Recall(*one) for one in recalls))


def test_scores_by_hand():
    """Of four images of class 0 three are right, of one of class 1 none; class 2 has none."""
    logits = torch.eye(3)[[0, 0, 0, 1, 2]]
    found = Predictions(logits, torch.tensor([0, 0, 0, 0, 1])).scores()
    assert found.recalls == ((3, 4), (0, 1), (0, 0))
    assert [recall.percent for recall in found.recalls] == [75, 0, 100]
    assert found.worst_recall == 0
    assert found.accuracy == pytest.approx(60)
    assert found.standing == found.accuracy
    assert found.right == bytes([1, 1, 1, 0, 0])


@pytest.mark.parametrize(
    ("metric", "value"), [("accuracy", 90), ("macro-f1", 70), ("worst-recall", 50)]
)
def test_metrics(metric, value):
    given = scores((85, 90), (5, 10), accuracy=90.0, f1=70.0)
    judged = Judge(metric).of(given)
    assert judged.standing == value
    assert Judge(metric, given).aim == value
    assert judged._replace(judged=None) == given  # and no error


def test_a_class_that_is_gone_is_lost_however_rare_it_is():
    """187 good and 8 defect images: without any defect found, accuracy is 96 % of the teacher's.

    Recall falls from 87.5 to 0. Shares with two more images: 8/10 and 1/10, so that the standard
    error is 100 √(.8·.2/10 + .1·.9/10) = 15.8 points, and 87.5 - 10 - 15.8 = 61.7 are beyond.
    """
    teacher, without = scores((186, 187), (7, 8)), scores((187, 187), (0, 8))
    judge = Judge("accuracy", teacher)
    assert judge.lost(without) == (1,)
    beyond = 87.5 - 10 - 100 * (0.016 + 0.009) ** 0.5
    assert judge.of(without).standing == pytest.approx(teacher.accuracy - beyond)
    assert without.accuracy > teacher.accuracy - 3.6
    assert judge.lost(teacher) == ()
    assert judge.of(teacher).standing == teacher.accuracy == judge.aim


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ((8, 8), (7, 8), False),  # one image of eight: 12.5 points, explained by chance
        ((90, 100), (78, 100), False),  # 12 points, of which 10 are allowed
        ((90, 100), (70, 100), True),  # 20 points, with a standard error of 5.5
        ((900, 1000), (780, 1000), True),  # 12 points, with a standard error of 1.6
        ((0, 0), (0, 0), False),  # no image to judge by
        ((3, 8), (8, 8), False),  # a class that gained
    ],
)
def test_what_chance_explains(before, after, lost):
    judge = Judge("accuracy", scores((500, 500), before))
    assert judge.lost(scores((500, 500), after)) == ((1,) if lost else ())


def test_more_accurate_networks_stand_no_higher_for_what_they_lose():
    teacher = scores((800, 900), (90, 100))
    better, leaner = scores((890, 900), (70, 100)), scores((800, 900), (88, 100))
    judge = Judge("accuracy", teacher)
    assert better.accuracy > leaner.accuracy
    assert judge.of(leaner).standing > judge.of(better).standing
    assert judge.of(scores((880, 900), (90, 100))).standing == 97.0  # of a leader nothing is taken


def test_a_state_holds_scores_as_plain_values(tmp_path):
    path = tmp_path / "state.pt"
    judged = Judge("macro-f1").of(scores((1, 2), (3, 3)))
    write_state(path, {"scores": judged.plain()})
    assert as_scores(read_state(path)["scores"]) == judged


def test_the_error_of_an_accuracy_by_hand():
    """Of 96 images 86 are right: 87/98 with two more, √(.8878 · .1122 / 98) is 3.19 points."""
    assert scores((80, 86), (6, 10)).accuracy_error == pytest.approx(3.188, abs=1e-3)
    assert Scores(90.0, 0.0, 1.0).accuracy_error is None
    everything = scores((100, 100)).accuracy_error
    assert everything > 0.9  # of 100 %, too, nobody is certain


def test_ahead_of_the_teacher_in_standard_errors():
    teacher, better = scores((800, 1000)), scores((850, 1000))
    errors = [one.accuracy_error for one in (teacher, better)]
    assert None not in errors
    by_hand = 5 / sum(error**2 for error in errors if error is not None) ** 0.5
    assert Judge("accuracy", teacher).ahead(better) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(2.94, abs=0.01)
    assert Judge("accuracy", teacher).ahead(teacher) == 0


def test_error_of_a_difference_by_hand():
    """Of 98 images the one is right alone on 4, the other on 1: 4.5 and 1.5 of 100 with the halves.

    The variance of their difference is 4.5 + 1.5 - 3² / 100 = 5.91 images.
    """
    one, other = bytes([1] * 94 + [0] * 4), bytes([1] * 90 + [0] * 4 + [1] + [0] * 3)
    assert error_of_difference(one, other) == pytest.approx(5.91**0.5)
    assert error_of_difference(other, one) == error_of_difference(one, other)
    assert error_of_difference(one, one) == pytest.approx(1.0)  # one image of 100, not nothing


def test_within_tolerance_is_less_a_margin():
    """Of 398 images, two errors each: the same two, or others, which says less.

    Φ(1.645) is 0.95: the margin is exceeded by chance once in twenty.
    """
    teacher = scores((396, 398))._replace(right=bytes([1] * 396 + [0] * 2))
    same, others = teacher, teacher._replace(right=bytes([0] * 2 + [1] * 396))
    judge = Judge("accuracy", teacher, sure=True)
    assert judge.of(same).standing == pytest.approx(teacher.accuracy - 1.645 * 0.25)
    by_hand = 1.645 * 0.25 * 5**0.5
    assert judge.of(others).standing == pytest.approx(teacher.accuracy - by_hand)
    assert judge.of(others).error == pytest.approx(by_hand)
    assert judge.aim == teacher.accuracy
    assert Judge("accuracy", teacher).of(others).standing == teacher.accuracy


def test_a_class_that_is_lost_counts_more_than_the_error():
    teacher = scores((186, 187), (7, 8))._replace(right=bytes([1] * 193 + [0] * 2))
    without = scores((187, 187), (0, 8))._replace(right=bytes([1] * 187 + [0] * 8))
    plain, sure = Judge("accuracy", teacher), Judge("accuracy", teacher, sure=True)
    assert sure.of(without).standing == plain.of(without).standing < teacher.accuracy - 60
    assert sure.of(without).error == 0  # no luck would bring the class back
