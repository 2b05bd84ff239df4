"""Networks of tokens and of (B, H, W, C) from the parts to the folded network."""

import random
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from conftest import enliven
from layouts import CLASSES, NETWORKS, hybrid, images_for, odd, swin, vit, windowed
from networks import drawn_route
from test_api import digits
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

import nettailor as nt
from nettailor.core.backbone import meta_copy, node_specs
from nettailor.core.cost import chain_costs, check_image_size, module_flops, parameters
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.core.files import load_exactly, read_weights, write_weights
from nettailor.core.layout import NodeSpec
from nettailor.deploy.onnx_file import load_onnx, to_onnx
from nettailor.prune.channels import trace_channels
from nettailor.prune.eliminate import eliminate
from nettailor.prune.statistics import reestimate
from nettailor.student.costs import path_costs

every = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
CPU = torch.device("cpu")


def close(mine: Tensor, theirs: Tensor, relative: float = 1e-5) -> None:
    """Relative to the largest number."""
    assert (mine - theirs).abs().max() <= relative * theirs.abs().max()


@every
def test_the_parts_are_the_network(make: Any) -> None:
    """So is a student with all weight on the pretrained paths, and both in channels-last order."""
    network, backbone = make()
    images = images_for(backbone)
    student = nt.Student(backbone, skips=2, adapters=True).eval()
    with torch.no_grad():
        for path, logit in zip(student.wiring.paths, student.path_weights.logits, strict=True):
            logit.fill_(100.0 if path.kind in ("block", "head") else -100.0)
        expected = network(images)
        assert (expected[0] - expected[1]).abs().max() > 1e-3, "the check needs images that differ"
        close(backbone(images).logits, expected)
        close(student(images).logits, expected)
        last = images.contiguous(memory_format=torch.channels_last)
        close(place(student, CPU)(last).logits, expected)


def test_the_nodes_that_are_found() -> None:
    assert node_specs(vit()[1]) == (NodeSpec(64, 16, "tokens", 1),) * 7
    assert node_specs(vit(96, 2)[1])[0] == NodeSpec(64, 16, "tokens", 3)
    assert node_specs(vit(class_token=False)[1])[0] == NodeSpec(64, 16, "tokens")
    found = (NodeSpec(16, 4, "nhwc"),) * 3 + (NodeSpec(32, 8, "nhwc"),) * 2
    assert node_specs(swin()[1]) == found
    assert swin()[1].stages == (0, 0, 1, 1)
    maps, tokens = NodeSpec(8, 4), NodeSpec(12, 8, "tokens")
    assert node_specs(hybrid()[1]) == (maps, maps, tokens, tokens, tokens)
    wide, narrow = NodeSpec(8, Fraction(32, 15)), NodeSpec(12, Fraction(32, 7))
    # 4 = ceil(7 / 2), and 8 divides 32
    last = NodeSpec(16, Fraction(64, 7))
    assert node_specs(odd()[1]) == (wide, wide, narrow, narrow, last)
    maps, windows = NodeSpec(8, 4), NodeSpec(8, 4, "nhwc", 0, (4, 16))
    assert node_specs(windowed()[1]) == (maps, windows, windows, windows, maps)


