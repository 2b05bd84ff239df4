"""Networks that train as branches are counted, timed, folded and exported as what they become."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from conftest import enliven
from networks import images, settle
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from timm.models.repvit import RepVit
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import nettailor as nt
from nettailor.core.branches import fuse_branches
from nettailor.core.cost import chain_costs, module_cost, module_flops, parameters
from nettailor.core.latency import sample, time_in_turn
from nettailor.figures import structure
from nettailor.prune.channels import trace_channels
from nettailor.prune.narrow import narrow
from nettailor.prune.plan import PrunePlan
from nettailor.student.latency_table import measure_paths
from nettailor.student.wiring import Path

CLASSES, SIDE = 5, 64


def repvgg(group_size: int = 0) -> nn.Module:
    block = partial(ByoBlockCfg, type="rep", br=1.0, gs=group_size, block_kwargs={})
    blocks = (block(d=1, c=16, s=2), block(d=2, c=24, s=2))
    return ByobNet(ByoModelCfg(blocks=blocks, stem_type="rep", stem_chs=16), num_classes=CLASSES)


def mobileone() -> nn.Module:
    """Depthwise and pointwise blocks in turn."""
    block = partial(ByoBlockCfg, type="one", d=1, br=1.0, block_kwargs={"num_conv_branches": 2})
    depthwise, pointwise = partial(block, c=16, gs=1), partial(block, c=16, s=1, gs=0)
    blocks = ([depthwise(s=2), pointwise()], [depthwise(s=1), pointwise()])
    return ByobNet(ByoModelCfg(blocks=blocks, stem_type="one", stem_chs=16), num_classes=CLASSES)


def fastvit() -> nn.Module:
    return FastVit(
        layers=(2, 1), embed_dims=(16, 32), num_classes=CLASSES, mlp_ratios=(2, 2),
        pos_embs=(None, partial(RepConditionalPosEnc, spatial_shape=(7, 7))),
        token_mixers=("repmixer", "attention"),
    )  # fmt: skip


MAKES: dict[str, Callable[[], nn.Module]] = {
    "repvgg": repvgg,
    "repvgg in groups": lambda: repvgg(8),
    "mobileone": mobileone,
    "fastvit": fastvit,
    "repvit": lambda: RepVit(embed_dim=(16, 24), depth=(1, 1), num_classes=CLASSES),
}
every = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


@cache
def backbone_of(make: Callable[[], nn.Module]) -> nt.Backbone:
    """Do not change it."""
    backbone = nt.Backbone(enliven(make()), example=images(1, SIDE))
    settle(backbone)
    return backbone


def apart(found: Tensor, expected: Tensor) -> float:
    assert float(expected.std(0).max()) > 1e-3 * float(expected.abs().max()), "images must show"
    return float((found - expected).abs().max() / expected.abs().max())


def branched(network: nn.Module) -> list[str]:
    """The modules with branches of their own to sum, by what timm calls these."""
    names = ("conv_kxk", "conv_1x1", "conv_scale", "large_conv", "pos_enc", "RepVggDw", "RepMixer")
    return [
        name
        for name, part in network.named_modules()
        if name.rpartition(".")[2] in names[:-2]
        or (type(part).__name__ in names and getattr(part, "reparam_conv", None) is None)
    ]


@every
@torch.no_grad()
def test_a_cut_student_is_fused_and_folded(make: Callable[[], nn.Module]) -> None:
    """Without every second block that can be skipped."""
    backbone = backbone_of(make)
    student = nt.Student(backbone)
    enliven(student)
    skipped = [path.target for path in student.wiring.of_kind("identity")][::2]
    assert skipped
    depth = student.wiring.depth
    route = [
        *(Path(n - 1, n, "identity" if n in skipped else "block") for n in range(1, depth)),
        Path(depth - 1, depth, "head"),
    ]
    small = nt.cut(student, PrunePlan.keeping("cut", student.wiring, route))
    settle(small)
    batch = images(3, SIDE)
    expected = small(batch).logits
    exact = nt.fold(deepcopy(small).double())
    assert apart(exact(batch.double()), small.double()(batch.double()).logits) < 1e-12
    small.float()
    plain = nt.fold(small)
    assert branched(small)
    assert not branched(plain)
    assert not [part for part in plain.modules() if "id_tensor" in vars(part)]
    assert apart(plain(batch), expected) < 1e-4
    assert torch.equal(small(batch).logits, expected), "folding leaves the network alone"
    assert parameters(plain) < parameters(small)
    # what is said of the network is said of the file; norms that timm leaves alone count with it
    told = structure(small, SIDE)
    assert told["flops"] == module_flops(small, (3, SIDE, SIDE))
    assert told["flops"] == module_flops(plain, (3, SIDE, SIDE))
    assert parameters(plain) <= told["params"]["total"] < parameters(small)


@every
def test_costs_are_those_of_the_fused_network(make: Callable[[], nn.Module]) -> None:
    """Part by part; and the whole as torch counts what timm makes of it."""
    backbone = backbone_of(make)
    costs = chain_costs(backbone, SIDE)
    fused = reparameterize_model(make().eval())
    assert costs.total.flops == module_cost(fused, (3, SIDE, SIDE)).flops
    for block, node, cost in zip(backbone.blocks, costs.nodes, costs.blocks, strict=False):
        assert module_cost(block, tuple(node.shape[1:])) == cost
    assert branched(backbone), "it stays as it was"


def test_costs_by_hand() -> None:
    """RepVGG's 3×3 convolution with a bias, 24 channels at 8×8; its 1×1 and its identity go."""
    block = chain_costs(backbone_of(repvgg), SIDE).blocks[2]
    assert block == (8 * 8 * 24 * 24 * 9, 24 * 24 * 9 + 24)


