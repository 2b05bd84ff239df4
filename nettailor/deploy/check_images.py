"""The images that an exported network is checked, and calibrated, on."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nettailor.core.architecture import Architecture
from nettailor.core.console import Screen
from nettailor.core.errors import UserError
from nettailor.core.run_settings import CONFIG_FILE, require_current, settings_of
from nettailor.core.settings import read_settings, set_key, validate
from nettailor.loaders import Loaders
from nettailor.session import start_session

_IMAGES = 64
_CALIBRATION_BATCHES = 8


class CheckImages(NamedTuple):
    """Normalised images to compare networks on.

    batches: (1, 3, S, S), (7, 3, S, S) and the rest, as far as there are any. what: in words.
    loaders: of the run, on the CPU in float32; None where its data is not at hand.
    """

    batches: list[Tensor]
    what: str
    loaders: Loaders | None

    def calibration(self) -> Iterator[Tensor]:
        """Batches of training images, as training varies them."""
        assert self.loaders is not None
        batches = islice(self.loaders.train.epoch(0), _CALIBRATION_BATCHES)
        return (images for images, _ in batches)


def check_images(run: Path, architecture: Architecture, screen: Screen) -> CheckImages:
    """Validation images of a run, or noise where its data cannot be read again.

    Args:
        run: the run's folder, or one of those inside.
        architecture: of the network, whose classes the data must have.
    """
    try:
        loaders = _loaders(run, architecture, screen)
        batches = -(-_IMAGES // loaders.train.batch_size)
        images = torch.cat([batch for batch, _ in islice(loaders.val, batches)])[:_IMAGES]
        what = f"{len(images)} validation images"
    except UserError as fault:
        screen.say(f"the run's images are not at hand ({fault}): outputs are compared on noise")
        loaders = None
        size = architecture.preprocessing.image_size
        images = torch.randn(_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
        what = f"{_IMAGES} images of noise"
    parts = [part for part in (images[:1], images[1:8], images[8:]) if len(part)]
    return CheckImages(parts, what, loaders)


def _loaders(run: Path, architecture: Architecture, screen: Screen) -> Loaders:
    """The run's images on the CPU; UserError where its settings or data are gone or others."""
    settings = settings_of(run)
    if settings is None:
        raise UserError(f"{run}: holds no {CONFIG_FILE}")
    content = read_settings(str(settings))
    require_current(content, run, "make it again for its images")
    for key, value in (("device", "cpu"), ("precision", "float32"), ("workers", 0)):
        set_key(content, key, value)
    session = start_session(validate(content), screen)
    if session.task.classes != architecture.classes:
        raise UserError(f"{settings}: its data has other classes than the network")
    # those of a scaled network are not of the settings' size
    return replace(session, preprocessing=architecture.preprocessing).loaders
