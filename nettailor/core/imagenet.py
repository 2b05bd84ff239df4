"""What an untouched backbone tells: its classes' names."""

from collections import Counter

from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import get_pretrained_cfg

from nettailor.core.errors import UserError
from nettailor.core.families import family, is_torchvisions, torchvision_weights


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
