"""Copies on the meta device: shapes without values, memory or arithmetic."""

from collections.abc import Callable
from copy import deepcopy
from typing import TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def meta_copy(module: Module) -> Module:
    """A copy on the meta device in evaluation mode: shapes without values, memory or arithmetic.

    The module itself is neither run nor changed.
    """
    return copy_with(module, lambda tensor: tensor.to("meta"))


def copy_with(module: Module, tensors: Callable[[Tensor], Tensor]) -> Module:
    """A copy in evaluation mode with other tensors in the place of the module's own."""
    memo: dict[int, object] = {
        id(parameter): nn.Parameter(tensors(parameter.detach()), parameter.requires_grad)
        for parameter in module.parameters()
    }
    memo |= {id(buffer): tensors(buffer) for buffer in module.buffers()}
    return deepcopy(module, memo).eval()
