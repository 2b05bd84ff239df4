"""SIGKILL at random moments and inside saves: the end is the one of a run that nobody killed.

`benchmarks/faults.py` does the same for longer, and tells the counts.
"""

import random
import sys
from pathlib import Path

import pytest
from kills import COMMANDS, Warm, differences, flip_a_bit, inside_a_save, kill_until_it_ends

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")


def killed_is_as_never_killed(
    warm: Warm, name: str, folder: Path, *, seeds: range, most: int
) -> None:
    straight = warm.attempt(name, folder / "straight")
    assert straight.code == 0, (folder / "straight" / "output.txt").read_text(encoding="utf-8")
    for seed in seeds:
        place = folder / str(seed)
        kills = kill_until_it_ends(
            warm, name, place, random.Random(f"{name} {seed}"), most=most, straight=straight
        )
        assert differences(folder / "straight", place) == [], kills
        assert len(kills) > most // 2
        assert inside_a_save(kills) > 0


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("tailor, all", 13),  # all inside saves, however busy the machine is
        pytest.param("tailor, rank", 0, marks=pytest.mark.slow),
        pytest.param("eliminate", 0, marks=pytest.mark.slow),
    ],
)
def test_a_few_kills(warm: Warm, tmp_path: Path, name: str, seed: int) -> None:
    killed_is_as_never_killed(warm, name, tmp_path, seeds=range(seed, seed + 1), most=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_many_kills(warm: Warm, tmp_path: Path, name: str) -> None:
    killed_is_as_never_killed(warm, name, tmp_path, seeds=range(1, 4), most=8)


def test_the_comparison_can_fail(warm: Warm, tmp_path: Path) -> None:
    """One bit of one weight in one state, with a right checksum, shows in the end."""
    for place in ("straight", "killed", "spoilt"):
        at = None if place == "straight" else 60
        end = warm.attempt("teach", tmp_path / place, at=at)
        assert end.code == (0 if at is None else -9)
        assert end.stage == ("between stages" if at is None else "teacher")
    (state,) = (tmp_path / "spoilt").rglob("state/teacher.pt")
    flip_a_bit(state)
    for place in ("killed", "spoilt"):
        assert warm.attempt("teach", tmp_path / place).code == 0
    assert differences(tmp_path / "straight", tmp_path / "killed") == []
    found = differences(tmp_path / "straight", tmp_path / "spoilt")
    names = {Path(name).name for name in found}
    assert {"model.safetensors", "metrics.csv"} <= names
