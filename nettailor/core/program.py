"""A plain network as the program that a .pt2 file holds."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram


class Logits(nn.Module):
    """A chain of blocks that gives its logits alone."""

    def __init__(self, chain: nn.Module) -> None:
        """chain: a `Backbone`, or what computes the same."""
        super().__init__()
        self.chain = chain

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> (B, classes)."""
        logits: Tensor = self.chain(images).logits
        return logits


def program_of(network: nn.Module, image_size: int) -> ExportedProgram:
    """What torch.export writes of a network on the CPU, for images (B, 3, S, S) of any B."""
    images = torch.zeros(2, 3, image_size, image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(network, (images,), dynamic_shapes=({0: Dim("batch")},))


def as_timed(network: nn.Module, image_size: int, device: torch.device) -> nn.Module:
    """A plain network as it is deployed on a device, to be timed.

    On the CPU its program, which has no modules to go through; where torch.export cannot follow it,
    and on a GPU, where it becomes a CUDA graph, the network itself.
    """
    if device.type != "cpu":
        return network
    try:
        return _Program(network, image_size)
    except Exception:  # torch.export raises any kind
        return network


class _Program(nn.Module):
    """The program of a network; always in eval mode, and shown as what the network is."""

    def __init__(self, network: nn.Module, image_size: int) -> None:
        super().__init__()
        self._shown = f"program of {network}"
        program: Any = program_of(network, image_size).module()
        # not a part of this one: such a module refuses to be put in eval mode, in which it is
        self._answer: Callable[[Tensor], Any] = lambda images: program(images)

    def forward(self, images: Tensor) -> Any:
        """What the network computes of images (B, 3, S, S)."""
        return self._answer(images)

    def __repr__(self) -> str:
        return self._shown
