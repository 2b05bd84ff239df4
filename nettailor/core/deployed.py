"""Networks as they are deployed: branches are one layer, batch norms are in their convolutions."""

from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nettailor.core.branches import fuse_branches
from nettailor.core.meta import Module, meta_copy

# of other kinds torch's rule need not be true
_KINDS = (nn.BatchNorm2d, BatchNormAct2d)


def as_deployed(
    network: Module, alone: tuple[int, ...] | None = None
) -> tuple[Module, dict[nn.Module, nn.Conv2d]]:
    """A copy in eval mode that computes the same with fewer layers, its nodes included.

    Branches that answer as one layer become it, see `fuse_branches`. Each batch norm that follows a
    convolution of the same part is folded into it; norms without running statistics stay, and such
    as scale their output.

    Args:
        network: a `Backbone` or a `Student`, or one part of it; it stays as it is.
        alone: of one part the shape that it reads, with its batch size.

    Returns:
        The copy; and for its blocks whose output is that of a folded norm: the convolution before.
    """
    network = fuse_branches(deepcopy(network).eval())
    seen = _observe(network, alone)
    fused: dict[str, nn.Conv2d] = {}
    for norm_name, conv_name in seen.followed.items():
        norm = cast(_BatchNorm, network.get_submodule(norm_name))
        conv = fuse_conv_bn_eval(cast(nn.Conv2d, network.get_submodule(conv_name)), norm)
        # timm's norms hold the activation that follows
        after = norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()
        network.set_submodule(conv_name, conv)
        network.set_submodule(norm_name, after)
        fused[norm_name] = conv
    return network, {
        network.get_submodule(block): fused[norm]
        for block, norm in seen.ending.items()
        # a weight does not go through an activation
        if norm in fused and isinstance(network.get_submodule(norm), nn.Identity)
    }


class _Seen(NamedTuple):
    """Names of modules: the convolution whose output a norm reads; the norm that ends a block."""

    followed: dict[str, str]
    ending: dict[str, str]


def _observe(network: nn.Module, alone: tuple[int, ...] | None) -> _Seen:
    """What follows what, seen in a pass over a meta copy by the identity of the tensors.

    A sum in place keeps a tensor's identity and raises its version.
    """
    observed = meta_copy(network)
    seen = _Seen({}, {})
    # the tensors are kept, so that none of their identities is given away again
    by_convolution: dict[tuple[int, int], tuple[Tensor, str]] = {}
    by_norm: dict[tuple[int, int], tuple[Tensor, str]] = {}
    children = () if alone else cast(nn.Module, observed.blocks).children()
    blocks = {id(block) for block in children}

    def part_of(name: str) -> list[str]:
        """The stem, one of the blocks, one of the heads, …"""
        if alone:
            return []
        words = name.split(".")
        parts = getattr(observed, words[0])
        return words[:2] if isinstance(parts, nn.ModuleDict | nn.ModuleList) else words[:1]

    def after_convolution(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        by_convolution[_identity(output)] = output, name

    def after_norm(name: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        by_norm[_identity(output)] = output, name
        before = by_convolution.get(_identity(args[0]))
        # what leaves a part is a node, which others read as well
        if before is not None and part_of(before[1]) == part_of(name):
            seen.followed[name] = before[1]

    def after_block(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        if _identity(output) in by_norm:
            seen.ending[name] = by_norm[_identity(output)][1]

    for name, module in observed.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(partial(after_convolution, name))
        elif type(module) in _KINDS:
            if cast(_BatchNorm, module).running_mean is not None:
                module.register_forward_hook(partial(after_norm, name))
        elif id(module) in blocks:
            module.register_forward_hook(partial(after_block, name))
    dtype = next((one.dtype for one in observed.parameters()), None)
    shape = alone or (1, *cast(tuple[int, int, int], network.example))
    with torch.no_grad():
        observed(torch.empty(shape, dtype=dtype, device="meta"))
    return seen


def _identity(tensor: Tensor) -> tuple[int, int]:
    return id(tensor), tensor._version
