"""timm's pruned EfficientNets, whose channels follow no rule, as backbones of every road."""

import pytest
import timm
import torch
from conftest import lively_chain
from networks import student_of
from timm.models import get_pretrained_cfg

from nettailor.core.backbone import create_backbone, node_specs
from nettailor.core.cost import chain_costs, module_flops, parameters
from nettailor.core.latency import sample
from nettailor.prune.eliminate import eliminate as eliminate_top
from nettailor.prune.fold import fold
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.student.wiring import Path as Way
from nettailor.student.wiring import Wiring

# Parameters in millions as timm's cards state them. Multiply-adds in billions at the size of the
# pretrained weights: Aflalo and others, 2020, took 44, 30 and 44 % off the 0.70, 1.0 and 1.8 of
# their originals.
PUBLISHED = {
    "efficientnet_b1_pruned": (6.33, 0.70 * 0.56),
    "efficientnet_b2_pruned": (8.31, 1.0 * 0.70),
    "efficientnet_b3_pruned": (9.86, 1.8 * 0.56),
}
BLOCKS = {"efficientnet_b1_pruned": 23, "efficientnet_b2_pruned": 23, "efficientnet_b3_pruned": 26}


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_counts_are_the_published_ones(backbone):
    with torch.device("meta"):
        chain = create_backbone(backbone, 1000)
    size = get_pretrained_cfg(backbone).input_size[1]
    assert parameters(chain) == pytest.approx(1e6 * PUBLISHED[backbone][0], rel=1e-3)
    assert module_flops(chain, (3, size, size)) == pytest.approx(
        1e9 * PUBLISHED[backbone][1], rel=0.025
    )


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_the_chain_is_timms_network_and_its_parts_add_up(backbone):
    chain = lively_chain(backbone)
    assert len(chain.blocks) == BLOCKS[backbone]
    total = chain_costs(chain, 64).total
    assert total == (module_flops(chain, (3, 64, 64)), parameters(chain))
    with torch.device("meta"):
        network = timm.create_model(backbone, num_classes=5)
    assert parameters(network) == parameters(chain)
    # channels follow no rule here, and a sum needs as many on both sides
    assert any(spec.channels % 8 for spec in node_specs(chain))
    images = sample(2, 3, 32, torch.device("cpu"))
    with torch.no_grad():
        plain, folded = chain(images).logits, fold(chain)(images)
    assert torch.isfinite(plain).all()
    torch.testing.assert_close(folded, plain, rtol=1e-4, atol=1e-4 * plain.abs().max().item())


def test_a_student_and_an_eliminated_network_of_one():
    """Channels that follow no rule are pooled and padded past, and read by lean heads."""
    student = student_of("efficientnet_b1_pruned", 1).eval()
    whole = module_flops(student, (3, 32, 32))
    ends = [path.source for path in student.wiring.of_kind("exit")]
    paths = [Way(node - 1, node, "identity") for node in range(1, ends[1] + 1)]
    kept = {path.target: path for path in student.wiring.of_kind("identity")}
    paths = [kept.get(path.target, Way(path.source, path.target, "block")) for path in paths]
    paths.append(Way(ends[1], student.wiring.depth, "exit"))
    plan = PrunePlan("route", student.wiring, Wiring(student.wiring.depth, tuple(paths)))
    for small in (
        remove(student, plan),
        eliminate_top(lively_chain("efficientnet_b1_pruned"), ends[-3], replacement=True),
    ):
        small.eval()
        assert torch.isfinite(small(sample(2, 3, 32, torch.device("cpu"))).logits).all()
        assert module_flops(small, (3, 32, 32)) < whole
