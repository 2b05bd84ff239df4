"""What a classifier says of image files, those that cannot be read included."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

from nettailor.classifier import Classifier
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.images import in_one_line
from nettailor.core.preprocessing import eval_transform
from nettailor.core.reading import Doubts, read_rgb

# Where Pillow takes an image for an attack. Resizing the shorter side of a strip can end there too.
_MOST_PIXELS = 178_956_970


@dataclass(frozen=True)
class Predicted:
    """The likeliest classes of one image with their probabilities, falling.

    ms: time to read and prepare this image, and its share of the network's time for its batch.
    """

    path: Path
    ms: float
    predictions: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Failed:
    """An image that could not be read, and why, in one line."""

    path: Path
    reason: str


def predict(
    classifier: Classifier,
    paths: Sequence[Path],
    *,
    top_k: int,
    batch_size: int,
    device: torch.device,
    doubts: Doubts | None = None,
) -> Iterator[Predicted | Failed]:
    """One outcome for each path; predictions keep the order of the paths.

    Each image that can be read is shown to `doubts`.

    At most batch_size images are in memory. Raises UserError where the network cannot work on such
    a batch, or computes what is no number.
    """
    transform = eval_transform(classifier.preprocessing)
    shorter_side = classifier.preprocessing.image_size / classifier.preprocessing.crop_pct
    longest = _MOST_PIXELS / shorter_side**2
    place(classifier.network, device)
    _warm_up(classifier, min(batch_size, len(paths)), top_k, device)
    batch: list[_Prepared] = []
    for position, path in enumerate(paths, 1):
        started = perf_counter()
        try:
            image = read_rgb(path, longest=longest)
            prepared = transform(image)
        except Exception as fault:  # a decoder fed with broken bytes raises any kind
            yield Failed(path, _reason(fault))
        else:
            batch.append(_Prepared(path, prepared, perf_counter() - started))
            if doubts is not None:
                doubts.look(image)
        if batch and (len(batch) == batch_size or position == len(paths)):
            yield from _answers(classifier, batch, top_k, device)
            batch = []


class _Prepared(NamedTuple):
    """An image (3, S, S) that is ready for the network, and the seconds that took."""

    path: Path
    image: Tensor
    seconds: float


def _warm_up(classifier: Classifier, batch_size: int, top_k: int, device: torch.device) -> None:
    """Do once, off the clock, what is slow the first time only."""
    size = classifier.preprocessing.image_size
    shorter_side = size / classifier.preprocessing.crop_pct
    if shorter_side**2 > _MOST_PIXELS:
        raise UserError(
            f"the network asks for images of {shorter_side:.0f} pixels, of which it would see the "
            f"middle {size}: its crop_pct is damaged; restore it"
        )
    try:
        blank = _Prepared(Path(), torch.zeros(3, size, size), 0.0)
        list(_answers(classifier, [blank] * batch_size, top_k, device))
    except RuntimeError as fault:  # out of memory is one
        raise UserError(
            f"the network cannot take {batch_size} images of {size} pixels at once "
            f"({in_one_line(fault)}): give a smaller --batch-size, or check the run's image size"
        ) from fault
    Image.init()
    file = io.BytesIO()
    Image.new("RGB", (2 * size, 2 * size)).save(file, "PNG")
    eval_transform(classifier.preprocessing)(read_rgb(file))


def _answers(
    classifier: Classifier, batch: Sequence[_Prepared], top_k: int, device: torch.device
) -> Iterator[Predicted]:
    started = perf_counter()
    images = torch.stack([prepared.image for prepared in batch])
    probabilities = _probabilities(classifier.network, images, device)
    if not torch.isfinite(probabilities).all():
        raise UserError(
            "the network computes what is no number: its weights are damaged; restore them, or "
            "train again"
        )
    # stable, so that equals always stand in the order of the classes
    falling, order = probabilities.sort(dim=1, descending=True, stable=True)
    share = (perf_counter() - started) / len(batch)
    rows = zip(batch, falling[:, :top_k].tolist(), order[:, :top_k].tolist(), strict=True)
    for (path, _, seconds), values, indices in rows:
        names = [classifier.labels[index] for index in indices]
        yield Predicted(path, 1000 * (seconds + share), tuple(zip(names, values, strict=True)))


def _reason(fault: Exception) -> str:
    match fault:
        case UnidentifiedImageError():
            return "not an image in a known format"
        case OSError(strerror=str(reason)):
            return reason
    return in_one_line(fault)


@torch.inference_mode()
def _probabilities(network: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """(B, classes) in float32 on the CPU for images (B, 3, S, S)."""
    images = images.contiguous(memory_format=torch.channels_last)
    logits: Tensor = network(images.to(device)).logits
    return logits.float().softmax(dim=1).cpu()
