"""How a raw image becomes the tensor that a network reads."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image
from timm.data import create_transform
from torch import Tensor

from nettailor.core.errors import UserError

Transform = Callable[[Image.Image], Tensor]


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
class Augmentation:
    """How training images are varied.

    scale: range of the cropped share of the area, (1, 1) for the whole image. ratio: range of the
    crop's width over height. hflip, random_erasing: probabilities, 0..1. color_jitter: strength of
    the change in brightness, contrast and saturation, 0 for none. auto_augment: a timm policy such
    as "rand-m9-mstd0.5", or None; a policy takes the place of the colour jitter.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float]
    hflip: float
    color_jitter: float
    auto_augment: str | None
    random_erasing: float


def train_transform(preprocessing: Preprocessing, augmentation: Augmentation) -> Transform:
    """The random transform of training: RGB image of any size to float32 (3, S, S), normalised.

    It draws from the global generators of `random`, NumPy and torch.
    Raises UserError where timm knows no such auto_augment policy.
    """
    try:
        transform: Transform = create_transform(
            preprocessing.image_size,
            is_training=True,
            scale=augmentation.scale,
            ratio=augmentation.ratio,
            hflip=augmentation.hflip,
            color_jitter=augmentation.color_jitter,
            auto_augment=augmentation.auto_augment,
            interpolation=preprocessing.interpolation,
            mean=preprocessing.mean,
            std=preprocessing.std,
            re_prob=augmentation.random_erasing,
        )
    except (AssertionError, ValueError, KeyError, IndexError) as fault:
        if augmentation.auto_augment is None:
            raise
        raise UserError(
            f"auto_augment {augmentation.auto_augment!r} is no policy that timm knows: give one "
            "such as 'rand-m9-mstd0.5', 'augmix-m3-w3' or 'original', or leave it out"
        ) from fault
    return transform


def eval_transform(preprocessing: Preprocessing) -> Transform:
    """The fixed transform of evaluation: RGB image of any size to float32 (3, S, S), normalised.

    The shorter side is resized to image_size / crop_pct, then the centre is cut out.
    """
    transform: Transform = create_transform(
        preprocessing.image_size,
        is_training=False,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        crop_pct=preprocessing.crop_pct,
    )
    return transform
