"""An exported file as a network that answers here, to be compared and timed."""

from collections.abc import Callable

from torch import Tensor, nn

from nettailor.core.backbone import NetOutput


class Loaded(nn.Module):
    """What a runtime computes from a file's content."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        """`answer` takes normalised images (B, 3, S, S) on the CPU to logits (B, classes)."""
        super().__init__()
        self._answer = answer
        self.eval()  # so that nobody puts what answers back into training mode

    def forward(self, images: Tensor) -> NetOutput:
        """The logits; a file has no nodes."""
        return NetOutput(self._answer(images), [])
