"""The meta device: copies and runs that have shapes without values, memory or arithmetic."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Module = TypeVar("Module", bound=nn.Module)

# Their meta kernels are slow, and the shape is that of their input.
_KEEP_SHAPE = {F.batch_norm, F.layer_norm, F.group_norm, F.gelu, F.silu}


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


class Quick(TorchFunctionMode):
    """A run on the meta device that passes over what is slow there and changes no shape."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _KEEP_SHAPE and args:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


class MultiplyAdds(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts them, as torch's `FlopCounterMode` does and without its record of modules."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=output) // 2
        return output
