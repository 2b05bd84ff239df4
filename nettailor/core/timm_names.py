"""A whole chain's tensors under the names of timm's or torchvision's network, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from nettailor.core.backbone import backbone_of
from nettailor.core.families import make_network


def timm_names(backbone: str, image_size: int | None = None) -> dict[str, str]:
    """The network's name of every tensor of its chain for images of a size, by the chain's name.

    Raises UserError for an unknown or unsupported backbone.
    """
    with torch.device("meta"):
        network = make_network(backbone, 2, image_size)
    # taken apart, the network keeps its tensors themselves
    names = {id(tensor): name for name, tensor in network.state_dict(keep_vars=True).items()}
    tensors = backbone_of(network, image_size).state_dict(keep_vars=True)
    return {name: names[id(tensor)] for name, tensor in tensors.items()}


def to_timm(
    backbone: str, tensors: Mapping[str, Tensor], image_size: int | None = None
) -> dict[str, Tensor]:
    """Tensors of a chain under timm's names; those that it does not know keep theirs."""
    names = timm_names(backbone, image_size)
    return {names.get(name, name): tensor for name, tensor in tensors.items()}


def to_chain(
    backbone: str, tensors: Mapping[str, Tensor], image_size: int | None = None
) -> dict[str, Tensor]:
    """Tensors of a timm model under the chain's names; those that it does not know keep theirs."""
    names = timm_names(backbone, image_size)
    known = set(names.values())
    # two parts of a chain may share a tensor
    found = {own: tensors[timm] for own, timm in names.items() if timm in tensors}
    return found | {name: tensor for name, tensor in tensors.items() if name not in known}
