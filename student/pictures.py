"""A student in TensorBoard: its path weights through time, and its pictures."""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from nettailor.student.drawing import architecture, heat_map
from nettailor.student.wiring import Path, Wiring


@runtime_checkable
class HasPaths(Protocol):
    """A student, or one that shrinks."""

    @property
    def wiring(self) -> Wiring:
        """Its paths."""

    @property
    def path_weights(self) -> Callable[[], Tensor]:
        """() -> α (paths,)."""


# (network, epoch) -> further curves by name
Curves = Callable[[nn.Module, int], Mapping[str, float]]


class StudentPictures:
    """TensorBoard curves of a student after each epoch, and pictures after chosen ones.

    Args:
        stages: the backbone stage of each block, L entries.
        drawn: the epochs to draw, 0 for the start; drawing takes most of a second.
        curves: what is drawn beside the path weights, such as E[C].
    """

    def __init__(self, stages: Sequence[int], drawn: Container[int], curves: Curves) -> None:
        self._stages, self._drawn, self._curves = stages, drawn, curves

    def __call__(self, writer: SummaryWriter, epoch: int, network: nn.Module) -> None:
        """Every α as a curve, the heat map and the drawing."""
        assert isinstance(network, HasPaths)
        wiring, alpha = network.wiring, network.path_weights().tolist()
        for name, value in self._curves(network, epoch).items():
            writer.add_scalar(name, value, epoch)
        for path, weight in zip(wiring.paths, alpha, strict=True):
            writer.add_scalar(f"path_weight/{tag_of(path, wiring.depth)}", weight, epoch)
        if epoch not in self._drawn:
            return
        writer.add_figure("path_weights", heat_map(wiring, alpha), epoch)
        title = f"epoch {epoch}: opacity is the path weight"
        drawing = architecture(wiring, alpha, stages=self._stages, title=title)
        writer.add_figure("architecture", drawing, epoch)


def tag_of(path: Path, logits: int) -> str:
    """Such as `x5/block`, `x5/from-x3` of a proxy, `logits/exit-x3`."""
    node = "logits" if path.target == logits else f"x{path.target}"
    name = {"proxy": f"from-x{path.source}", "exit": f"exit-x{path.source}"}.get(
        path.kind, path.kind
    )
    return f"{node}/{name}"
