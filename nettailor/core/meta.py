"""Copies on the meta device: shapes without values, memory or arithmetic."""

from copy import deepcopy
from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def meta_copy(module: Module) -> Module:
    """A copy on the meta device in evaluation mode: shapes without values, memory or arithmetic.

    The module itself is neither run nor changed.
    """
    memo: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in module.parameters()
    }
    memo |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return deepcopy(module, memo).eval()
