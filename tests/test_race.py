"""Who goes on in a race of cuts, and for how long each is trained."""

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nettailor.candidate import Candidate
from nettailor.candidates import keep_winner
from nettailor.core.scores import Scores
from nettailor.core.training_state import Fitted


class Track:
    """A bench of cuts whose accuracies on validation are known by epoch; notes who was trained how
    far. ahead: epochs that a cut has behind it from a session before."""

    def __init__(self, accuracies: dict[str, list[float]], losses: dict[str, float]) -> None:
        self.accuracies, self.losses = accuracies, losses
        self.epochs = len(next(iter(accuracies.values())))
        self.calls: list[tuple[str, int]] = []
        self.ahead: dict[str, int] = {}
        self.student: Any = None

    def run(self) -> list[Candidate]:
        self.names = list(self.accuracies)
        return keep_winner(self, [Plan(name) for name in self.names])  # type: ignore[misc]

    def say(self, line: str) -> None:
        """Nobody listens."""

    def finetune(self, plan: Any, stop: Any) -> Candidate:
        asked = next(epoch for epoch in range(1, self.epochs + 1) if stop(epoch, None))
        self.calls.append((plan.name, asked))
        epochs = max(asked, self.ahead.get(plan.name, 0))
        loss = self.losses.get(plan.name, 1.0)
        rows = [
            {"epoch": float(i), "val_accuracy": accuracy, "val_loss": loss}
            for i, accuracy in enumerate(self.accuracies[plan.name][:epochs], 1)
        ]
        best = max(row["val_accuracy"] for row in rows)
        nothing: Any = None
        return Candidate(
            plan, nothing, Scores(0.0, 0.0, 1.0), Fitted(rows, Scores(best, 0.0, 1.0)), self.epochs
        )


class Plan(NamedTuple):
    """A cut that is known by its name."""

    name: str

    def describe(self) -> str:
        return self.name


def rising(*last: float, epochs: int = 10) -> dict[str, list[float]]:
    """A cut for each letter whose accuracy rises by a point an epoch up to the last one's."""
    return {
        chr(ord("a") + i): [end - epochs + epoch for epoch in range(1, epochs + 1)]
        for i, end in enumerate(last)
    }


def test_the_better_half_goes_on() -> None:
    """Five of them: all for 2 of 10 epochs, two for 4, one to the end."""
    track = Track(rising(91, 95, 93, 94, 92), {})
    winner, *others = track.run()
    assert winner.name == "b"
    assert winner.ended
    assert [other.name for other in others] == ["a", "c", "d", "e"]
    assert track.calls == [
        *(("a", 2), ("b", 2), ("c", 2), ("d", 2), ("e", 2)),
        *(("b", 4), ("d", 4)),
        ("b", 10),
    ]  # fmt: skip


def test_who_is_late_is_not_waited_for_and_who_falls_back_loses() -> None:
    late = {
        "early": [80, 80, 80, 80, 80],
        "late": [10, 10, 99, 99, 99],
        "back": [81, 60, 60, 60, 60],
    }
    # after the first of five epochs one of three goes on
    track = Track(late, {})
    assert track.run()[0].name == "back"
    assert track.calls[-1] == ("back", 5)
    # its best epoch counts, as its best weights are kept
    four = {**late, "fourth": [0, 0, 0, 0, 0]}
    track = Track(four, {})
    assert [candidate.name for candidate in track.run()] == ["back", "early", "late", "fourth"]
    assert track.calls[4:] == [("back", 2), ("early", 2), ("back", 5)]


def test_of_equals_the_lower_loss_and_then_the_first_goes_on() -> None:
    same = {name: [90.0] * 4 for name in "abc"}
    assert Track(same, {"b": 0.5}).run()[0].name == "b"
    assert Track(same, {}).run()[0].name == "a"


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
def test_one_alone_is_trained_to_its_end_at_once(epochs: int) -> None:
    track = Track(rising(90, epochs=epochs), {})
    (winner,) = track.run()
    assert track.calls == [("a", epochs)]
    assert winner.ended


@given(
    st.lists(st.floats(50, 100), min_size=1, max_size=9),
    st.integers(1, 12),
)
def test_a_race_ends(last: list[float], epochs: int) -> None:
    """With one winner, trained to its end; a cut that leads all the way wins."""
    track = Track(rising(*last, epochs=epochs), {})
    winner, *others = track.run()
    assert winner.ended
    assert max(last) == last[ord(winner.name) - ord("a")]
    assert sorted(one.name for one in (winner, *others)) == track.names
    spent = sum(dict(track.calls).values())
    assert spent <= epochs * len(last)


@given(st.lists(st.floats(50, 100), min_size=2, max_size=9), st.integers(1, 12))
def test_a_race_that_goes_on_takes_the_turns_it_took(last: list[float], epochs: int) -> None:
    """What a cut came to later, in the session before, counts for nothing."""
    track = Track(rising(*last, epochs=epochs), {})
    first = track.run()
    calls, track.ahead, track.calls = track.calls, dict(track.calls), []
    again = track.run()
    assert [one.name for one in again] == [one.name for one in first]
    assert track.calls == calls
