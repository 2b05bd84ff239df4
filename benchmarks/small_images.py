"""Images in memory at one small size, for measurements by the library."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, random_split
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

_SCALED = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]


class InMemory(Dataset[tuple[Tensor, int]]):
    """uint8 images (3, S, S) and their labels, transformed as they are asked for."""

    def __init__(self, images: Any, transform: Callable[[Tensor], Tensor]) -> None:
        self.images, self.transform = [images[one] for one in range(len(images))], transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.images[index]
        return self.transform(image), label


def loaders(
    folder: Path | None,
    parts: Sequence[float],
    *,
    size: int,
    batch: int,
    seed: int = 0,
    limit: int | None = None,
) -> tuple[list[DataLoader[Any]], int]:
    """Loaders of train, which is shifted and flipped, and of the other parts; how many classes.

    Args:
        folder: a folder a class; None: scikit-learn's digits, which are not flipped.
        parts: of the images, drawn by `seed`: shares whose sum is 1, or counts, where the last part
            has what is left if that is less.
        size: side of the images in pixels.
        batch: images in a training batch.
        limit: so many images, drawn by `seed`, and no more.
    """
    draw = torch.Generator().manual_seed(seed)
    small = v2.Compose([v2.ToImage(), v2.Resize(size, antialias=True), v2.CenterCrop(size)])
    vary = [v2.RandomCrop(size, padding=size // 8)]
    images: Any
    if folder is None:
        digits = load_digits()
        grey = torch.tensor(digits.images * 15.9).to(torch.uint8)[:, None].expand(-1, 3, -1, -1)
        images, classes = list(zip(small(grey), digits.target.tolist(), strict=True)), 10
    else:
        images = ImageFolder(folder, small)
        classes = len(images.classes)
        vary.append(v2.RandomHorizontalFlip())
    if limit is not None:
        images = Subset(images, torch.randperm(len(images), generator=draw)[:limit].tolist())
    if sum(parts) > 1:
        *counts, last = map(int, parts)
        parts = [*counts, min(last, len(images) - sum(counts))]
        images = Subset(images, torch.randperm(len(images), generator=draw)[: sum(parts)].tolist())
    train, *others = random_split(images, parts, draw)
    varied, plain = v2.Compose([*vary, *_SCALED]), v2.Compose(_SCALED)
    first = DataLoader(InMemory(train, varied), batch, shuffle=True)
    return [first, *(DataLoader(InMemory(one, plain), 256) for one in others)], classes
