"""Networks of timm, of torchvision and of one's own, taken apart: stem, blocks, neck, classifier.

Nothing else knows their classes; `nettailor.core.chain` takes apart what is of none of them.
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

from nettailor.core.chain import chain_of

Family = Literal["resnet", "inverted-residual", "convnext", "regnet", "own"]
ProxyShape = Literal["basic", "bottleneck"]

# The TensorFlow originals of some networks carry 0.01, with which the running statistics of a few
# hundred steps never arrive at the task's.
_BATCH_NORM_MOMENTUM = 0.1


class Parts(NamedTuple):
    """A network taken apart: see `nettailor.core.backbone.Backbone`, which is made of them.

    example: channels, height and width of the images that it was traced with; None: of any size.
    """

    family: Family
    stem: nn.Module
    blocks: Sequence[nn.Module]
    activations: Sequence[nn.Module]
    neck: nn.Module
    classifier: nn.Module
    stages: tuple[int, ...]
    example: tuple[int, ...] | None = None


def take_apart(network: nn.Module, example: Sequence[int] | None = None) -> Parts:
    """The parts of a network; they are moved, do not use it afterwards.

    Some of timm's families are known by class, so that the last activation of a block comes after
    the sum with what stands in for it; all others are traced with images of `example` (C, H, W).

    Raises UserError as `chain_of` does.
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
    chain = chain_of(network, example)
    resnet = isinstance(network, torchvision_resnet.ResNet)
    return Parts(
        "resnet" if resnet else "own",
        chain.stem,
        chain.blocks,
        [nn.Identity() for _ in chain.blocks],
        chain.neck,
        chain.classifier,
        chain.stages,
        chain.example,
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
