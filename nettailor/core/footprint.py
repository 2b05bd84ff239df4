"""What one forward pass takes beside its latency: memory."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nettailor.core.latency import sample
from nettailor.core.memory import room_for
from nettailor.core.modes import evaluating


def peak_memory(network: nn.Module, image_size: int, device: torch.device, *, batch: int) -> int:
    """Bytes at the worst moment of a forward pass of `batch` images.

    Parameters and buffers, the images, and every tensor that lives at that moment. These networks
    keep every node's output for mimicry; what an operator needs inside itself is not seen.
    """
    held = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    images = sample(batch, 3, image_size, device)
    room = room_for(batch, "a forward pass", "")
    with evaluating(network), torch.no_grad(), room, _LivingTensors() as living:
        network(images)
    return int(held + images.nbytes + living.peak)


class _LivingTensors(TorchDispatchMode):
    """Counts the bytes of all storages that operators make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {
            leaf.untyped_storage()._cdata
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, Tensor)
        }
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in given | self._seen:
                    self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._seen.add(key)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._now -= size