@torch.no_grad()
def test_what_is_fused_already_is_left_as_it_is() -> None:
    network = enliven(fastvit()).eval()
    fused = reparameterize_model(network)
    backbone = nt.Backbone(fused, example=images(1, SIDE))
    assert apart(nt.fold(backbone)(images(3, SIDE)), network(images(3, SIDE))) < 1e-4
    once = fuse_branches(network)
    parts = [*once.modules()]
    assert [*fuse_branches(once).modules()] == parts


def test_a_module_at_two_places_stays_one() -> None:
    block = repvgg().eval().stages[1][1]
    both = fuse_branches(nn.Sequential(block, block))
    assert both[0] is both[1]
    assert parameters(both) == 24 * 24 * 9 + 24


def test_what_trains_is_told_of_the_fused_network() -> None:
    """A frozen convolution with norms of the task is the task's; one frozen altogether is not."""
    backbone = deepcopy(backbone_of(repvgg)).requires_grad_(False)
    assert structure(backbone, SIDE)["params"]["task"] == 0
    block = backbone.blocks[2]
    for norm in (part for part in block.modules() if isinstance(part, _BatchNorm)):
        norm.requires_grad_(True)
    assert structure(backbone, SIDE)["params"]["task"] == 24 * 24 * 9 + 24


@pytest.mark.parametrize("kind", ["repvgg in groups", "mobileone"])
@torch.no_grad()
def test_a_narrow_network(kind: str) -> None:
    """Numbers of channels and groups that a module holds for itself are of its full width."""
    backbone = backbone_of(MAKES[kind])
    channels = trace_channels(backbone, SIDE)
    kept = np.ones(sum(len(family.items) for family in channels.families), dtype=bool)
    for family in channels.families:
        kept[family.items[: len(family.items) // 3]] = False
    small = narrow(backbone, channels, kept)
    settle(small)
    batch = images(3, SIDE)
    assert apart(nt.fold(small)(batch), small(batch).logits) < 1e-4


def test_times_are_those_of_the_fused_network() -> None:
    """Once for each pass, and the network itself does not run."""
    network = backbone_of(repvgg)
    ran = []
    for part in network.modules():
        part.register_forward_hook(lambda module, args, output: ran.append(module))
    plain, image = nt.fold(network), sample(1, 3, SIDE, torch.device("cpu"))
    ran.clear()
    times = time_in_turn({"it": plain}, {"it": image}, torch.device("cpu"), seconds=0)
    assert len(times["it"]) == 5
    assert ran
    assert not {"conv_kxk", "conv_1x1", "identity"} & {
        name.rpartition(".")[2] for part in ran for name, _ in part.named_modules()
    }
    assert branched(network)


def test_times_of_paths_are_those_of_deployed_blocks() -> None:
    """Of one layer each, without branches and norms, and the network itself does not run."""
    chain = backbone_of(repvgg)
    student = nt.Student(chain, exits=False)
    ran: dict[str, set[nn.Module]] = {"whole": set(), "blocks": set()}

    def note(name: str, module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.device.type != "meta":
            ran[name].add(module)

    for name, network in (("whole", chain), ("blocks", student.blocks)):
        for part in network.modules():
            part.register_forward_hook(partial(note, name))
    measure_paths(student, chain, SIDE, torch.device("cpu"), batch=1, seconds=0)
    for name, parts in ran.items():
        assert parts
        assert not any(isinstance(part, _BatchNorm) for part in parts), name
    assert not any(map(branched, ran["blocks"]))
    assert not (ran["whole"] | ran["blocks"]) & {*chain.modules(), *student.modules()}
    assert branched(chain)
    assert branched(student)
