"""Whether two networks say the same."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nettailor.core.errors import UserError
from nettailor.core.modes import evaluating

TOLERANCE = 1e-4  # of the largest logit, float32


@torch.inference_mode()
def difference(network: nn.Module, other: nn.Module, batches: Sequence[Tensor]) -> float:
    """The largest difference of two networks' logits over the largest logit of the first.

    Infinity where one of them gives what is no number.

    Args:
        network, other: their outputs have logits (B, classes).
        batches: normalised images (B, 3, S, S), on the networks' device.
    """
    worst = largest = 0.0
    with evaluating(network, other):
        for images in batches:
            expected = network(images).logits
            found = other(images).logits
            worst = max(worst, float((found - expected).abs().nan_to_num(torch.inf).max()))
            largest = max(largest, float(expected.abs().max()))
    return worst / largest if largest else float(worst > 0)


def require_parity(name: str, worst: float) -> None:
    """Raise UserError where a file's outputs are not those of the network that it was made of."""
    if not worst <= TOLERANCE:
        raise UserError(
            f"{name}: its outputs differ from the network's by {worst:.1e} of the largest logit, "
            f"expected at most {TOLERANCE:.0e}; nothing was written: export on another version of "
            "torch, or in another format"
        )
