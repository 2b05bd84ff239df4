"""What a folded network is made of beside the backbone's own modules."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor.student.proxy import pool


class MaxPool(nn.Module):
    """(B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride)), as a proxy pools."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """The maximum of each window."""
        return pool(x, self.stride)


class Widened(nn.Module):
    """The identity, followed by channels of zeros."""

    def __init__(self, missing: int) -> None:
        super().__init__()
        self.missing = missing

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + missing, H, W)."""
        return F.pad(x, (0, 0, 0, 0, 0, self.missing))


class Scaled(nn.Module):
    """A number times what a module gives."""

    def __init__(self, module: nn.Module, scale: float) -> None:
        super().__init__()
        self.module = module
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """The module's output, scaled."""
        return cast(Tensor, self.module(x)) * self.scale


class Sum(nn.Module):
    """The sum of what several modules give, each of its own input."""

    def __init__(self, terms: Iterable[nn.Module]) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)

    def forward(self, *inputs: Tensor) -> Tensor:
        """As many inputs as terms."""
        total: Tensor | None = None
        for term, x in zip(self.terms, inputs, strict=True):
            total = term(x) if total is None else total + term(x)
        assert total is not None
        return total


class Merged(nn.Module):
    """The sum of 1×1 convolutions of several inputs, as one convolution of all their channels.

    Measured beside separate ones on two CPU cores: 0.2 to 0.7 of the time in torch; in ONNX Runtime
    0.73 to 0.79 at batch 1, 0.96 to 1.06 at batch 64 (1.7 once, at 16×16 pixels).
    """

    def __init__(self, convolutions: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        first = convolutions[0]
        channels = sum(convolution.in_channels for convolution in convolutions)
        self.conv = nn.Conv2d(channels, first.out_channels, 1).to(first.weight)
        with torch.no_grad():
            self.conv.weight.copy_(torch.cat([one.weight for one in convolutions], dim=1))
            biases = [cast(Tensor, one.bias) for one in convolutions]
            cast(Tensor, self.conv.bias).copy_(torch.stack(biases).sum(dim=0))

    def forward(self, *inputs: Tensor) -> Tensor:
        """As many inputs as convolutions, each (B, C_i, H, W) -> (B, C, H, W)."""
        return cast(Tensor, self.conv(torch.cat(inputs, dim=1)))


class Step(NamedTuple):
    """A module that reads named tensors and gives the tensor `name`."""

    name: str
    reads: tuple[str, ...]
    module: nn.Module


class Graph(nn.Module):
    """Steps one after the other, the last one's tensor is the output.

    For networks whose nodes are sums; those without are an `nn.Sequential`.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(step.module for step in steps)
        names = ["images", *(step.name for step in steps)]
        self.reads = [[names.index(name) for name in step.reads] for step in steps]
        self.last_reader = {
            index: position for position, reads in enumerate(self.reads) for index in reads
        }

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, S, S)."""
        values: dict[int, Tensor] = {0: images}
        for position, (part, reads) in enumerate(zip(self.parts, self.reads, strict=True)):
            values[position + 1] = part(*[values[index] for index in reads])
            for index in set(reads):
                if self.last_reader[index] == position:
                    del values[index]
        return values[len(self.reads)]
