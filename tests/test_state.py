"""The state of a stage on disk: what is read is what was written, or the one before, or nothing."""

import hashlib
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from payload import Payload

from nettailor.core.errors import UserError
from nettailor.core.random_state import random_state, set_random_state
from nettailor.core.state import before, latest_state, read_state, write_state

Damage = Callable[[bytes], bytes]
HEADER = len(b"nettailor state 2\n") + 32


def saved_twice(folder: Path) -> Path:
    """A state with value 2, and beside it the one before, with value 1."""
    path = folder / "stage.pt"
    for value in (1, 2):
        write_state(path, {"value": value, "tensor": torch.full((100,), float(value))})
    return path


def latest(path: Path, *keys: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The latest state that has `value` and `keys`, and the warnings on the way."""
    warnings: list[str] = []
    return latest_state(path, ["value", *keys], warnings.append), warnings


def is_whole(state: dict[str, Any] | None, value: int) -> bool:
    return (
        state is not None
        and state.keys() == {"value", "tensor"}
        and state["value"] == value
        and torch.equal(state["tensor"], torch.full((100,), float(value)))
    )


def cut(keep: int) -> Damage:
    return lambda content: content[:keep]


def flip(place: float, bit: int) -> Damage:
    """One bit at a place between 0, the first byte, and 1, the last."""

    def damage(content: bytes) -> bytes:
        spoilt = bytearray(content)
        spoilt[round(place * (len(content) - 1))] ^= 1 << bit
        return bytes(spoilt)

    return damage


# nothing at all, within the mark, within and after the checksum, within what it guards, almost all
CUTS = [0, 1, 10, 18, 19, 40, HEADER - 1, HEADER, HEADER + 1, HEADER + 4, *range(100, 1000, 100)]
CUTS += [-1, -2, -100]
CHANCE = random.Random(0)
FLIPS = [(place / 200, place % 8) for place in range(12)]  # the header and what follows it
FLIPS += [(CHANCE.random(), CHANCE.randrange(8)) for _ in range(30)] + [(1.0, 7)]
DAMAGES = {
    **{f"cut to {keep}": cut(keep) for keep in CUTS},
    **{f"bit {bit} at {place:.3f}": flip(place, bit) for place, bit in FLIPS},
    "longer": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "doubled": lambda content: content + content,
}


def spoil(path: Path, damage: Damage) -> None:
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))


def test_undamaged(tmp_path):
    path = saved_twice(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["stage.before.pt", "stage.pt"]
    state, warnings = latest(path)
    assert is_whole(state, 2)
    assert is_whole(read_state(before(path)), 1)
    assert warnings == []


def test_none_yet(tmp_path):
    assert latest(tmp_path / "stage.pt") == (None, [])


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_latest(tmp_path, damage):
    """The one before, and a word about it; without one, a refusal that says what to do."""
    path = saved_twice(tmp_path)
    spoil(path, damage)
    state, warnings = latest(path)
    assert is_whole(state, 1)
    (warning,) = warnings
    assert warning == f"warning: {path} is damaged; training goes on from the state before it"
    before(path).unlink()
    with pytest.raises(UserError, match=r"stage\.pt: damaged, .*nothing in it was run.*delete it"):
        latest(path)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_before(tmp_path, damage):
    """Nobody needs it while the latest is good; without that, a refusal."""
    path = saved_twice(tmp_path)
    spoil(before(path), damage)
    state, warnings = latest(path)
    assert is_whole(state, 2)
    assert warnings == []
    spoil(path, damage)
    with pytest.raises(UserError, match=r"stage\.pt: damaged"):
        latest(path)
    path.unlink()
    with pytest.raises(UserError, match=r"stage\.before\.pt: damaged"):
        latest(path)


def test_killed_between_the_two_moves(tmp_path):
    """The latest has become the one before, the new one is not yet there."""
    path = saved_twice(tmp_path)
    path.replace(before(path))
    state, warnings = latest(path)
    assert is_whole(state, 2)
    assert warnings == []


def test_saving_over_a_damaged_latest_goes_on(tmp_path):
    path = saved_twice(tmp_path)
    spoil(path, cut(-1))
    write_state(path, {"value": 3, "tensor": torch.full((100,), 3.0)})
    state, warnings = latest(path)
    assert is_whole(state, 3)
    assert warnings == []


def test_a_state_that_lacks_something(tmp_path):
    path = saved_twice(tmp_path)
    write_state(path, {"other": 1})
    state, warnings = latest(path)
    assert is_whole(state, 2)
    assert len(warnings) == 1
    with pytest.raises(UserError, match="damaged, or no training state of this version"):
        latest(path, "absent")


@pytest.mark.parametrize("content", [lambda one: one, lambda one: {"value": 1, "tensor": one}])
def test_a_payload_inside_a_right_checksum_is_not_run(tmp_path, content):
    path, victim = saved_twice(tmp_path), tmp_path / "victim"
    pickled = io.BytesIO()
    torch.save(content(Payload(victim)), pickled)
    payload = pickled.getvalue()
    path.write_bytes(b"nettailor state 2\n" + hashlib.sha256(payload).digest() + payload)
    with pytest.raises(UserError, match="nothing in it was run"):
        read_state(path)
    state, warnings = latest(path)
    assert is_whole(state, 1)
    assert len(warnings) == 1
    assert not victim.exists()
    torch.load(io.BytesIO(payload), weights_only=False)
    assert victim.exists(), "the payload would have worked"


def draws() -> list[float]:
    """Two numbers of each generator; a normal one leaves a spare behind in Python's and NumPy's."""
    numbers = [random.random(), random.gauss(0, 1)]
    numbers += [float(np.random.rand()), float(np.random.randn())]
    return numbers + torch.rand(1).tolist() + torch.randn(1).tolist()


def test_generators_come_back(tmp_path):
    random.seed(5)
    np.random.seed(6)
    torch.manual_seed(7)
    draws()
    write_state(tmp_path / "s.pt", {"random": random_state()})
    expected = draws()
    others = draws()
    assert all(one != other for one, other in zip(expected, others, strict=True))
    random.seed(8)
    np.random.seed(9)
    torch.manual_seed(10)
    back = read_state(tmp_path / "s.pt")["random"]
    set_random_state(back)
    assert draws() == expected
    assert draws() == others
