"""A whole chain's tensors under the names of timm's or torchvision's network, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from nettailor.core.backbone import backbone_of
from nettailor.core.families import make_network


def _all_names(backbone: str, image_size: int | None) -> dict[str, list[str]]:
    """The network's names of every tensor of its chain, by the chain's; a shared one has several.

    Raises UserError for an unknown or unsupported backbone.
    """
    with torch.device("meta"):
        network = make_network(backbone, 2, image_size)
    # taken apart, the network keeps its tensors themselves
    names: dict[int, list[str]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    tensors = backbone_of(network, image_size).state_dict(keep_vars=True)
    return {name: names[id(tensor)] for name, tensor in tensors.items()}


def to_timm(
    backbone: str, tensors: Mapping[str, Tensor], image_size: int | None = None
) -> dict[str, Tensor]:
    """Tensors of a chain under timm's names; those that it does not know keep theirs."""
    names = _all_names(backbone, image_size)
    return {theirs: tensors[own] for own in tensors for theirs in names.get(own, [own])}


def to_chain(
    backbone: str, tensors: Mapping[str, Tensor], image_size: int | None = None
) -> dict[str, Tensor]:
    """Tensors of a timm model under the chain's names; those that it does not know keep theirs."""
    names = _all_names(backbone, image_size)
    known = {timm for theirs in names.values() for timm in theirs}
    found = {
        own: tensors[timm] for own, theirs in names.items() for timm in theirs if timm in tensors
    }
    return found | {name: tensor for name, tensor in tensors.items() if name not in known}
