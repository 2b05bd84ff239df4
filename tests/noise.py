"""Small random images, and transforms that vary them."""

import random

import numpy as np
import torch
from PIL import Image

from nettailor.core.errors import UserError
from nettailor.core.preprocessing import Preprocessing
from nettailor.core.sections import AugmentConfig

PREPROCESSING = Preprocessing(16, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5), "bilinear", 1.0)
STRONG = AugmentConfig(scale=(0.3, 1.0), color_jitter=0.4, random_erasing=0.5)
NONE = AugmentConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0, color_jitter=0.0)


class Noise:
    """Small random images; the one at `broken` cannot be read."""

    def __init__(self, count: int, broken: int | None = None) -> None:
        self.pixels = np.random.RandomState(0).randint(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        self.labels = tuple(range(count))
        self.broken = broken

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index == self.broken:
            raise UserError(f"image {index} is broken")
        return Image.fromarray(self.pixels[index]), self.labels[index]


def seed_all(seed):
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
