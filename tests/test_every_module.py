"""One small network of each module of timm, and some of torchvision's: a student, a route, a step.

pytest -m slow -n 0 tests/test_every_module.py
"""

import random
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from networks import architecture_of
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core.backbone import Backbone, backbone_of
from nettailor.core.cost import chain_costs, module_cost
from nettailor.core.families import make_network
from nettailor.network import load_network, save_network
from nettailor.prune.fold import fold
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.student.costs import path_costs, shares_of
from nettailor.student.loss import TailorLoss
from nettailor.student.network import Student
from nettailor.student.wiring import Path as Way

CLASSES = 4
LABELS = torch.arange(CLASSES)

# of each module an architecture of few multiply-adds
SMALLEST = [
    "beit_base_patch16_224", "halonet_h1", "test_byobnet", "cait_xxs24_224", "coat_tiny",
    "convit_tiny", "convmixer_768_32", "test_convnext", "cpubone_nano", "cs3darknet_focus_s",
    "cspnext_tiny", "csatv2", "davit_tiny", "deepseek_vit_412m", "deit_tiny_patch16_224",
    "densenet121", "dla46x_c", "dpn48b", "edgenext_xx_small", "efficientformer_l1",
    "efficientformerv2_s0", "test_efficientnet", "efficientvim_m1", "efficientvit_b0",
    "vit_tiny_patch16_dinov3_qkvb", "fasternet_t0", "fastvit_t8", "focalnet_tiny_srf",
    "gcvit_xxtiny", "ghostnet_050", "hardcorenas_b", "hgnetv2_b0", "hiera_tiny_224",
    "sam2_hiera_tiny", "hrnet_w18_small", "iformer_t", "inception_next_atto", "inception_resnet_v2",
    "inception_v3", "inception_v4", "lcnetv2_small", "levit_128s", "lowformer_b0", "test_mambaout",
    "test_coatnet", "poolformerv2_s12", "gmlp_ti16_224", "lcnet_035", "mobilenetv5_base",
    "mobilevit_xxs", "mobilevitv2_050", "mvitv2_tiny", "naflexvit_base_patch16_gap", "nest_tiny",
    "nextvit_small", "test_nfnet", "pit_ti_224", "pvt_v2_b0", "qwen3_vit_88m", "rdnet_tiny",
    "regnetx_002", "repghostnet_050", "repvit_m1", "res2next50", "resnest14d", "test_resnet",
    "resnetv2_18", "rexnet_100", "selecsls42", "legacy_seresnet18", "sequencer2d_s", "shvit_s1",
    "skresnet18", "starnet_s050", "swiftformer_xs", "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256", "swinv2_cr_tiny_224", "tiny_vit_5m_224", "tnt_s_legacy_patch16_224",
    "tresnet_m", "twins_svt_small", "vgg11", "visformer_tiny", "test_vit", "vit_tiny_r_s16_p8_224",
    "test_vit_relpos", "samvit_base_patch16_224", "vitamin_small_224", "volo_d1_224",
    "ese_vovnet19b_slim_dw", "torchvision:alexnet", "torchvision:inception_v3",
    "torchvision:squeezenet1_1", "legacy_xception", "xception41p", "xcit_nano_12_p8_224",
]  # fmt: skip
# of the least images that they take, where these are no 64 pixels
SIDES = {
    "deepseek_vit_412m": 70, "halonet_h1": 256, "convmixer_768_32": 70, "efficientformer_l1": 224,
    "legacy_xception": 71, "inception_resnet_v2": 107, "inception_v3": 107, "inception_v4": 107,
    "sequencer2d_s": 70, "torchvision:inception_v3": 107,
}  # fmt: skip
QUICK = ("test_convnext", "cspnext_tiny", "test_mambaout", "test_vit")
every = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SMALLEST],
)


