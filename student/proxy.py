"""The small skip layer A_pl that may stand in for pretrained blocks."""

import torch.nn.functional as F
from torch import Tensor, nn

from nettailor.core.backbone import ProxyShape


class ScaledBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose affine part is multiplied by a scalar.

    scale * BN(x) costs no pass over the activations this way: it is a change of C weights.
    """

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); `scale` is a scalar tensor, None for 1."""
        if scale is None:
            return super().forward(x)
        momentum = self.momentum
        if self.training:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            if momentum is None:  # cumulative average, as in nn.BatchNorm2d
                momentum = 1.0 / float(self.num_batches_tracked)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight * scale,
            self.bias * scale,
            self.training,
            momentum or 0.0,
            self.eps,
        )


class Proxy(nn.Module):
    """α · A_pl: max-pool to the target's resolution, 1×1 convolution, batch norm.

    For bottleneck blocks: 1×1 convolution, batch norm, ReLU, 1×1 convolution, batch norm, with
    max(C_out / 32, 16) channels between (NetTailor, section 3.1 and the authors' program).

    Pooling has kernel s + 1, stride s and padding s // 2 for a stride of s > 1. It is a separate
    step (`pool`), so that proxies that read the same node at the same stride share its result.
    """

    def __init__(self, channels_in: int, channels_out: int, shape: ProxyShape) -> None:
        super().__init__()
        self.squeeze: nn.Sequential | None = None
        width = channels_in
        if shape == "bottleneck":
            width = max(channels_out // 32, 16)
            self.squeeze = nn.Sequential(
                nn.Conv2d(channels_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)
            )
        self.conv = nn.Conv2d(width, channels_out, 1, bias=False)
        self.norm = ScaledBatchNorm2d(channels_out)

    def forward(self, pooled: Tensor, alpha: Tensor | None = None) -> Tensor:
        """(B, C_in, H, W) already pooled -> (B, C_out, H, W), times the scalar `alpha`."""
        if self.squeeze is not None:
            pooled = self.squeeze(pooled)
        scaled: Tensor = self.norm(self.conv(pooled), alpha)
        return scaled


def pool(x: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))."""
    return x if stride == 1 else F.max_pool2d(x, stride + 1, stride, stride // 2)
