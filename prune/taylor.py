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

from nettailor.core.modes import evaluating
from prune.channels import FIXED, Channels


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
    that one item feeds is summed before the absolute value, so that tied channels are judged
    together. The network is in eval mode, with its running statistics.

    Args:
        network: on the accelerator's device; it stays as it is.
        channels: its items.
        batches: (images (B, 3, S, S), labels), at least one.

    Returns:
        Shape (items,), none below 0; an item that nothing reads is worth 0.
    """
    device = accelerator.device
    gates: list[tuple[Tensor, Tensor]] = []  # gates (B, C, 1, 1) or (B, C), and the items (C,)

    def gate(items: Tensor, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *others = args
        ones = x.new_ones(x.shape[:2] + (1,) * (x.ndim - 2), requires_grad=True)
        gates.append((ones, items))
        return x * ones, *others

    readers = [layer for layer in channels.layers if layer.read is not None]
    total = torch.zeros(channels.count, dtype=torch.float64, device=device)
    seen = 0
    hooks = []
    try:
        for layer in readers:
            items = torch.as_tensor(layer.read, device=device)
            module = network.get_submodule(layer.name)
            hooks.append(module.register_forward_pre_hook(partial(gate, items)))
        with evaluating(network):
            for images, labels in batches:
                images = images.to(device, memory_format=torch.channels_last)
                with accelerator.autocast():
                    logits = network(images).logits
                loss = F.cross_entropy(logits.float(), labels.to(device), reduction="sum")
                found = torch.autograd.grad(loss, [ones for ones, _ in gates])
                by_item = torch.zeros(len(images), channels.count, device=device)
                for gradient, (_, items) in zip(found, gates, strict=True):
                    known = items != FIXED
                    by_item.index_add_(1, items[known], gradient.flatten(1)[:, known].float())
                total += by_item.abs().sum(dim=0)
                seen += len(images)
                gates.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return (total / seen).cpu().numpy()