def lively(network: nn.Module, images: Tensor) -> nn.Module:
    """With noise on all weights, and the statistics of these images.

    The noise is a twentieth of the weights' own spread, and 0.3 where they are all alike: scales of
    layers that begin near zero would hide what these compute.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        for parameter in network.parameters():
            spread = parameter.std() if parameter.numel() > 1 else torch.zeros(())
            alike = spread <= 1e-3 * parameter.abs().max()
            parameter.add_(torch.randn_like(parameter) * (0.3 if alike else 0.05 * spread))
        network.train()(images)
    return network.eval()


def close(mine: Tensor, theirs: Tensor, relative: float = 1e-5) -> None:
    """Relative to the largest number; the rows of two images differ by more."""
    assert (theirs[0] - theirs[1]).abs().max() > 2 * relative * theirs.abs().max()
    assert (mine - theirs).abs().max() <= relative * theirs.abs().max()


def pretrained_of(student: Student) -> list[Way]:
    """The blocks and the head."""
    return [path for path in student.wiring.paths if path.kind in ("block", "head")]


def along(student: Student, kept: Sequence[Way], images: Tensor) -> Tensor:
    """The logits with all weight on some paths."""
    logits = student.path_weights.logits
    before = logits.clone()
    for position, path in enumerate(student.wiring.paths):
        logits[position] = 100.0 if path in kept else -100.0
    answer = student(images).logits
    logits.copy_(before)
    return answer


def routed(student: Student, generator: random.Random) -> list[Way]:
    """A route drawn backwards from the logits.

    No identity on it adds channels: layers that read channels of zeros alone have no gradient.
    """
    node, paths = student.wiring.depth, []
    while node:
        incoming = [student.wiring.paths[position] for position in student.wiring.incoming[node]]
        wide = student.specs[node].channels if node < student.wiring.depth else 0
        paths.append(
            generator.choice(
                [
                    path
                    for path in incoming
                    if path.kind != "identity" or student.specs[path.source].channels == wide
                ]
            )
        )
        node = paths[-1].source
    return paths


def step(student: Student, loss: TailorLoss, images: Tensor) -> tuple[set[str], set[str]]:
    """The names of the parameters that have a gradient, and of the tensors that a step changes."""
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    moving = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(moving, lr=0.1)
    terms = loss(student.train(), images, LABELS)
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()
    led = {n for n, one in student.named_parameters() if one.grad is not None and one.grad.any()}
    state = student.state_dict().items()
    return led, {name for name, tensor in state if not torch.equal(tensor, before[name])}


def led_alone(backbone: Backbone, student: Student, images: Tensor) -> set[str]:
    """The student's pretrained parameters whose own have a gradient in the backbone by itself."""
    copy = deepcopy(backbone).train().requires_grad_(True)
    nn.functional.cross_entropy(copy(images).logits, LABELS).backward()
    own = {name: one.grad for name, one in copy.named_parameters()}
    depth = len(backbone.blocks)
    places = {
        f"blocks.block-{number}-{number + 1}.": f"blocks.{number}." for number in range(depth)
    }
    places |= {f"heads.head-{depth}-{depth + 1}.": "", "stem.": "stem."}
    found = set()
    for name, _ in student.named_parameters():
        for start, own_start in places.items():
            grad = own[own_start + name.removeprefix(start)] if name.startswith(start) else None
            # what a batch norm takes away again has a gradient of rounding alone
            if grad is not None and grad.abs().max() > 1e-6:
                found.add(name)
    return found


def the_student_is_the_network(backbone: Backbone, whole: nn.Module, images: Tensor) -> None:
    """With all weight on the pretrained paths; adapters add nothing yet."""
    student = Student(backbone, skips=1, adapters=True).eval()
    with torch.no_grad():
        close(along(student, pretrained_of(student), images), whole(images))


