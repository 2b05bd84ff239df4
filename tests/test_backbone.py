"""A timm network taken apart computes what it computed whole."""

from copy import deepcopy

import pytest
import timm
import torch
from conftest import enliven
from networks import refused
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from nettailor.core.backbone import (
    Backbone,
    backbone_of,
    create_backbone,
    meta_copy,
    node_specs,
)
from nettailor.core.cost import chain_costs, module_flops, parameters
from nettailor.core.errors import UserError
from nettailor.core.families import classifier_prefixes, data_defaults, family, make_network
from nettailor.core.layout import NodeSpec
from nettailor.core.parts import proxy_shape
from nettailor.core.preprocessing import Preprocessing

CLASSES = 7
FAMILIES = {
    **dict.fromkeys(("test_resnet", "resnet18", "resnet26d", "seresnet18"), "resnet"),
    **dict.fromkeys((
        "test_efficientnet", "tf_efficientnet_lite0", "efficientnet_b0", "efficientnet_b1_pruned",
        "test_efficientnet_gn", "test_efficientnet_evos", "efficientnetv2_rw_t", "lcnet_035",
        "mobilenetv2_035", "mobilenetv3_small_050", "mobilenetv4_conv_small_035", "mnasnet_small",
    ), "inverted-residual"),
    **dict.fromkeys(("test_convnext", "convnext_atto"), "convnext"),
    **dict.fromkeys(("regnetx_002", "regnety_002", "regnetz_005"), "regnet"),
}  # fmt: skip


def stages_of(network: nn.Module) -> list[nn.Module]:
    """timm's own stages, whose outputs are nodes of the chain."""
    for container in ("blocks", "stages"):
        if hasattr(network, container):
            return list(network.get_submodule(container).children())
    prefix = "layer" if hasattr(network, "layer1") else "s"
    return [network.get_submodule(f"{prefix}{stage}") for stage in (1, 2, 3, 4)]


def check_same(network: nn.Module) -> Backbone:
    """The chain of a network, after checking its logits and stage outputs against timm's."""
    reference = enliven(network).eval()
    chain = backbone_of(deepcopy(reference)).eval()
    outputs: list[Tensor] = []
    for stage in stages_of(reference):
        stage.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = reference(images)
        logits, nodes = chain(images)
    assert (expected[0] - expected[1]).abs().max() > 1e-3, "the check needs images that differ"
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert len(nodes) == len(chain.blocks) + 1 == len(chain.stages) + 1
    for stage, output in enumerate(outputs):
        last = max(node for node, of in enumerate(chain.stages, start=1) if of == stage)
        torch.testing.assert_close(nodes[last], output, rtol=1e-5, atol=1e-5)
    assert len(outputs) == chain.stages[-1] + 1
    return chain


@pytest.mark.parametrize("backbone", FAMILIES)
def test_chain_computes_what_timm_computes(backbone):
    torch.manual_seed(0)
    network = make_network(backbone, CLASSES)
    whole = module_flops(network, (3, 64, 64)), parameters(network)
    assert chain_costs(backbone_of(deepcopy(network)), 64).total == whole, "its parts add up"
    chain = check_same(network)
    assert chain.family == family(backbone) == FAMILIES[backbone]
    assert isinstance(chain.classifier, nn.Linear)
    assert chain.classifier.out_features == CLASSES


def test_bottleneck_resnet():
    torch.manual_seed(0)
    narrow = ResNet(Bottleneck, (2, 1, 1, 2), num_classes=CLASSES, channels=(8, 12, 16, 24))
    chain = check_same(narrow)
    assert {proxy_shape(chain.blocks[block - 1]) for block in range(1, 7)} == {"bottleneck"}
    assert chain.stages == (0, 0, 1, 2, 3, 3)


def test_anti_aliased_convolutions_keep_their_activation():
    torch.manual_seed(0)
    check_same(
        timm.create_model("mobilenetv4_conv_small_035", num_classes=CLASSES, aa_layer="blurpool")
    )


@pytest.mark.parametrize("backbone", ["test_resnet", "regnetx_002", "lcnet_035"])
def test_last_activation_is_taken_after_the_sum(backbone):
    torch.manual_seed(0)
    chain = backbone_of(enliven(make_network(backbone, CLASSES)).eval())
    with torch.no_grad():
        nodes = chain.nodes(torch.randn(2, 3, 64, 64))
        for node, block, activation in zip(nodes, chain.blocks, chain.activations, strict=False):
            assert isinstance(activation, nn.ReLU | nn.Hardswish)
            assert block(node).min() < -0.4, "neither a ReLU nor a hard swish gives this"


def test_last_activation_of_a_plain_convolution_is_taken():
    chain = create_backbone("mobilenetv3_small_050", CLASSES)
    *others, last = chain.activations
    assert isinstance(last, nn.Hardswish)
    assert all(isinstance(other, nn.Identity) for other in others)


