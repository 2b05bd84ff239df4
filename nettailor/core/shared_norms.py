"""Batch norm over a batch that several ranks share."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nettailor.core import ranks


def shared_norms() -> AbstractContextManager[object]:
    """Inside, every batch norm that trains takes its statistics from the parts of all ranks.

    Outputs, gradients and running statistics are those of one process with the whole batch, within
    rounding, however unequal the parts. torch's own SyncBatchNorm runs on GPUs only, and is a
    module in the place of each norm.
    """
    return _SharedNorms() if ranks.count() > 1 else nullcontext()


class _SharedNorms(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As `torch.nn.functional.batch_norm`."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    channels = x.shape[1]
    exact = _at_least_float32(x)
    weight = x.new_ones(channels, dtype=exact) if weight is None else weight
    bias = x.new_zeros(channels, dtype=exact) if bias is None else bias
    mean, var, number = _moments(x.detach())
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((var * (number / (number - 1))).to(running_var.dtype), momentum)
    normed: Tensor = _Normed.apply(x, weight, bias, mean, (var + eps).rsqrt(), number)
    return normed


def _moments(x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean and variance of each channel over all ranks, (C,) each, and how many values there are.

    Each rank's mean and sum of squares around it are put together by Chan, Golub and LeVeque's
    formula, which loses nothing where means are far from zero.
    """
    over = _all_but_channels(x)
    values = x.to(_at_least_float32(x))
    mean = values.mean(dim=over)
    around = (values - _along(mean, x)).square().sum(dim=over)
    mine = torch.stack([mean, around, torch.full_like(mean, x.numel() / x.shape[1])])
    means, arounds, numbers = ranks.all_of(mine).unbind(dim=1)
    number = numbers[:, 0].sum()
    mean = (means * numbers).sum(dim=0) / number
    var = (arounds + numbers * (means - mean).square()).sum(dim=0) / number
    return mean, var, float(number)


class _Normed(torch.autograd.Function):
    """y = (x - mean) * scale * weight + bias, where mean and scale depend on x of all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        scale: Tensor,
        number: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.number = number
        factor = scale * weight
        return ((x - _along(mean, x)) * _along(factor, x) + _along(bias, x)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """dx = weight * scale * (dy - mean(dy) - x̂ * mean(dy * x̂)), the means over all ranks.

        The loss is the sum of the ranks' parts, and the parameters' gradients are added up over
        ranks with all others: here they are of this rank's part.
        """
        (gradient,) = gradients
        x, weight, mean, scale = ctx.saved_tensors
        over = _all_but_channels(x)
        dy = gradient.to(_at_least_float32(x))
        normed = (x - _along(mean, x)) * _along(scale, x)
        of_bias, of_weight = dy.sum(dim=over), (dy * normed).sum(dim=over)
        totals = torch.stack([of_bias, of_weight])
        ranks.add_up([totals])
        by_bias, by_weight = totals / ctx.number
        dx = dy - _along(by_bias, x) - normed * _along(by_weight, x)
        dx = (dx * _along(weight * scale, x)).to(x.dtype)
        return dx, of_weight, of_bias, None, None, None


def _at_least_float32(x: Tensor) -> torch.dtype:
    """What statistics are computed in: sums of half precision lose too much."""
    return torch.promote_types(x.dtype, torch.float32)


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def _along(of_channels: Tensor, x: Tensor) -> Tensor:
    """A value a channel, (C,), in the shape that spreads over x, (B, C, …)."""
    return of_channels.view(1, -1, *[1] * (x.ndim - 2))
