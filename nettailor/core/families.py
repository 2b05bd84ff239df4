"""timm's and torchvision's networks by name: family, classes, expected images, how one is made.

A name is timm's, such as `resnet18.a1_in1k`, or torchvision's as `torchvision:resnet18` or, with a
tag of its weights, `torchvision:resnet18.IMAGENET1K_V1`.
"""

from collections import Counter
from functools import partial
from typing import Any, cast

import timm
import torch
import torchvision
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import get_pretrained_cfg, model_entrypoint
from torch import nn
from torchvision.models import get_model, get_model_weights

from nettailor.core.classification import start_small
from nettailor.core.errors import UserError, nearest
from nettailor.core.parts import Family
from nettailor.core.preprocessing import Preprocessing

TORCHVISION = "torchvision:"
# The module of timm that makes a backbone tells its family without building it; all others are
# taken apart by tracing.
_FAMILY_OF_MODULE: dict[str, Family] = {
    "timm.models.resnet": "resnet",
    "timm.models.efficientnet": "inverted-residual",
    "timm.models.mobilenetv3": "inverted-residual",
    "timm.models.hardcorenas": "inverted-residual",
    "timm.models.convnext": "convnext",
    "timm.models.regnet": "regnet",
}


def is_torchvisions(backbone: str) -> bool:
    """Whether a name is one of torchvision's."""
    return backbone.startswith(TORCHVISION)


def family(backbone: str) -> Family:
    """The family of a network by name, with or without a weights tag; nothing is built.

    Raises UserError for a name or tag that timm, or torchvision, does not know.
    """
    if is_torchvisions(backbone):
        torchvision_weights(backbone)
        return "own"
    if not timm.is_model(backbone):
        raise UserError(
            f"unknown backbone {backbone!r}: expected the name of a timm model, or one of "
            f"torchvision's as '{TORCHVISION}resnet18'{nearest(backbone, timm.list_models())}"
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
    return _FAMILY_OF_MODULE.get(model_entrypoint(backbone).__module__, "own")


def torchvision_weights(backbone: str) -> Any:
    """The entry of torchvision's weights that a name means; UserError for one it does not know."""
    name, _, tag = backbone.removeprefix(TORCHVISION).partition(".")
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UserError(
            f"unknown backbone {backbone!r}: torchvision has no such classification network"
            f"{nearest(name, known)}"
        )
    weights = get_model_weights(name)
    tags = [entry.name for entry in weights]
    if tag and tag not in tags:
        raise UserError(
            f"unknown weights tag in {backbone!r}: torchvision has {', '.join(tags)}; "
            f"'{TORCHVISION}{name}' alone takes its default"
        )
    return weights[tag] if tag else weights.DEFAULT


def data_defaults(backbone: str) -> Preprocessing:
    """How the backbone's pretrained weights expect their images; UserError as in `family`."""
    family(backbone)
    if is_torchvisions(backbone):
        how = torchvision_weights(backbone).transforms()
        side = how.crop_size[0]
        return Preprocessing(
            image_size=side,
            mean=tuple(how.mean),
            std=tuple(how.std),
            interpolation=how.interpolation.value,
            crop_pct=side / how.resize_size[0],
        )
    config = get_pretrained_cfg(backbone)
    return Preprocessing(
        image_size=config.input_size[-1],
        mean=tuple(config.mean),
        std=tuple(config.std),
        interpolation=config.interpolation,
        crop_pct=min(config.crop_pct, 1.0),  # a few widen small images by a black frame
    )


def pretrained_labels(backbone: str) -> tuple[str, ...]:
    """The English names of the classes of a backbone's own classifier, by class index.

    Of WordNet's synonyms the first; where classes share it, with the definition.

    Raises UserError as in `family`, and for a classifier of something else than ImageNet.
    """
    family(backbone)
    if is_torchvisions(backbone):
        return tuple(torchvision_weights(backbone).meta["categories"])
    config = get_pretrained_cfg(backbone)
    subset = infer_imagenet_subset(config)
    if subset is None:
        raise UserError(
            f"the classifier of {backbone!r} has {config.num_classes} outputs, which are no "
            "ImageNet classes: choose another backbone"
        )
    info = ImageNetInfo(subset)
    names = [synonyms.split(",")[0] for synonyms in info.label_descriptions()]
    shared = Counter(names)
    return tuple(
        name if shared[name] == 1 else f"{name} ({detailed.split(': ', 1)[1]})"
        for name, detailed in zip(names, info.label_descriptions(detailed=True), strict=True)
    )


def make_network(backbone: str, classes: int, image_size: int | None = None) -> nn.Module:
    """The network as timm or torchvision makes it, with random weights, ready for `take_apart`.

    image_size: the side of its images in pixels, for networks that take one size alone; None: as
    its pretrained weights do.

    Raises UserError for an unknown backbone, for fewer than 1 class and for a size that it cannot
    be made for.
    """
    family(backbone)
    if classes < 1:
        raise UserError(f"a classifier of {classes} classes was asked for: expected at least 1")
    network = bare_network(backbone, classes, image_size)
    for layer in _classifiers(network):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            start_small(layer)
    return network


def bare_network(
    backbone: str, classes: int | None, image_size: int | None = None, *, pretrained: bool = False
) -> nn.Module:
    """The network of a name that `family` knows; classes: None: those of its weights."""
    usual = data_defaults(backbone).image_size
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if is_torchvisions(backbone):
        weights = torchvision_weights(backbone)
        name = backbone.removeprefix(TORCHVISION).partition(".")[0]
        make = partial(get_model, name, weights=weights if pretrained else None)
        if name in ("googlenet", "inception_v3"):
            # the second classifier works in training only; values of their own take long to draw
            options |= {"aux_logits": False, "init_weights": False}
        sized = "image_size" if image_size and name.startswith("vit_") else ""
    else:
        make = partial(timm.create_model, backbone, pretrained=pretrained)
        fixed = get_pretrained_cfg(backbone).fixed_input_size
        sized = "img_size" if fixed and image_size not in (None, usual) else ""
    if sized:
        options[sized] = image_size
    try:
        try:
            return cast(nn.Module, make(**options))
        except RuntimeError:  # a few compute with values, which the meta device has not
            if torch.get_default_device().type != "meta":
                raise
            with torch.device("cpu"):
                return cast(nn.Module, make(**options).to("meta"))
    except (TypeError, ValueError, AssertionError) as error:
        if not sized:
            raise
        raise UserError(
            f"backbone {backbone!r} cannot be made for images of {image_size} pixels: {error}; use "
            f"{usual} pixels"
        ) from error


def classifier_prefixes(network: nn.Module) -> tuple[str, ...]:
    """How the names of the classifier's tensors start in a network, such as "head.fc."."""
    layers = _classifiers(network)
    return tuple(
        f"{name}."
        for name, module in network.named_modules()
        if any(module is layer for layer in layers)
    )


def _classifiers(network: nn.Module) -> list[nn.Module]:
    """The layers that end a network: those that timm names, else its last linear layer."""
    if hasattr(network, "get_classifier"):
        found = network.get_classifier()  # type: ignore[operator]
        return list(found) if isinstance(found, tuple | list) else [found]
    kinds = nn.Linear, nn.Conv2d
    layers: list[nn.Module] = [part for part in network.modules() if isinstance(part, kinds)]
    return layers[-1:]
