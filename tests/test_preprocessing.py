"""How an image becomes what a network reads, plain and varied."""

import numpy as np
import torch
from networks import refused
from noise import NONE, PREPROCESSING, STRONG, Noise, seed_all
from PIL import Image
from timm.data import create_transform

from nettailor.core.preprocessing import Preprocessing, eval_transform, train_transform


def test_pixels_are_normalised():
    expected = torch.from_numpy(Noise(1).pixels[0]).permute(2, 0, 1) / 255
    expected = (expected - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.2, 0.25, 0.5]
    ).view(3, 1, 1)
    image = Noise(1)[0][0]
    torch.testing.assert_close(eval_transform(PREPROCESSING)(image), expected)
    torch.testing.assert_close(augmented(image), expected)


def test_images_are_timms_to_the_bit():
    """Normalised in batches, channels last, as timm does it one by one."""
    image, how = Noise(1)[0][0], {"mean": PREPROCESSING.mean, "std": PREPROCESSING.std}
    crop = {"scale": STRONG.scale, "ratio": STRONG.ratio, "hflip": STRONG.hflip}
    seed_all(0)
    expected = create_transform(16, is_training=True, color_jitter=0.4, **crop, **how)(image)
    transform = train_transform(PREPROCESSING, STRONG.model_copy(update={"random_erasing": 0.0}))
    seed_all(0)
    pixels = transform.pixels(image)
    assert pixels.dtype == torch.uint8
    batch = pixels[None].expand(3, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    assert torch.equal(transform.normalised(batch), expected.expand(3, -1, -1, -1))


def test_evaluation_keeps_the_centre_that_crop_pct_leaves():
    half = Preprocessing(8, (0.0,) * 3, (1.0,) * 3, "bilinear", 0.5)
    image = Noise(1)[0][0]
    expected = torch.from_numpy(Noise(1).pixels[0][4:12, 4:12]).permute(2, 0, 1) / 255
    torch.testing.assert_close(eval_transform(half)(image), expected)


def augmented(image, **changed):
    return train_transform(PREPROCESSING, NONE.model_copy(update=changed))(image)


def test_sure_flip_mirrors_the_columns():
    image = Noise(1)[0][0]
    assert torch.equal(augmented(image, hflip=1.0), augmented(image).flip(2))


def test_sure_erasing_blanks_a_rectangle():
    """To the mean colour, within the half grey that 8 bits cannot say."""
    image = Image.new("RGB", (16, 16), (255, 255, 255))
    half = 0.5 / 255 / torch.tensor(PREPROCESSING.std).view(3, 1, 1) + 1e-6
    blank = (augmented(image, random_erasing=1.0).abs() <= half).all(dim=0)
    rows, columns = blank.any(dim=1).sum(), blank.any(dim=0).sum()
    assert blank.sum() == rows * columns > 0
    assert not (augmented(image).abs() <= half).any()


def test_jitter_changes_a_flat_colour_to_another():
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    changed = augmented(image, color_jitter=0.4)
    assert torch.equal(changed, changed[:, :1, :1].expand(3, 16, 16))
    assert not torch.equal(changed, augmented(image))


def test_crop_has_the_ratio_asked_for():
    # Half of the area, twice as wide as high: all 16 columns of 8 rows, whichever rows.
    columns = np.tile(np.arange(16, dtype=np.uint8)[None, :, None] * 16, (16, 1, 3))
    image = Image.fromarray(columns)
    assert torch.equal(augmented(image, scale=(0.5, 0.5), ratio=(2.0, 2.0)), augmented(image))


def test_policies_of_timm():
    image = Noise(1)[0][0]
    seed_all(0)
    assert not torch.equal(augmented(image, auto_augment="rand-m9-n3"), augmented(image))
    with refused(r"auto_augment 'nonsense' .*'rand-m9-mstd0.5'"):
        train_transform(PREPROCESSING, STRONG.model_copy(update={"auto_augment": "nonsense"}))