@every
def test_costs_add_up(make: Any) -> None:
    """The parts to the whole network, which torch counts as well; FLOPs are two multiply-adds."""
    network, backbone = make()
    images = torch.empty(1, *backbone.example, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        meta_copy(network)(images)
    costs = chain_costs(backbone, backbone.example[1])
    assert costs.total == (counter.get_total_flops() // 2, parameters(network))
    student = nt.Student(backbone, skips=2)
    paths, total = path_costs(student, backbone, backbone.example[1])
    own = [
        cost
        for path, cost in zip(student.wiring.paths, paths, strict=True)
        if path.kind in ("block", "head")
    ]
    assert total == costs.total
    assert sum(cost.flops for cost in own) == total.flops - costs.stem.flops
    for path, cost in zip(student.wiring.paths, paths, strict=True):
        if path.kind == "proxy":
            source, target = student.specs[path.source], student.specs[path.target]
            side = ceil(backbone.example[1] / target.stride)
            positions = target.prefix + side**2
            assert cost.flops == positions * source.channels * target.channels
            assert cost.parameters == source.channels * target.channels + 2 * target.channels


def test_attention_by_hand() -> None:
    """17 tokens of 64 channels: keys, queries, values and output, and the two products."""
    costs = chain_costs(vit()[1], 64)
    attention = 17 * 64 * 4 * 64 + 2 * 17 * 17 * 64
    assert [cost.flops for cost in costs.blocks] == [attention, 17 * 2 * 64 * 192] * 3
    assert costs.neck.flops == 0
    # windows of 4×4 in Swin: 16 of them in the first stage, 16 channels in two heads of 8
    swins = chain_costs(swin()[1], 64).blocks[0].flops
    windows = 16 * (16 * 16 * 4 * 16 + 2 * 16 * 16 * 16)
    assert swins == windows + 256 * 2 * 16 * 64 + 0


@every
def test_random_routes_cut_saved_loaded_and_folded(make: Any, tmp_path: Path) -> None:
    _, backbone = make()
    images, generator = images_for(backbone), random.Random(1)
    student = enliven(nt.Student(backbone, skips=2)).eval()
    with torch.no_grad():
        close(nt.fold(student)(images), student(images).logits, 1e-4)
        for number in range(4):
            plan = drawn_route(student, generator)
            small = nt.cut(student, plan)
            expected = small(images).logits
            file = tmp_path / f"{number}.safetensors"
            write_weights(file, small)
            again = nt.Student(backbone, wiring=plan.kept).eval()
            load_exactly(again, read_weights(file), file)
            assert torch.equal(again(images).logits, expected)
            folded = nt.fold(again)
            assert isinstance(folded, nn.Sequential)
            close(folded(images), expected, 1e-4)


def test_tailored_at_once() -> None:
    """timm's test_vit in parts, from a teacher to the folded network, on real digits."""
    train, val = (DataLoader(one, batch_size=40, shuffle=True) for one in digits())
    _, parts = vit(32)
    head = nn.Sequential(*parts.neck, nn.Linear(64, 10))
    backbone = nt.Backbone(parts.stem, parts.blocks, head, example=torch.zeros(1, 3, 32, 32))
    small = nt.tailor(
        backbone, train, val, max_flops=0.6, teacher_epochs=2, student_epochs=2,
        finetune_epochs=2, verbose=False,
    )  # fmt: skip
    share = module_flops(small, (3, 32, 32)) / chain_costs(backbone, 32).total.flops
    assert 0.3 < share <= 0.6
    images = next(iter(val))[0]
    with torch.no_grad():
        assert small(images).shape == (40, 10)


@pytest.mark.parametrize("make", [hybrid, odd])
def test_exported(make: Any) -> None:
    """The folded student with all of its paths, proxies included."""
    _, backbone = make()
    student = enliven(nt.Student(backbone, skips=2)).eval()
    plain, images = nt.fold(student), images_for(backbone, 3)
    answer = load_onnx(to_onnx(plain, backbone.example[1], {}))
    with torch.no_grad():
        close(answer(images).logits, plain(images), 1e-4)


def test_statistics_of_networks_without_any(accelerator: Accelerator) -> None:
    """No batch is read where no norm has running statistics; those of proxies are averaged."""
    _, backbone = vit()
    student = nt.Student(backbone)
    reestimate(student, iter([None]), accelerator)  # type: ignore[list-item]
    with_proxies = nt.Student(backbone, skips=1)
    before = with_proxies.proxies["proxy-0-1"].norm.running_mean.clone()
    reestimate(with_proxies, [(images_for(backbone), torch.zeros(2))], accelerator)
    assert not torch.equal(with_proxies.proxies["proxy-0-1"].norm.running_mean, before)


def test_fixed_removal_after_tokens() -> None:
    """The pretrained neck is copied where nodes are alike; a class token is no map."""
    images = torch.randn(2, 3, 64, 64)
    _, backbone = vit()
    with torch.no_grad():
        node = backbone(images).nodes[3]
        expected = backbone.neck(node)
        rest = eliminate(backbone, 3, replacement=False)
        close(rest(images).logits, rest.classifier(expected))
    assert rest.classifier.out_features == CLASSES
    with pytest.raises(UserError, match="the tokens after the last block are no map"):
        eliminate(vit()[1], 3, replacement=True)
    replaced = enliven(eliminate(swin()[1], 2, replacement=True)).eval()
    with torch.no_grad():
        output = replaced(images)
        assert [tuple(node.shape) for node in output.nodes[2:]] == [(2, 16, 16, 16), (2, 8, 8, 32)]
        maps = F.max_pool2d(output.nodes[2].permute(0, 3, 1, 2), 3, 2, 1)
        last = replaced.blocks[-1]
        torch.testing.assert_close(output.nodes[3], last.norm(last.conv(maps)).permute(0, 2, 3, 1))
        close(nt.fold(replaced)(images), output.logits, 1e-4)


@pytest.mark.parametrize(
    ("make", "layer", "heads"),
    [(vit, "stem.patch_embed", 6), (swin, "stem", 12), (hybrid, "blocks.1", 0)],
)
def test_channels_of_layers_and_heads_can_go(make: Any, layer: str, heads: int) -> None:
    channels = trace_channels(make()[1], make()[1].example[1])
    assert next(iter(channels.stays)) == layer
    assert sum(map(len, channels.heads.values())) == heads
    assert channels.count > heads


def test_sizes_of_images() -> None:
    _, backbone = vit()
    check_image_size(backbone, 64)
    with pytest.raises(UserError, match=r"image size 80: .* with images of 64×64, does not take"):
        chain_costs(backbone, 80)
    _, free = hybrid()
    check_image_size(free, 96)
    assert chain_costs(free, 96).total.flops > 2 * chain_costs(free, 64).total.flops
    with pytest.raises(UserError, match="needs a multiple of 8 pixels, such as 96"):
        check_image_size(free, 99)
    for make, pixels in ((odd, 30), (windowed, 48)):
        check_image_size(make()[1], 32)
        with pytest.raises(UserError, match=f"measured with images of 32×32: .*{pixels}×{pixels}"):
            check_image_size(make()[1], pixels)
