"""What a search chooses from, and which network it tries next."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import BaseTrial, FixedTrial, FrozenTrial, create_trial

from nettailor.core.architecture import BlockKind, SearchedBlock, SearchedStructure
from nettailor.core.errors import UserError

# macro F1, parameters, latency
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)

_KINDS: tuple[BlockKind, ...] = get_args(BlockKind)
_ACTIVATIONS = ("relu", "hard_swish", "silu")
_KERNELS = (3, 5)
_MOST_STAGES, _MOST_REPEATS = 5, 3  # and blocks in a stage
# least, most and step
_STEM, _HEAD, _EXPANSION, _CHANNELS = (8, 32, 8), (64, 256, 64), (2, 6, 2), (8, 96, 8)
_STRIDED_SIDE = 4  # pixels of the smallest node that is still halved
_RANDOM_TRIALS = 10  # before the sampler learns from what it has seen
# The best of so many draws is proposed: of optuna's 24, in choices as few as these, it would always
# be the same one, and networks would come again.
_CANDIDATES = 4
_ATTEMPTS = 200
_WORST = (0.0, 1e12, 1e12)


class Proposal(NamedTuple):
    """A network to try: its parameters by name, their distributions, and what they make."""

    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    structure: SearchedStructure


@dataclass(frozen=True)
class SearchSpace:
    """Networks of some stages, each with its kind of block, width, depth, stride, kernel,
    activation and expansion.

    No node is smaller than 2 × 2 pixels.
    """

    image_size: int

    def suggest(self, trial: BaseTrial) -> SearchedStructure:
        """The network that a trial chooses."""

        def choose(name: str, least: int, most: int, step: int = 1) -> int:
            return trial.suggest_int(name, least, most, step=step)

        stem, head = choose("stem", *_STEM), choose("head", *_HEAD)
        side = -(-self.image_size // 2)
        blocks = []
        for stage in range(1, choose("stages", 1, _MOST_STAGES) + 1):
            kind = trial.suggest_categorical(f"kind_{stage}", _KINDS)
            stride = choose(f"stride_{stage}", 1, 2) if side >= _STRIDED_SIDE else 1
            side = -(-side // stride)
            plain = kind in ("Conv", "DWConv")
            blocks.append(
                SearchedBlock(
                    kind=kind,
                    channels=choose(f"channels_{stage}", *_CHANNELS),
                    stride=stride,
                    kernel=trial.suggest_categorical(f"kernel_{stage}", _KERNELS),
                    activation=trial.suggest_categorical(f"activation_{stage}", _ACTIVATIONS),
                    expansion=1 if plain else choose(f"expansion_{stage}", *_EXPANSION),
                    repeats=choose(f"repeats_{stage}", 1, _MOST_REPEATS),
                )
            )
        return SearchedStructure(stem=stem, blocks=tuple(blocks), head=head)

    def structure(self, params: Mapping[str, Any]) -> SearchedStructure:
        """The network that these parameters make; ValueError where one is missing."""
        return self.suggest(FixedTrial(dict(params)))


def in_words(structure: SearchedStructure) -> str:
    """Such as `stem 16, 2 × MBConv 24 (kernel 3, stride 2, silu, expansion 4), head 128`."""
    rows = [
        f"{row.repeats} × {row.kind} {row.channels} (kernel {row.kernel}, stride {row.stride}, "
        f"{row.activation}" + f", expansion {row.expansion}" * (row.expansion > 1) + ")"
        for row in structure.blocks
    ]
    return ", ".join([f"stem {structure.stem}", *rows, f"head {structure.head}"])


def propose(
    space: SearchSpace,
    seed: int,
    number: int,
    finished: Sequence[FrozenTrial],
    fits: Callable[[SearchedStructure], bool],
) -> Proposal:
    """The network of trial `number`: the same for the same arguments.

    The first ten are drawn at random; then a tree-structured Parzen estimator (Bergstra and others,
    2011; for several objectives Ozaki and others, 2020) draws near what did well. Each trial has
    random numbers of its own, so nothing hangs on what a process proposed before.

    Args:
        finished: with their three values, in any order.
        fits: whether a network may be tried at all.

    Raises:
        UserError: no network that fits was found.
    """
    own_seed = zlib.crc32(f"{seed} trial {number}".encode())
    sampler: BaseSampler = RandomSampler(seed=own_seed)
    if len(finished) >= _RANDOM_TRIALS:
        sampler = TPESampler(
            n_startup_trials=0, n_ei_candidates=_CANDIDATES, multivariate=False, seed=own_seed
        )
    study = optuna.create_study(sampler=sampler, directions=DIRECTIONS)
    for trial in sorted(finished, key=lambda trial: trial.user_attrs["number"]):
        study.add_trial(
            create_trial(
                values=trial.values, params=trial.params, distributions=trial.distributions
            )
        )
    for _ in range(_ATTEMPTS):
        drawn = study.ask()
        structure = space.suggest(drawn)
        if fits(structure):
            return Proposal(drawn.params, drawn.distributions, structure)
        # a bad one, or the sampler would be drawn to where it has never seen any
        study.tell(drawn, _WORST)
    raise UserError(
        f"none of {_ATTEMPTS} networks drawn from the search space is new and costs at most "
        "search.max_cost times the backbone's multiply-adds: raise it, or give fewer --trials"
    )
