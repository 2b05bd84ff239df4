"""timm's networks by name: which family one is of, what its weights expect, how it is made."""

from typing import NamedTuple

import timm
from timm.models import get_pretrained_cfg, model_entrypoint
from torch import nn
from torchvision.models import get_model

from nettailor.core.classification import start_small
from nettailor.core.errors import UserError, nearest
from nettailor.core.parts import SUPPORTED, Family

TORCHVISION = "torchvision:"
# The module of timm that makes a backbone tells its family without building it.
_FAMILY_OF_MODULE: dict[str, Family] = {
    "timm.models.resnet": "resnet",
    "timm.models.efficientnet": "inverted-residual",
    "timm.models.mobilenetv3": "inverted-residual",
    "timm.models.hardcorenas": "inverted-residual",
    "timm.models.convnext": "convnext",
    "timm.models.regnet": "regnet",
}


class DataDefaults(NamedTuple):
    """How a backbone's pretrained weights expect their images.

    mean, std: per RGB channel of images in [0, 1]. interpolation: timm's name, such as "bicubic".
    crop_pct: the part of the resized image's side that a centre crop keeps, in (0, 1].
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float


def family(backbone: str) -> Family:
    """The family of a timm model name, with or without a weights tag; nothing is built.

    Raises UserError for a name or tag that timm does not know and for a network that cannot be
    taken as a chain of blocks.
    """
    if not timm.is_model(backbone):
        raise UserError(
            f"unknown backbone {backbone!r}: expected the name of a timm model"
            f"{nearest(backbone, timm.list_models())}"
        )
    try:
        get_pretrained_cfg(backbone)
    except RuntimeError as error:
        architecture = backbone.split(".")[0]
        tags = timm.list_pretrained(f"{architecture}.*")
        raise UserError(
            f"unknown weights tag in {backbone!r}: timm has {', '.join(tags) or 'none'}; "
            f"{architecture!r} alone takes timm's default"
        ) from error
    module = model_entrypoint(backbone).__module__
    if module not in _FAMILY_OF_MODULE:
        raise UserError(
            f"backbone {backbone!r} is not a chain that can be cut: "
            f"expected one of timm's {SUPPORTED}"
        )
    return _FAMILY_OF_MODULE[module]


def data_defaults(backbone: str) -> DataDefaults:
    """How the backbone's pretrained weights expect their images; UserError as in `family`."""
    family(backbone)
    config = get_pretrained_cfg(backbone)
    return DataDefaults(
        mean=tuple(config.mean),
        std=tuple(config.std),
        interpolation=config.interpolation,
        crop_pct=config.crop_pct,
    )


def make_network(backbone: str, classes: int) -> nn.Module:
    """The timm model as timm makes it, with random weights, ready for `take_apart`.

    Raises UserError for an unknown or unsupported backbone and for fewer than 1 class.
    """
    family(backbone)
    if classes < 1:
        raise UserError(f"a classifier of {classes} classes was asked for: expected at least 1")
    network: nn.Module = timm.create_model(backbone, num_classes=classes)
    start_small(network.get_classifier())  # type: ignore[operator]
    return network


def bare_network(backbone: str, classes: int) -> nn.Module:
    """The network of a name of timm's, or of torchvision's as `torchvision:NAME`."""
    if backbone.startswith(TORCHVISION):
        name = backbone.removeprefix(TORCHVISION)
        # the second classifiers of these work in training only
        auxiliary = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        made: nn.Module = get_model(name, weights=None, num_classes=classes, **auxiliary)
        return made
    network: nn.Module = timm.create_model(backbone, num_classes=classes)
    return network


def classifier_prefix(network: nn.Module) -> str:
    """How the names of the classifier's tensors start in a timm model, such as "head.fc."."""
    classifier = network.get_classifier()  # type: ignore[operator]
    return next(f"{name}." for name, module in network.named_modules() if module is classifier)
