"""Networks of timm, of torchvision and of one's own, taken apart: stem, blocks, neck, classifier.

Nothing else knows the classes of timm and torchvision.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import timm
from timm.models import get_pretrained_cfg, model_entrypoint
from timm.models import regnet as timm_regnet
from timm.models import resnet as timm_resnet
from timm.models._efficientnet_blocks import ConvBnAct, DepthwiseSeparableConv
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import resnet as torchvision_resnet
from torchvision.models.efficientnet import EfficientNet as TorchvisionEfficientNet
from torchvision.models.mobilenetv2 import MobileNetV2 as TorchvisionMobileNetV2
from torchvision.models.mobilenetv3 import MobileNetV3 as TorchvisionMobileNetV3

from nettailor.core.classification import start_small
from nettailor.core.errors import UserError, nearest

Family = Literal["resnet", "inverted-residual", "convnext", "regnet", "own"]
ProxyShape = Literal["basic", "bottleneck"]

# The module of timm that makes a backbone tells its family without building it.
_FAMILY_OF_MODULE: dict[str, Family] = {
    "timm.models.resnet": "resnet",
    "timm.models.efficientnet": "inverted-residual",
    "timm.models.mobilenetv3": "inverted-residual",
    "timm.models.hardcorenas": "inverted-residual",
    "timm.models.convnext": "convnext",
    "timm.models.regnet": "regnet",
}
_SUPPORTED = (
    "ResNet (wide, ResNeXt, SE and d variants too), EfficientNet, MobileNet, MnasNet, ConvNeXt "
    "and RegNet"
)
# The TensorFlow originals of some networks carry 0.01, with which the running statistics of a few
# hundred steps never arrive at the task's.
_BATCH_NORM_MOMENTUM = 0.1


class Parts(NamedTuple):
    """A network taken apart: see `nettailor.core.backbone.Backbone`, which is made of them."""

    family: Family
    stem: nn.Module
    blocks: Sequence[nn.Module]
    activations: Sequence[nn.Module]
    neck: nn.Module
    classifier: nn.Module
    stages: tuple[int, ...]


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
            f"expected one of timm's {_SUPPORTED}"
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


def classifier_prefix(network: nn.Module) -> str:
    """How the names of the classifier's tensors start in a timm model, such as "head.fc."."""
    classifier = network.get_classifier()  # type: ignore[operator]
    return next(f"{name}." for name, module in network.named_modules() if module is classifier)


