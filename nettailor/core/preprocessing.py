"""How a raw image becomes the tensor that a network reads."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torchvision.transforms import v2

from nettailor.core.errors import UserError
from nettailor.core.sections import AugmentConfig

_ERASED = {"scale": (0.02, 1 / 3), "ratio": (0.3, 1 / 0.3)}  # Zhong and others, 2020; timm's


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its input.

    image_size: side of the square input, pixels. mean, std: one number per RGB channel, of pixels
    in 0..1. interpolation: a timm name such as "bicubic". crop_pct: the share, in (0, 1], of the
    resized image's side that evaluation keeps.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float


@dataclass(frozen=True)
class Transform:
    """An RGB image of any size to float32 (3, S, S), normalised.

    What is drawn is drawn on the pixels of one image, wherever it is read; whole batches of them
    are normalised, where the network computes: 8 bits travel there in the place of 32.

    Attributes:
        pixels: RGB image -> uint8 (3, S, S).
        mean, std: one number per RGB channel, of pixels in 0..1.
    """

    pixels: Callable[[Image.Image], Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 (…, 3, S, S) -> float32, where they are and in the same memory order."""
        mean, std = (_per_channel(one, pixels.device) for one in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)

    def __call__(self, image: Image.Image) -> Tensor:
        return self.normalised(self.pixels(image))


@cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(-1, 1, 1)


def train_transform(preprocessing: Preprocessing, augmentation: AugmentConfig) -> Transform:
    """The random transform of training.

    It draws from the global generators of `random`, NumPy and torch. A policy takes the place of
    the colour jitter. What is erased has the mean colour. Raises UserError where timm knows no
    such auto_augment policy.
    """
    mean = preprocessing.mean
    try:
        pixels = create_transform(
            preprocessing.image_size,
            is_training=True,
            scale=augmentation.scale,
            ratio=augmentation.ratio,
            hflip=augmentation.hflip,
            color_jitter=augmentation.color_jitter,
            auto_augment=augmentation.auto_augment,
            interpolation=preprocessing.interpolation,
            mean=mean,
            normalize=False,
        )
    except (AssertionError, ValueError, KeyError, IndexError) as fault:
        if augmentation.auto_augment is None:
            raise
        raise UserError(
            f"auto_augment {augmentation.auto_augment!r} is no policy that timm knows: give one "
            "such as 'rand-m9-mstd0.5', 'augmix-m3-w3' or 'original', or leave it out"
        ) from fault
    if augmentation.random_erasing:
        colour = [round(255 * one) for one in mean]
        erase = v2.RandomErasing(augmentation.random_erasing, value=colour, **_ERASED)
        pixels = v2.Compose([pixels, erase])
    return Transform(pixels, mean, preprocessing.std)


def eval_transform(preprocessing: Preprocessing) -> Transform:
    """The fixed transform of evaluation.

    The shorter side is resized to image_size / crop_pct, then the centre is cut out.
    """
    pixels = create_transform(
        preprocessing.image_size,
        is_training=False,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        normalize=False,
    )
    return Transform(pixels, preprocessing.mean, preprocessing.std)
