"""What a folded network is made of beside the backbone's own modules."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from nettailor.core.layout import Layout, widen
from nettailor.core.resize import resized


class Resized(nn.Module):
    """Images at the resolution that a network computes with."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, C, side, side)."""
        return resized(images, self.side)


class Widened(nn.Module):
    """The identity, followed by channels of zeros."""

    def __init__(self, missing: int, layout: Layout) -> None:
        super().__init__()
        self.missing = missing
        self.layout: Layout = layout

    def forward(self, x: Tensor) -> Tensor:
        """C channels -> C + missing."""
        return widen(x, self.missing, self.layout)


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


Layer = nn.Conv2d | nn.Linear


class Merged(nn.Module):
    """The sum of 1×1 convolutions, or of linear layers, of several inputs as one of all channels.

    Measured beside separate ones on two CPU cores: 0.2 to 0.7 of the time in torch; in ONNX Runtime
    0.73 to 0.79 at batch 1, 0.96 to 1.06 at batch 64 (1.7 once, at 16×16 pixels).
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        first = layers[0]
        out, channels = first.weight.shape[0], sum(layer.weight.shape[1] for layer in layers)
        linear = isinstance(first, nn.Linear)
        merged: Layer = nn.Linear(channels, out) if linear else nn.Conv2d(channels, out, 1)
        self.layer = merged.to(first.weight)
        self.axis = -1 if linear else 1
        with torch.no_grad():
            self.layer.weight.copy_(torch.cat([one.weight for one in layers], dim=1))
            biases = [cast(Tensor, one.bias) for one in layers]
            cast(Tensor, self.layer.bias).copy_(torch.stack(biases).sum(dim=0))

    def forward(self, *inputs: Tensor) -> Tensor:
        """As many inputs as layers, each with C_i channels -> C channels."""
        return cast(Tensor, self.layer(torch.cat(inputs, dim=self.axis)))


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
