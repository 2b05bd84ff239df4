"""A timm network as a chain: stem, blocks, neck, classifier. Nothing else knows timm's classes."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Literal, NamedTuple, Self, TypeVar, cast

import timm
import torch
from timm.models import get_pretrained_cfg, model_entrypoint
from timm.models import regnet as timm_regnet
from timm.models import resnet as timm_resnet
from timm.models._efficientnet_blocks import ConvBnAct, DepthwiseSeparableConv
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core.errors import UserError, nearest

Family = Literal["resnet", "inverted-residual", "convnext", "regnet"]
ProxyShape = Literal["basic", "bottleneck"]
Module = TypeVar("Module", bound=nn.Module)

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
# Of a fresh classifier, small enough that training starts at a loss of about log(classes).
_CLASSIFIER_STD = 0.01
# A power of two that every supported stride (2 to 32) divides.
_PROBE_PIXELS = 256


class NetOutput(NamedTuple):
    """What a network computes for B images.

    logits: (B, classes).
    nodes: x_0 … x_L, each (B, C_l, H_l, W_l); None where a cut network has no such node any more.
    """

    logits: Tensor
    nodes: list[Tensor | None]


class NodeSpec(NamedTuple):
    """A node's channels and its stride, in input pixels per node pixel."""

    channels: int
    stride: int


class DataDefaults(NamedTuple):
    """How a backbone's pretrained weights expect their images.

    mean, std: per RGB channel of images in [0, 1]. interpolation: timm's name, such as "bicubic".
    crop_pct: the part of the resized image's side that a centre crop keeps, in (0, 1].
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float


class Chain(nn.Module):
    """A pretrained network as stem, blocks G_1 … G_L, neck and classifier.

    Node x_0 is the stem's output and x_l = act_l(G_l(x_{l-1})). The neck is what is universal
    after the last block, global pooling included; it gives the classifier (B, features).
    The activations never work in place, so that a node's sum can be read after them.

    family: the kind of backbone. stages: for each block, the stage it belongs to, from 0.
    """

    def __init__(
        self,
        family: Family,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        activations: Sequence[nn.Module],
        neck: nn.Module,
        classifier: nn.Module,
        stages: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.family: Family = family
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.activations = nn.ModuleList(activations)
        self.neck = neck
        self.classifier = classifier
        self.stages = stages
        self._resting: tuple[nn.Module, ...] = ()

    def freeze(self, parts: Sequence[nn.Module], *, statistics: bool) -> None:
        """Stop parts of the chain from training; what stays of all parameters belongs to the task.

        Args:
            parts: such as the stem and the blocks.
            statistics: the running statistics of their batch norms stay as well; otherwise they
                follow the task.
        """
        for part in parts:
            part.requires_grad_(False)
        if statistics:
            self._resting = tuple(parts)

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for parts whose statistics stay."""
        super().train(mode)
        for part in self._resting:
            part.eval()
        return self

    def nodes(self, images: Tensor) -> list[Tensor]:
        """x_0 … x_L, each (B, C_l, H_l, W_l), for images (B, 3, S, S)."""
        nodes: list[Tensor] = [self.stem(images)]
        for block, activation in zip(self.blocks, self.activations, strict=True):
            nodes.append(activation(block(nodes[-1])))
        return nodes

    def forward(self, images: Tensor) -> NetOutput:
        """The logits (B, classes) and every node for images (B, 3, S, S)."""
        nodes = self.nodes(images)
        return NetOutput(logits_of(self.classifier, self.neck(nodes[-1])), [*nodes])


def logits_of(classifier: nn.Module, features: Tensor) -> Tensor:
    """Logits (B, classes) of features (B, F); under autocast in the classifier's own precision.

    Rounded to bfloat16, the two largest of a thousand logits are often the same number.
    """
    device = features.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        features = features.to(next(classifier.parameters()).dtype)
        with torch.autocast(device, enabled=False):
            return cast(Tensor, classifier(features))
    return cast(Tensor, classifier(features))


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
    """The timm model as timm makes it, with random weights, ready for `cut`.

    Raises UserError for an unknown or unsupported backbone and for fewer than 1 class.
    """
    family(backbone)
    if classes < 1:
        raise UserError(f"a classifier of {classes} classes was asked for: expected at least 1")
    network: nn.Module = timm.create_model(backbone, num_classes=classes)
    start_small(network.get_classifier())  # type: ignore[operator]
    return network


