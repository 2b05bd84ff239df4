"""What a search proposes: always networks of its space, and the same for the same past."""

import random
from collections.abc import Sequence

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, create_trial

from nettailor.core.architecture import SearchedStructure
from nettailor.core.errors import UserError
from nettailor.search_space import Proposal, SearchSpace, propose

optuna.logging.set_verbosity(optuna.logging.ERROR)
SPACE = SearchSpace(32)


def anything(_: SearchedStructure) -> bool:
    return True


def past(proposals: Sequence[Proposal], seed: int = 0) -> list[FrozenTrial]:
    """These networks as finished trials, with values of their own."""
    chance = random.Random(seed)
    return [
        create_trial(
            values=[chance.uniform(0, 100), chance.uniform(1e3, 1e5), chance.uniform(0.1, 1)],
            params=proposal.params,
            distributions=proposal.distributions,
            user_attrs={"number": number},
        )
        for number, proposal in enumerate(proposals)
    ]


def first(count: int) -> list[Proposal]:
    return [propose(SPACE, 0, number, [], anything) for number in range(count)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 99), size=st.integers(16, 300))
def test_every_network_fits_the_bounds_and_the_image(seed: int, size: int) -> None:
    space = SearchSpace(size)
    made = propose(space, seed, 0, [], anything)
    blocks = made.structure.blocks
    assert 1 <= len(blocks) <= 5
    assert all(row.channels in range(8, 97, 8) and row.repeats <= 3 for row in blocks)
    assert all((row.expansion == 1) == (row.kind in ("Conv", "DWConv")) for row in blocks)
    side = -(-size // 2)
    for row in blocks:
        side = -(-side // row.stride)
    assert side >= 2
    # what is in the journal makes the same network
    assert space.structure(made.params) == made.structure


def test_a_proposal_follows_from_seed_number_and_past() -> None:
    proposals = first(12)
    finished = past(proposals)
    next_one = propose(SPACE, 0, 12, finished, anything)
    assert propose(SPACE, 0, 12, finished[::-1], anything) == next_one
    assert propose(SPACE, 0, 13, finished, anything) != next_one
    assert propose(SPACE, 1, 12, finished, anything) != next_one
    # what the networks reached counts, once there are ten
    assert propose(SPACE, 0, 12, past(proposals, seed=1), anything) != next_one
    assert propose(SPACE, 0, 9, finished[:9], anything) == proposals[9]


def test_it_learns_and_still_varies() -> None:
    """Where one kind is better in everything, it is proposed far more often than by chance."""
    chance = random.Random(0)
    finished = past(first(40))
    for trial, proposal in zip(finished, first(40), strict=True):
        good = proposal.structure.blocks[0].kind == "DWConv"
        low, high = (0.1, 0.2) if good else (0.5, 1.0)
        trial.values = [100 * (1 - low), 1e5 * chance.uniform(low, high), chance.uniform(low, high)]
    drawn = [propose(SPACE, 0, number, finished, anything).structure for number in range(40, 60)]
    assert sum(structure.blocks[0].kind == "DWConv" for structure in drawn) >= 8  # by chance 4
    assert len(set(drawn)) >= 10  # of one past, without a look at each other


def test_networks_that_do_not_fit_are_not_proposed() -> None:
    def lean(structure: SearchedStructure) -> bool:
        return len(structure.blocks) == 1 and structure.stem == 8

    made = [propose(SPACE, 0, number, [], lean) for number in range(5)]
    assert all(lean(proposal.structure) for proposal in made)
    assert len({proposal.structure for proposal in made}) == 5
    with pytest.raises(UserError, match=r"none of 200 .*search\.max_cost .*raise it") as refused:
        propose(SPACE, 0, 0, [], lambda _: False)
    assert "\n" not in str(refused.value)
