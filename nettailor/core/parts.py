"""Networks of timm, of torchvision and of one's own, taken apart: stem, blocks, neck, classifier.

Nothing else knows their classes.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

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

from nettailor.core.errors import UserError

Family = Literal["resnet", "inverted-residual", "convnext", "regnet", "own"]
ProxyShape = Literal["basic", "bottleneck"]

SUPPORTED = (
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
        f"expected one of timm's {SUPPORTED}, torchvision's ResNets, MobileNets or EfficientNets, "
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