def fresh_classifier(features: int, classes: int) -> nn.Linear:
    """A linear classifier (B, features) -> (B, classes) whose training starts at log(classes)."""
    classifier = nn.Linear(features, classes)
    start_small(classifier)
    return classifier


def start_small(classifier: nn.Linear) -> None:
    """Fresh weights for a classifier, in place: training starts at a loss of log(classes)."""
    # timm's EfficientNets draw from ±1/√classes: logits of ±10, whose first gradients tear the
    # pretrained blocks apart (a cosine of 0.47 with the stem's own filters was measured)
    nn.init.trunc_normal_(classifier.weight, std=_CLASSIFIER_STD)
    nn.init.zeros_(classifier.bias)


def head_activation(chain: Chain) -> nn.Module:
    """The activation after the head's convolution; the chain is one of inverted residuals.

    ReLU6 where the backbone has no such convolution.
    """
    named: dict[str, nn.Module] = dict(chain.neck.named_modules())
    for name in ("bn2.act", "norm_head.act", "act2"):
        if not isinstance(named.get(name, nn.Identity()), nn.Identity):
            return named[name]
    return nn.ReLU6()


def classifier_prefix(network: nn.Module) -> str:
    """How the names of the classifier's tensors start in a timm model, such as "head.fc."."""
    classifier = network.get_classifier()  # type: ignore[operator]
    return next(f"{name}." for name, module in network.named_modules() if module is classifier)


def cut(network: nn.Module) -> Chain:
    """A timm model taken apart into a chain; its parts are moved, so do not use it afterwards.

    Raises UserError for a model of a class that is not supported.
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
    raise UserError(
        f"{type(network).__name__} is not a chain that can be cut: "
        f"expected one of timm's {_SUPPORTED}"
    )


def create_chain(backbone: str, classes: int) -> Chain:
    """The chain of a timm model name with random weights; UserError as in `make_network`."""
    return cut(make_network(backbone, classes))


def meta_copy(module: Module) -> Module:
    """A copy on the meta device in evaluation mode: shapes without values, memory or arithmetic.

    The module itself is neither run nor changed.
    """
    memo: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in module.parameters()
    }
    memo |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return deepcopy(module, memo).eval()


def node_specs(chain: Chain) -> tuple[NodeSpec, ...]:
    """Channels and stride of the L + 1 nodes x_0 … x_L."""
    with torch.no_grad():
        nodes = meta_copy(chain).nodes(
            torch.empty(1, 3, _PROBE_PIXELS, _PROBE_PIXELS, device="meta")
        )
    return tuple(NodeSpec(node.shape[1], _PROBE_PIXELS // node.shape[2]) for node in nodes)


def proxy_shape(chain: Chain, block: int) -> ProxyShape:
    """Which proxy stands in for block G_l (`block` is l, from 1 to L): see the paper, section 4.

    "bottleneck" for the Bottleneck blocks of ResNet and RegNet; "basic" for all others, whose
    outputs are narrow enough for one 1×1 convolution.
    """
    bottlenecks = (timm_resnet.Bottleneck, timm_regnet.Bottleneck, timm_regnet.PreBottleneck)
    return "bottleneck" if isinstance(chain.blocks[block - 1], bottlenecks) else "basic"


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


def _chain(
    kind: Family,
    stem: nn.Module,
    stages: Iterable[Iterable[nn.Module]],
    neck: nn.Module,
    classifier: nn.Module,
) -> Chain:
    blocks = [(stage, block) for stage, members in enumerate(stages) for block in members]
    return Chain(
        kind,
        stem,
        [block for _, block in blocks],
        [_take_last_activation(block) for _, block in blocks],
        neck,
        classifier,
        tuple(stage for stage, _ in blocks),
    )


def _cut_resnet(network: nn.Module) -> Chain:
    return _chain(
        "resnet",
        _named(network, ("conv1", "bn1", "act1", "maxpool")),
        [network.get_submodule(f"layer{stage}").children() for stage in (1, 2, 3, 4)],
        _named(network, ("global_pool",)),
        network.get_submodule("fc"),
    )


def _cut_inverted_residuals(network: nn.Module, neck: tuple[str, ...]) -> Chain:
    return _chain(
        "inverted-residual",
        _named(network, ("conv_stem", "bn1")),
        [stage.children() for stage in network.get_submodule("blocks").children()],
        _named(network, neck),
        network.get_submodule("classifier"),
    )


def _cut_convnext(network: nn.Module) -> Chain:
    return _chain(
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


def _cut_regnet(network: nn.Module) -> Chain:
    return _chain(
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
