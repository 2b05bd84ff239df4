"""What operators do to channels: which of its operands' each channel of a result is one with."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from nettailor.prune.items import Ints

# each value of the result depends on the values at its own channel only, in all operands
_ELEMENTWISE = frozenset({
    "add", "sub", "mul", "div", "relu", "hardtanh", "silu", "sigmoid", "hardswish", "hardsigmoid",
    "gelu", "elu", "leaky_relu", "tanh", "clamp", "clamp_min", "clamp_max", "mish", "softplus",
    "exp", "clone", "detach", "alias", "copy", "_to_copy",
})  # fmt: skip
# likewise of (B, C, H, W)
_POOLS = frozenset({
    "avg_pool2d", "_adaptive_avg_pool2d", "max_pool2d_with_indices", "adaptive_max_pool2d",
})  # fmt: skip
# likewise of (B, C, ...), with operands (C,)
_NORMS = frozenset({
    "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training", "_batch_norm_no_update",
})  # fmt: skip
_VIEWS = frozenset({"view", "_unsafe_view", "reshape", "flatten", "squeeze", "unsqueeze"})


class Seen(NamedTuple):
    """The slots of a tensor's channels, and the axis that they lie along."""

    slots: Ints
    axis: int


class Passed(NamedTuple):
    """What an operator makes of channels: those of its results, and which it ties together."""

    results: Sequence[Seen]
    ties: Sequence[tuple[Ints, Ints]] = ()


def passed(
    operator: str,
    args: Sequence[Any],
    operands: Sequence[Tensor],
    results: Sequence[Tensor],
    seen: Mapping[Tensor, Seen],
) -> Passed | None:
    """What becomes of the channels of an operator's operands; None where that is not known.

    Args:
        operator: its name in ATen.
        args: what it was given.
        operands: the tensors among that, any of which was seen.
        results: what it gave.
        seen: the channels of tensors so far.
    """
    if operator in _ELEMENTWISE | _POOLS | _NORMS:
        return _by_channel(operator, [(one, seen.get(one)) for one in operands], results[0])
    if operator == "cat":
        return _joined([seen.get(one) for one in operands], (*args, 0)[1] % results[0].ndim)
    if operands[0] not in seen:
        return None
    slots, axis = seen[operands[0]]
    if operator in ("split", "split_with_sizes"):
        parts = [slots] * len(results)
        if (*args, 0)[2] % operands[0].ndim == axis:
            parts = np.split(slots, np.cumsum([one.shape[axis] for one in results])[:-1])
        return Passed([Seen(part, axis) for part in parts])
    if operator in _VIEWS:
        return _viewed(slots, operands[0].shape, axis, results[0].shape)
    if operator == "mean" and len(args) > 1 and args[1]:
        dims = {dim % operands[0].ndim for dim in args[1]}
        gone = 0 if results[0].ndim == operands[0].ndim else sum(dim < axis for dim in dims)
        return None if axis in dims else Passed([Seen(slots, axis - gone)])
    return None


def _by_channel(
    operator: str, operands: Sequence[tuple[Tensor, Seen | None]], out: Tensor
) -> Passed | None:
    # axes are matched from the last one on
    slots, axis = next((seen.slots, seen.axis - one.ndim) for one, seen in operands if seen)
    norm = operator in _NORMS
    if (norm and out.ndim + axis != 1) or (operator in _POOLS and axis != -3):
        return None
    ties = []
    for one, seen in operands:
        if seen is None:
            if one.numel() > 1 and out.ndim > 1:
                return None
        elif len(seen.slots) != len(slots) or not (norm or seen.axis - one.ndim == axis):
            return None
        else:
            ties.append((slots, seen.slots))
    return Passed([Seen(slots, out.ndim + axis)], ties)


def _joined(parts: Sequence[Seen | None], dim: int) -> Passed | None:
    known = [one for one in parts if one is not None and one.axis == dim]
    if len(known) < len(parts):
        return None
    return Passed([Seen(np.concatenate([one.slots for one in known]), dim)])


def _viewed(slots: Ints, shape: Sequence[int], axis: int, out: Sequence[int]) -> Passed | None:
    """Elements keep their order: what follows a channel may be counted into its axis."""
    before = math.prod(shape[:axis])
    for new, size in enumerate(out):
        if math.prod(out[:new]) == before and size and size % len(slots) == 0:
            return Passed([Seen(np.repeat(slots, size // len(slots)), new)])
    return None
