"""The small skip layer A_pl that may stand in for pretrained blocks."""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor.core.layout import Layout, as_maps, from_maps
from nettailor.core.parts import ProxyShape


class ScaledBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose affine part comes from outside, where it was multiplied by a scalar.

    α BN(x) costs no pass over the activations this way: it is a change of C weights. The momentum
    is a number.
    """

    def forward(self, x: Tensor, affine: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); `affine`: (α weight, α bias), (C,) each."""
        if affine is None:
            return super().forward(x)
        assert self.momentum is not None
        tracks = self.track_running_stats or not self.training
        mean, var = (self.running_mean, self.running_var) if tracks else (None, None)
        return F.batch_norm(x, mean, var, *affine, self.training, self.momentum, self.eps)


@cache
def _norm_of_channel(widths: tuple[int, ...], device: torch.device) -> Tensor:
    """The channels of several norms in a row: which of the norms each is of, shape (Σ widths,)."""
    with torch.inference_mode(False):  # else it could not be used in training later
        numbers = torch.arange(len(widths)).repeat_interleave(torch.tensor(widths))
        return numbers.to(device)


def scaled_affines(
    norms: Sequence[nn.BatchNorm2d], alphas: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """(α weight, α bias) of each norm, all of them in two multiplications.

    Args:
        norms: at least one.
        alphas: a scalar each.
    """
    widths = [norm.num_features for norm in norms]
    factors = torch.stack(list(alphas))[_norm_of_channel(tuple(widths), alphas[0].device)]
    weights = torch.cat([norm.weight for norm in norms]) * factors
    biases = torch.cat([norm.bias for norm in norms]) * factors
    return list(zip(torch.split(weights, widths), torch.split(biases, widths), strict=True))


class Proxy(nn.Module):
    """α · A_pl: max-pool to the target's resolution, 1×1 convolution, batch norm.

    For bottleneck blocks: 1×1 convolution, batch norm, ReLU, 1×1 convolution, batch norm, with
    max(C_out / 32, 16) channels between (NetTailor, section 3.1 and the authors' program).

    Pooling has kernel s + 1, stride s and padding s // 2 for a stride of s > 1. It is a separate
    step (`bring`), so that proxies that read the same node at the same stride share its result.
    On tokens and on (B, H, W, C) the convolution is a linear layer.
    """

    def __init__(
        self, channels_in: int, channels_out: int, shape: ProxyShape, layout: Layout = "nchw"
    ) -> None:
        super().__init__()
        self.layout: Layout = layout
        self.squeeze: nn.Sequential | None = None
        width = channels_in
        if shape == "bottleneck":
            width = max(channels_out // 32, 16)
            self.squeeze = nn.Sequential(
                nn.Conv2d(channels_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)
            )
        self.conv = nn.Conv2d(width, channels_out, 1, bias=False)
        self.norm = ScaledBatchNorm2d(channels_out)

    def forward(self, pooled: Tensor, affine: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """A node already pooled, C_in channels -> C_out, times α: see `scaled_affines`."""
        maps = as_maps(pooled, self.layout)
        if self.squeeze is not None:
            maps = self.squeeze(maps)
        return from_maps(self.norm(self.conv(maps), affine), self.layout)
