"""What others call the tensors of a network that timm has as well."""

import sys
from contextlib import suppress
from inspect import signature

from torch import Tensor, nn

from nettailor.core.families import classifier_prefixes, is_torchvisions

# torchvision has the same networks under other names, in the same order. Its MobileNetV3,
# EfficientNetV2 and the larger EfficientNets compute something else.
_TORCHVISION_ORDER = (
    "mobilenetv2_100", "mnasnet_100", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2",
    "efficientnet_b3", "efficientnet_b4",
)  # fmt: skip

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def under_timms_names(
    state: dict[str, Tensor], network: nn.Module, architecture: str
) -> dict[str, Tensor]:
    """A state under the network's names, where its own are torchvision's or the authors'.

    What timm fits to the size of the images, such as position embeddings, is fitted. Names that
    nobody knows stay as they are.
    """
    own = {name: t for name, t in network.state_dict().items() if not is_counter(name)}
    if is_torchvisions(architecture):
        # second classifiers, which work in training only
        return {name: t for name, t in state.items() if not name.startswith(_AUXILIARY)}
    classifier = classifier_prefixes(network)
    if all(
        name in state and (name.startswith(classifier) or state[name].shape == tensor.shape)
        for name, tensor in own.items()
    ):
        return state
    module = sys.modules[type(network).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if convert is not None:
        takes_network = len(signature(convert).parameters) > 1
        # timm's conversions expect what they know and fail in any way on other names
        with suppress(Exception):
            converted: dict[str, Tensor] = convert(dict(state), *[network] * takes_network)
            if own.keys() <= converted.keys():
                return converted
    given = {name: tensor for name, tensor in state.items() if not is_counter(name)}
    if (
        architecture in _TORCHVISION_ORDER
        and next(iter(given), "").startswith(("features.", "layers."))
        and [kind_of(name) for name in given] == [kind_of(name) for name in own]
    ):
        return dict(zip(own, given.values(), strict=True))
    return state


def kind_of(name: str) -> str:
    """What a tensor is to its layer: "weight", "bias", "running_mean" and so on."""
    return name.rsplit(".", 1)[-1]


def is_counter(name: str) -> bool:
    """Whether this is num_batches_tracked, which old files lack and which changes no output."""
    return name.endswith("num_batches_tracked")