@pytest.mark.parametrize("backbone", ["test_resnet", "mobilenetv3_small_050", "regnetx_002"])
def test_activations_leave_their_input_alone(backbone):
    for activation in create_backbone(backbone, CLASSES).activations:
        node = -torch.ones(1, 1, 2, 2)
        activation(node)
        assert torch.equal(node, -torch.ones(1, 1, 2, 2))


def test_batch_norm_follows_the_task():
    network = timm.create_model("test_efficientnet", bn_momentum=0.01)

    def momenta(module):
        return {part.momentum for part in module.modules() if isinstance(part, nn.BatchNorm2d)}

    assert momenta(network) == {0.01}
    assert momenta(backbone_of(network)) == {0.1}


def test_node_specs_of_known_networks():
    assert node_specs(create_backbone("resnet18", CLASSES)) == tuple(
        NodeSpec(channels, stride)
        for channels, stride, count in ((64, 4, 3), (128, 8, 2), (256, 16, 2), (512, 32, 2))
        for _ in range(count)
    )
    lite0 = node_specs(create_backbone("tf_efficientnet_lite0", CLASSES))
    assert len(lite0) == 17
    assert [(*lite0[node][:2],) for node in (0, 1, -1)] == [(32, 2), (16, 2), (320, 32)]
    convnext = node_specs(create_backbone("convnext_atto", CLASSES))
    assert [spec.stride for spec in convnext] == [4] * 3 + [8] * 2 + [16] * 6 + [32] * 2


def test_probing_leaves_the_network_alone():
    chain = create_backbone("test_resnet", CLASSES).train()
    chain.stem.requires_grad_(False)
    before = deepcopy(chain.state_dict())
    copy = meta_copy(chain)
    node_specs(chain)
    assert chain.training
    assert not copy.training
    assert all(tensor.is_meta for tensor in copy.state_dict().values())
    assert [p.requires_grad for p in copy.parameters()] == [
        p.requires_grad for p in chain.parameters()
    ]
    for name, tensor in chain.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_proxy_shapes():
    mixed = create_backbone("test_resnet", CLASSES)
    shapes = ["basic", "basic", "bottleneck", "basic"]
    assert [proxy_shape(mixed.blocks[block - 1]) for block in (1, 2, 3, 4)] == shapes
    assert proxy_shape(create_backbone("regnetx_002", CLASSES).blocks[0]) == "bottleneck"
    for backbone in ("test_convnext", "test_efficientnet"):
        assert proxy_shape(create_backbone(backbone, CLASSES).blocks[0]) == "basic"


@pytest.mark.parametrize(
    ("backbone", "prefix"),
    [
        ("test_resnet", "fc."),
        ("test_efficientnet", "classifier."),
        ("mobilenetv3_small_050", "classifier."),
        ("test_convnext", "head.fc."),
        ("regnetx_002", "head.fc."),
    ],
)
def test_classifier_prefixes(backbone, prefix):
    assert classifier_prefixes(make_network(backbone, CLASSES)) == (prefix,)


def test_data_defaults():
    half = (0.5, 0.5, 0.5)
    lite2 = data_defaults("tf_efficientnet_lite2")
    assert lite2 == Preprocessing(260, half, half, "bicubic", 0.89)
    assert data_defaults("resnet34").mean == (0.485, 0.456, 0.406)
    swag = data_defaults("torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1")
    assert (swag.image_size, swag.interpolation, swag.crop_pct) == (384, "bicubic", 1.0)


def test_every_supported_backbone_has_data_defaults():
    supported = 0
    for backbone in timm.list_models():
        try:
            defaults = data_defaults(backbone)
        except UserError:
            continue
        supported += 1
        assert len(defaults.mean) == len(defaults.std) == 3
        assert 0 < defaults.crop_pct <= 1
    assert supported > 200


@pytest.mark.parametrize(
    ("backbone", "text"),
    [
        ("resnet81", "unknown backbone 'resnet81'.*did you mean 'resnet"),
        ("resnet18.nowhere", "unknown weights tag in 'resnet18.nowhere'.*resnet18.a1_in1k"),
        ("torchvision:resnet81", "torchvision has no such .*did you mean 'resnet18'"),
        ("torchvision:resnet18.V9", "unknown weights tag .*IMAGENET1K_V1"),
    ],
)
def test_backbones_that_cannot_be_used(backbone, text):
    for make in (family, data_defaults, lambda name: create_backbone(name, CLASSES)):
        with refused(text):
            make(backbone)


def test_what_makes_no_chain():
    assert family("resnet18.a1_in1k") == "resnet"  # a tag is part of a name
    assert family("torchvision:resnet18") == "own"
    with refused("classifier of 0 classes"):
        create_backbone("test_resnet", 0)
    with refused(r"Linear: for images .* it fails with RuntimeError"):
        backbone_of(nn.Linear(2, 2))
