"""Small images of a folder in memory, for measurements by the library."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset


class Varied(Dataset[tuple[Tensor, int]]):
    """uint8 images in memory, transformed as they are asked for."""

    def __init__(self, images: Any, transform: Callable[[Tensor], Tensor]) -> None:
        self.images, self.transform = [images[one] for one in range(len(images))], transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.images[index]
        return self.transform(image), label
