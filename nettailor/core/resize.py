"""Images in a batch at another resolution, and the names of what computes with them."""

import torch.nn.functional as F
from torch import Tensor


def resized(images: Tensor, side: int | None) -> Tensor:
    """Images (B, C, S, S) with this side, in pixels; None: as they are.

    Bicubic, and filtered when it becomes smaller, as an image is that is read from its file.
    """
    if side is None or images.shape[-1] == side:
        return images
    return F.interpolate(images, size=side, mode="bicubic", antialias=True)


def at_side(name: str, side: int | None) -> str:
    """A name with the side of its images, such as `student-48px`; None: the name alone."""
    return name if side is None else f"{name}-{side}px"