def costs_add_up(student: Student, backbone: Backbone, whole: nn.Module, side: int) -> None:
    """Stem, blocks and head to the whole network, as it is counted by itself."""
    costs, total = path_costs(student, backbone, side)
    # a norm before the classifier, which timm fuses, is a part by itself in the chain
    assert total == pytest.approx(module_cost(whole, (3, side, side)), rel=5e-3)
    cost = dict(zip(student.wiring.paths, costs, strict=True))
    found = [cost[path] for path in pretrained_of(student)]
    stem = chain_costs(backbone, side).stem
    assert sum(one.flops for one in found) + stem.flops == total.flops
    assert sum(one.parameters for one in found) + stem.parameters == total.parameters


def a_route_is_kept(student: Student, plan: PrunePlan, images: Tensor, folder: Path) -> None:
    """Cut, saved, loaded and folded it says what the student does on it; folded, so does that."""
    with torch.no_grad():
        expected = along(student, plan.kept.paths, images)
        small = remove(student, plan).eval()
        close(small(images).logits, expected)
        save_network(folder, small, architecture_of(folder.name, CLASSES, images.shape[-1]))
        loaded, _ = load_network(folder)
        close(loaded(images).logits, expected)
        # in float64: norms that are folded round otherwise, and ConvMixer has 65 in a row
        for network in (loaded, student):
            exact, many = deepcopy(network).double(), images.double()
            close(fold(exact)(many), exact(many).logits, 1e-6)


def a_step_moves_the_tasks(
    student: Student, loss: TailorLoss, images: Tensor, alone: set[str]
) -> None:
    """Of shared blocks norms and statistics; all that the task has but what a zero stands before.

    alone: the parameters that have a gradient in the backbone by itself.
    """
    led, moved = step(student, loss, images)
    every_one = {name for name, _ in student.named_parameters()}
    free = {name for name, one in student.named_parameters() if one.requires_grad}
    assert led <= free
    assert moved & every_one <= free
    assert {name for name in student.state_dict() if "running_" in name} <= moved
    # the last norm of an adapter begins at zero, and its layers move after it
    later = {n for n in free if n.startswith("adapters") and (".conv." in n or ".squeeze." in n)}
    head = {name for name in free if name.startswith("heads.head")}
    tasks = {name for name in free if name.startswith(("proxies", "adapters", "heads", "path"))}
    assert (alone & free) | (tasks - later - head) <= led


def a_step_moves_all(student: Student, loss: TailorLoss, images: Tensor, alone: set[str]) -> None:
    """All layers that are left, with their statistics; a proxy's norm takes biases away."""
    led, moved = step(student, loss, images)
    own = dict(student.named_parameters())
    fresh = {name for name in own if name.startswith(("proxies", "heads.exit"))}
    assert {name for name in alone & own.keys() if own[name].ndim > 1} | fresh <= led
    assert {name for name in student.state_dict() if "running_" in name} <= moved


@every
def test_from_a_network_to_a_route_and_a_step(name: str, tmp_path: Path) -> None:
    side = SIDES.get(name, 64)
    noise = torch.randn(2 * CLASSES, 3, side, side, generator=torch.Generator().manual_seed(1))
    images, others = noise.chunk(2)  # of the others the statistics are not known yet
    network = lively(make_network(name, CLASSES, side), images)
    whole = deepcopy(network)
    backbone = backbone_of(network, side).eval()
    the_student_is_the_network(backbone, whole, images)
    student = Student(backbone, skips=1).eval()
    costs_add_up(student, backbone, whole, side)
    plan = PrunePlan.keeping("route", student.wiring, routed(student, random.Random(2)))
    (tmp_path / name).mkdir()
    a_route_is_kept(student, plan, images, tmp_path / name)
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    shares = shares_of(student, backbone, side, "flops").paths
    loss = TailorLoss(backbone, costs=lambda _: shares)
    shared = Student(backbone, skips=1, adapters=True, shared=True)
    alone = led_alone(backbone, shared, others)
    small = remove(student, plan)
    a_step_moves_the_tasks(shared, loss, others, alone)
    a_step_moves_all(student, loss, others, alone)
    a_step_moves_all(small, loss.after_cut(), others, alone)
    assert not backbone.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())