def take_apart(network: nn.Module) -> Parts:
    """The parts of a network of timm's or torchvision's; they are moved, do not use it afterwards.

    Raises UserError for a network of a class that is not supported.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = _BATCH_NORM_MOMENTUM
    match network:
        case timm_resnet.ResNet():
            return _cut_resnet(network)
        case EfficientNet():
            return _cut_inverted_residuals(network, ("conv_head", "bn2", "global_pool"))
        case MobileNetV3():
            neck = ("global_pool", "conv_head", "norm_head", "act2", "flatten")
            return _cut_inverted_residuals(network, neck)
        case ConvNeXt():
            return _cut_convnext(network)
        case timm_regnet.RegNet():
            return _cut_regnet(network)
        case torchvision_resnet.ResNet():
            return _cut_torchvision_resnet(network)
        case TorchvisionMobileNetV2() | TorchvisionMobileNetV3() | TorchvisionEfficientNet():
            return _cut_torchvision_features(network)
    raise UserError(
        f"{type(network).__name__} is not a chain that can be cut: "
        f"expected one of timm's {_SUPPORTED}, torchvision's ResNets, MobileNets or EfficientNets, "
        "or your own as Backbone(stem, blocks, head)"
    )


def proxy_shape(block: nn.Module) -> ProxyShape:
    """Which proxy stands in for a block: see the paper, section 4.

    "bottleneck" for the Bottleneck blocks of ResNet and RegNet; "basic" for all others, whose
    outputs are narrow enough for one 1×1 convolution.
    """
    bottlenecks = (
        timm_resnet.Bottleneck,
        timm_regnet.Bottleneck,
        timm_regnet.PreBottleneck,
        torchvision_resnet.Bottleneck,
    )
    return "bottleneck" if isinstance(block, bottlenecks) else "basic"


def own_parts(stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module) -> Parts:
    """The parts of anybody's network: images -> stem -> blocks, one after the other -> head.

    The classifier is the linear layer that ends the head where that is a sequence, else the head.
    """
    identities = [nn.Identity() for _ in blocks]
    return Parts("own", stem, list(blocks), identities, *_head_parts(head), (0,) * len(blocks))


def _named(network: nn.Module, names: Iterable[str]) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, network.get_submodule(name)) for name in names))


def _take_last_activation(block: nn.Module) -> nn.Module:
    """Takes the activation that ends a block out of it; an identity where the block ends linear."""
    owner: nn.Module = block
    match block:
        case timm_resnet.BasicBlock():
            name = "act2"
        case timm_resnet.Bottleneck() | timm_regnet.Bottleneck():
            name = "act3"
        # With a skip, the sum that follows the activation is linear; anti-aliasing after the
        # activation does not commute with it; EvoNorm, for one, has no activation apart.
        case ConvBnAct(has_skip=False, bn1=nn.Module(act=_) as owner, aa=nn.Identity()):
            name = "act"
        case DepthwiseSeparableConv(has_skip=False, has_pw_act=True, bn2=nn.Module(act=_) as owner):
            name = "act"
        case _:
            return nn.Identity()
    activation = owner.get_submodule(name)
    setattr(owner, name, nn.Identity())
    if hasattr(activation, "inplace"):
        activation.inplace = False  # type: ignore[assignment]
    return activation


def _parts(
    kind: Family,
    stem: nn.Module,
    stages: Iterable[Iterable[nn.Module]],
    neck: nn.Module,
    classifier: nn.Module,
) -> Parts:
    blocks = [(stage, block) for stage, members in enumerate(stages) for block in members]
    return Parts(
        kind,
        stem,
        [block for _, block in blocks],
        [_take_last_activation(block) for _, block in blocks],
        neck,
        classifier,
        tuple(stage for stage, _ in blocks),
    )


def _cut_resnet(network: nn.Module) -> Parts:
    return _parts(
        "resnet",
        _named(network, ("conv1", "bn1", "act1", "maxpool")),
        [network.get_submodule(f"layer{stage}").children() for stage in (1, 2, 3, 4)],
        _named(network, ("global_pool",)),
        network.get_submodule("fc"),
    )


def _cut_inverted_residuals(network: nn.Module, neck: tuple[str, ...]) -> Parts:
    return _parts(
        "inverted-residual",
        _named(network, ("conv_stem", "bn1")),
        [stage.children() for stage in network.get_submodule("blocks").children()],
        _named(network, neck),
        network.get_submodule("classifier"),
    )


def _cut_convnext(network: nn.Module) -> Parts:
    return _parts(
        "convnext",
        network.get_submodule("stem"),
        [_convnext_blocks(stage) for stage in network.get_submodule("stages").children()],
        *_neck_and_classifier(network, "norm_pre"),
    )


def _convnext_blocks(stage: nn.Module) -> list[nn.Module]:
    """A stage's blocks; its downsampling, which has no skip of its own, joins the first."""
    downsample = stage.get_submodule("downsample")
    first, *others = stage.get_submodule("blocks").children()
    if isinstance(downsample, nn.Identity):
        return [first, *others]
    return [nn.Sequential(OrderedDict(downsample=downsample, block=first)), *others]


def _cut_torchvision_resnet(network: nn.Module) -> Parts:
    # its blocks share one ReLU each between their convolutions and their end: it stays inside
    stages = [list(network.get_submodule(f"layer{stage}").children()) for stage in (1, 2, 3, 4)]
    blocks = [block for stage in stages for block in stage]
    return Parts(
        "resnet",
        _named(network, ("conv1", "bn1", "relu", "maxpool")),
        blocks,
        [nn.Identity() for _ in blocks],
        nn.Sequential(OrderedDict(avgpool=network.avgpool, flatten=nn.Flatten(1))),  # type: ignore[arg-type]
        network.get_submodule("fc"),
        tuple(number for number, stage in enumerate(stages) for _ in stage),
    )


def _cut_torchvision_features(network: nn.Module) -> Parts:
    """Networks whose `features` are a stem, stages or blocks, and a last convolution."""
    stem, *stages, last = network.get_submodule("features").children()
    split = [
        list(stage.children()) if type(stage) is nn.Sequential else [stage] for stage in stages
    ]
    blocks = [block for stage in split for block in stage]
    before, classifier = _head_parts(network.get_submodule("classifier"))
    neck = OrderedDict(last=last, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1))
    return Parts(
        "own",
        stem,
        blocks,
        [nn.Identity() for _ in blocks],
        nn.Sequential(neck | {"before": before}),
        classifier,
        tuple(number for number, stage in enumerate(split) for _ in stage),
    )


def _head_parts(head: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Neck and classifier: the linear layer that ends a sequence, and what comes before it."""
    if isinstance(head, nn.Sequential) and len(head) and isinstance(head[-1], nn.Linear):
        return nn.Sequential(*list(head)[:-1]), head[-1]
    return nn.Identity(), head


def _cut_regnet(network: nn.Module) -> Parts:
    return _parts(
        "regnet",
        network.get_submodule("stem"),
        [network.get_submodule(f"s{stage}").children() for stage in (1, 2, 3, 4)],
        *_neck_and_classifier(network, "final_conv"),
    )


def _neck_and_classifier(network: nn.Module, before: str) -> tuple[nn.Module, nn.Module]:
    """Parts a timm head, which pools and classifies, in two: the linear layer is the task's."""
    head = network.get_submodule("head")
    classifier = head.get_submodule("fc")
    head.fc = nn.Identity()
    return _named(network, (before, "head")), classifier
