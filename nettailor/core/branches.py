"""Branches that are one layer once they are trained: timm's structural re-parametrisation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from timm.models.byobnet import MobileOneBlock, RepVggBlock
from timm.utils import reparameterize_model
from torch import nn

Module = TypeVar("Module", bound=nn.Module)
_METHODS = ("fuse", "reparameterize", "switch_to_deploy")  # in the order that timm asks for them


def fuse_branches(network: Module) -> Module:
    """The network with every such module of timm's as it is deployed, in place, in eval mode.

    Those of RepVGG, MobileOne, FastViT, RepViT, GhostNetV3 and others become one layer; where timm
    fuses norms along, these go as well. What the network answers stays the same. A parameter that
    is new is marked as training where any of the module's own is.

    Returns:
        The network, or what stands in its place where it is such a module itself.
    """
    holder = nn.Sequential(network)
    _fuse_within(holder, {})
    return cast(Module, holder[0])


def _fuses(module: nn.Module) -> bool:
    """Whether timm fuses a module, and did not do so before."""
    methods = (getattr(type(module), name, None) for name in _METHODS)
    of_timm = any(getattr(method, "__module__", "").startswith("timm.") for method in methods)
    return of_timm and getattr(module, "reparam_conv", None) is None


def _fuse_within(parent: nn.Module, done: dict[nn.Module, nn.Module]) -> None:
    for name, child in list(parent._modules.items()):
        if child is None:
            continue
        if child not in done:
            if _fuses(child):
                done[child] = _fused(child)
            else:
                done[child] = child
                _fuse_within(child, done)
        parent._modules[name] = done[child]


def _fused(module: nn.Module) -> nn.Module:
    if isinstance(module, RepVggBlock | MobileOneBlock):
        # their own number, which stays behind where channels were cut
        module.groups = next(one.groups for one in module.modules() if isinstance(one, nn.Conv2d))
    trains = {id(parameter): parameter.requires_grad for parameter in module.parameters()}
    first = next(module.parameters())
    # some make their layers wherever and in whatever precision layers are made
    with torch.no_grad(), first.device, _default_dtype(first.dtype):
        fused: nn.Module = reparameterize_model(nn.Sequential(module), inplace=True)[0]
    for part in fused.modules():
        vars(part).pop("id_tensor", None)  # as large as the weights, and not needed again
    for parameter in fused.parameters():
        parameter.requires_grad_(trains.get(id(parameter), any(trains.values())))
    return fused.eval()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
