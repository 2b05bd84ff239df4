"""Making a network narrower: channels that go are gone from its tensors."""

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core.backbone import Backbone, meta_copy
from nettailor.prune.attention import heads_of, take_heads
from nettailor.prune.items import FIXED, Channels
from nettailor.student.network import Student

Network = TypeVar("Network", bound=nn.Module)
Kept = NDArray[np.bool_]


def narrow(network: Network, channels: Channels, kept: Kept) -> Network:
    """A copy with the kept channels only, in their order; the original stays as it was.

    What it computes is what the original does when every layer that reads a dropped channel gets
    zeros there.

    Args:
        network: a `Backbone` or a `Student`.
        channels: its items.
        kept: which of them stay, shape (items,).
    """
    narrowed = copy.deepcopy(network)
    for name, module in narrowed.named_modules():
        if name in channels.heads:
            take_heads(module, positions(channels.heads[name], kept))
        elif isinstance(module, nn.Conv2d | nn.Linear | _BatchNorm):
            counted = "running_mean" if isinstance(module, _BatchNorm) else "weight"
            out = channels.places.get((f"{name}.{counted}", 0))
            read = channels.places.get((f"{name}.weight", 1))
            take(module, _positions(out, kept), _positions(read, kept))
    if isinstance(narrowed, Student):
        left = [
            spec.channels if items is None else len(positions(items, kept))
            for spec, items in zip(narrowed.specs, channels.nodes, strict=True)
        ]
        _set_nodes(narrowed, left)
    return narrowed


def positions(items: NDArray[np.int64], kept: Kept) -> Tensor:
    """Where the channels that stay are among those of these items, shape (channels that stay,)."""
    return torch.as_tensor(np.flatnonzero(kept[items] | (items == FIXED)))


def _positions(items: NDArray[np.int64] | None, kept: Kept) -> Tensor | None:
    return None if items is None else positions(items, kept)


def widths(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The channels of each layer by name.

    (out, in), (channels,) of a batch norm, (heads,) of an attention layer whose heads can go.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        match module:
            case nn.Conv2d():
                found[name] = (module.out_channels, module.in_channels)
            case nn.Linear():
                found[name] = (module.out_features, module.in_features)
            case _BatchNorm():
                found[name] = (module.num_features,)
            case _ if heads := heads_of(module):
                found[name] = (heads,)
    return found


def channels_left(network: nn.Module, whole: Backbone) -> dict[int, float]:
    """By number of a block, which part of the output channels of its layers is left.

    Blocks that have them all are left out.

    Args:
        network: a `Backbone` or a `Student` of the same blocks.
        whole: the backbone with all of its channels.
    """

    def channels(block: nn.Module) -> int:
        return sum(layer[0] for layer in widths(block).values())

    blocks = dict(enumerate(network.blocks, 1)) if isinstance(network, Backbone) else {}
    if isinstance(network, Student):
        of_paths = network.wiring.of_kind("block")
        blocks = {path.target: network.blocks[path.key] for path in of_paths}
    found = {
        number: channels(block) / max(channels(whole.blocks[number - 1]), 1)
        for number, block in blocks.items()
    }
    return {number: part for number, part in found.items() if part < 1}


def resize(
    network: nn.Module,
    layers: Mapping[str, Sequence[int]],
    nodes: Sequence[int] | None,
    image_size: int,
) -> None:
    """Give layers of a network the widths that they had in another, in place; values mean nothing.

    Args:
        network: a `Backbone` or a `Student` of full width.
        layers: names with widths as `widths` gives them.
        nodes: channels of each node of a student; None for a chain.
        image_size: side in pixels of images that the network takes.

    Raises:
        ValueError: a name or a width that there is not, or layers that do not fit together.
    """
    whole = widths(network)
    for name, wanted in layers.items():
        full = whole.get(name)
        if full is None:
            raise ValueError(f"there is no layer {name}")
        if len(wanted) != len(full) or not all(
            1 <= one <= most for one, most in zip(wanted, full, strict=True)
        ):
            raise ValueError(f"{name} has widths {list(wanted)}, expected up to {list(full)}")
        if name.rpartition(".")[2] == "classifier" and wanted[0] != full[0]:
            raise ValueError(f"{name} has {wanted[0]} classes, expected {full[0]}")
        module = network.get_submodule(name)
        reads = wanted[1] if len(wanted) > 1 and getattr(module, "groups", 1) == 1 else None
        take(module, torch.arange(wanted[0]), None if reads is None else torch.arange(reads))
        if widths(module)[""] != tuple(wanted):
            raise ValueError(f"{name} cannot have widths {list(wanted)}")
    if isinstance(network, Student) != (nodes is not None):
        raise ValueError("a student, and nothing else, has widths of nodes")
    if isinstance(network, Student):
        assert nodes is not None
        if len(nodes) != len(network.specs) or not all(
            1 <= one <= spec.channels for one, spec in zip(nodes, network.specs, strict=True)
        ):
            raise ValueError(f"the nodes cannot have {list(nodes)} channels")
        _set_nodes(network, nodes)
    try:
        with torch.no_grad():
            meta_copy(network)(torch.empty(1, 3, image_size, image_size, device="meta"))
    except RuntimeError as error:
        raise ValueError("the layers do not fit together") from error


def _set_nodes(student: Student, channels: Sequence[int]) -> None:
    student.specs = tuple(
        spec._replace(channels=one) for spec, one in zip(student.specs, channels, strict=True)
    )


def take(module: nn.Module, out: Tensor | None, read: Tensor | None) -> None:
    """Keep some of a layer's channels, or an attention layer's heads, in place; None keeps all.

    Of a grouped convolution whole groups are kept: their inputs follow from their outputs.
    """
    if heads_of(module):
        if out is not None:
            take_heads(module, out)
        return
    for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers()):
        left = tensor.detach()
        if out is not None and tensor.ndim > 0:
            left = left.index_select(0, out.to(tensor.device))
        if read is not None and key == "weight":
            left = left.index_select(1, read.to(tensor.device))
        if isinstance(tensor, nn.Parameter):
            left = nn.Parameter(left, tensor.requires_grad)
        setattr(module, key, left)
    match module:
        case nn.Conv2d():
            if module.groups > 1 and out is not None:
                each_out = module.out_channels // module.groups
                each_in = module.in_channels // module.groups
                module.groups = len(out) // each_out
                module.in_channels = module.groups * each_in
            elif read is not None:
                module.in_channels = len(read)
            module.out_channels = module.weight.shape[0]
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case _BatchNorm():
            module.num_features = len(cast(Tensor, module.running_mean))
