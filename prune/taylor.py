"""What a channel is worth: the estimated change of the loss when it goes."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from nettailor.core.memory import room_for
from nettailor.core.modes import evaluating
from nettailor.prune.items import FIXED, Channels


def taylor_values(
    network: nn.Module,
    channels: Channels,
    batches: Iterable[tuple[Tensor, Tensor]],
    accelerator: Accelerator,
) -> NDArray[np.float64]:
    """First-order Taylor estimates of the loss change when an item goes, mean over the images.

    An item goes when every layer that reads one of its channels gets zeros there. With a gate z = 1
    on what each layer reads,

        V_k = 1/N Σ_images | Σ_{channels c of k that are read} ∂L/∂z_c |
            = 1/N Σ_images | Σ_c Σ_positions a_c · ∂L/∂a_c |

    of each image's cross-entropy L and the activations a (Molchanov and others, 2017 and 2019): all
    that one item feeds is summed before the absolute value, so that tied channels, and those of a
    head of attention, are judged together. The network is in eval mode, with its running
    statistics, and computes in float32: gradients in half precision can be too small to be told
    from nothing.

    Args:
        network: on the accelerator's device; it stays as it is.
        channels: its items.
        batches: (images (B, 3, S, S), labels), at least one.

    Returns:
        Shape (items,), none below 0; an item that nothing reads is worth 0.

    Raises:
        UserError: there is not enough memory for a batch.
    """
    device = accelerator.device
    # gates (rows, C) beside axes of 1, which of their channels can go, and the items of these
    gates: list[tuple[Tensor, Tensor, Tensor]] = []

    def gate(
        places: Tensor, items: Tensor, module: nn.Module, args: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        x, *others = args
        shape = [len(x)] + [1] * (x.ndim - 1)
        axis = -1 if isinstance(module, nn.Linear) else 1
        shape[axis] = x.shape[axis]
        ones = x.new_ones(shape, requires_grad=True)
        gates.append((ones, places, items))
        return x * ones, *others

    total = torch.zeros(channels.count, dtype=torch.float64, device=device)
    seen = 0
    hooks = []
    try:
        for layer in channels.layers:
            if layer.read is not None and (layer.read != FIXED).any():
                (places,) = np.nonzero(layer.read != FIXED)
                chosen = (places, layer.read[places])
                at, items = (torch.as_tensor(numbers, device=device) for numbers in chosen)
                module = network.get_submodule(layer.name)
                hooks.append(module.register_forward_pre_hook(partial(gate, at, items)))
        with evaluating(network):
            for images, labels in batches:
                with room_for(len(images), "weighing channels"):
                    images = images.to(device, memory_format=torch.channels_last)
                    logits = network(images).logits
                    loss = F.cross_entropy(logits, labels.to(device), reduction="sum")
                    found = torch.autograd.grad(loss, [ones for ones, _, _ in gates])
                    by_item = loss.new_zeros(len(images), channels.count)
                    for gradient, (_, at, items) in zip(found, gates, strict=True):
                        # windows and the like are rows of their own, an image's one by one
                        each = gradient.reshape(len(images), -1, gradient[0].numel()).sum(dim=1)
                        by_item.index_add_(1, items, each[:, at])
                    total += by_item.abs().sum(dim=0)
                seen += len(images)
                gates.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return (total / seen).cpu().numpy()
