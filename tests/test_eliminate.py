"""Fixed removal of the top: what stays, what is put on it, and what of that trains."""

from copy import deepcopy

import pytest
import torch
from conftest import lively_chain
from first_blocks import first_blocks
from networks import architecture_of
from torch import nn

from nettailor.core.architecture import EliminatedStructure
from nettailor.core.backbone import create_backbone, node_specs
from nettailor.core.cost import module_flops, parameters
from nettailor.core.errors import UserError
from nettailor.network import load_network, save_network
from nettailor.prune.eliminate import (
    eliminate,
    kept_blocks,
    units,
)
from nettailor.student.wiring import Path, Wiring

FAMILIES = (
    "tf_efficientnet_lite0", "mobilenetv3_small_100", "mnasnet_100", "test_resnet", "resnet18",
    "regnety_002", "convnext_atto",
)  # fmt: skip
LITE0_STAGES = (0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 5, 6)


def test_kept_blocks_of_lite0():
    assert [kept_blocks(LITE0_STAGES, "stages", top) for top in range(1, 7)] == [15, 11, 8, 5, 3, 1]
    assert [kept_blocks(LITE0_STAGES, "blocks", top) for top in (1, 15)] == [15, 1]
    assert units(LITE0_STAGES, "stages") == 7
    assert units(LITE0_STAGES, "blocks") == 16


def test_lite0_has_the_costs_that_the_field_reports():
    """ELimNet on EfficientNet-Lite0 at 64 px, 10 classes: shares of the whole network."""
    whole = create_backbone("tf_efficientnet_lite0", 10)
    flops, numbers = module_flops(whole, (3, 64, 64)), parameters(whole)
    shares = []
    for top in (1, 2, 3, 4):
        chain = create_backbone("tf_efficientnet_lite0", 10)
        rest = eliminate(chain, kept_blocks(chain.stages, "stages", top), replacement=False)
        shares.append((
            round(module_flops(rest, (3, 64, 64)) / flops, 3),
            round(parameters(rest) / numbers, 3),
        ))  # fmt: skip
    assert shares == [(0.899, 0.765), (0.672, 0.232), (0.429, 0.088), (0.316, 0.020)]


def test_resnet18_cut_by_two_stages_has_elimnets_size():
    """0.68 M parameters with 6 classes, against 11.17 M."""
    chain = create_backbone("resnet18", 6)
    rest = eliminate(chain, kept_blocks(chain.stages, "stages", 2), replacement=False)
    assert parameters(rest) == pytest.approx(0.68e6, rel=0.01)


@pytest.mark.parametrize(
    ("backbone", "activation"),
    [
        ("mobilenetv4_conv_small", nn.ReLU),  # in the norm of the head
        ("mobilenetv3_small_100", nn.Hardswish),  # beside it
        ("efficientnet_b0", nn.SiLU),
        ("mobilenetv1_100", nn.ReLU6),  # which has no convolution in its head
        ("test_efficientnet_evos", nn.ReLU6),  # whose norms have no activation apart
    ],
)
def test_the_head_is_as_non_linear_as_the_backbones_own(backbone, activation):
    rest = eliminate(create_backbone(backbone, 5), 2, replacement=False)
    assert isinstance(rest.neck.get_submodule("act"), activation)
    assert rest.classifier.in_features == 6 * node_specs(rest)[-1].channels


@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize("replacement", [False, True])
def test_every_cut_computes(backbone, replacement):
    """From the least to the most that can be cut off; of one backbone anything between as well."""
    whole = lively_chain(backbone)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = whole.nodes(images)
    most = units(whole.stages, "stages") - 1
    for top in range(1, most + 1) if backbone == "tf_efficientnet_lite0" else {1, most}:
        kept = kept_blocks(whole.stages, "stages", top)
        rest = eliminate(deepcopy(whole), kept, replacement=replacement).eval()
        with torch.no_grad():
            output = rest(images)
        assert output.logits.shape == (2, 5)
        if replacement:  # as large as what it replaces
            assert output.nodes[-1].shape == before[-1].shape
        # what is left computes what it did
        for node, (here, there) in enumerate(zip(output.nodes[: kept + 1], before, strict=False)):
            torch.testing.assert_close(here, there, msg=f"node {node}")
        assert len(rest.blocks) == len(rest.stages) == kept + replacement


def test_only_the_head_trains():
    chain = lively_chain("test_resnet")
    rest = eliminate(chain, 2, replacement=True)
    rest.freeze([rest.stem, *rest.blocks[:2], rest.neck], statistics=False)
    before = {name: tensor.clone() for name, tensor in rest.state_dict().items()}
    rest.train()
    optimizer = torch.optim.SGD([p for p in rest.parameters() if p.requires_grad], lr=0.1)
    rest(torch.randn(4, 3, 32, 32)).logits.square().sum().backward()
    optimizer.step()
    changed = {name for name, tensor in rest.state_dict().items() if not tensor.equal(before[name])}
    weights = {name for name in changed if "running" not in name and "tracked" not in name}
    assert weights == {
        "blocks.2.conv.weight", "blocks.2.norm.weight", "blocks.2.norm.bias",
        "classifier.weight", "classifier.bias",
    }  # fmt: skip
    # as in a student, the statistics follow the task
    assert any(name.startswith("blocks.0") and "running_mean" in name for name in changed)


@pytest.mark.parametrize("kept", [0, 4])
def test_a_cut_out_of_range(kept):
    chain = create_backbone("test_resnet", 5)
    assert len(chain.blocks) == 4
    with pytest.raises(ValueError, match="of 4 blocks"):
        eliminate(chain, kept, replacement=False)


def test_a_file_that_keeps_too_many_blocks_is_refused(tmp_path):
    rest = eliminate(lively_chain("test_resnet"), 2, replacement=False)
    architecture = architecture_of(eliminated=EliminatedStructure(blocks=4, replacement=False))
    save_network(tmp_path, rest, architecture)
    with pytest.raises(UserError, match="cannot keep 4 of 4 blocks"):
        load_network(tmp_path)


def test_first_blocks_as_a_cut_of_a_student():
    """Of four blocks the third has no identity; exits read the second and the fourth node."""
    blocks = [Path(node - 1, node, "block") for node in (1, 2, 3, 4)]
    identities = {node: Path(node - 1, node, "identity") for node in (1, 2, 4)}
    near, far, head = Path(2, 5, "exit"), Path(4, 5, "exit"), Path(4, 5, "head")
    wiring = Wiring(5, (*blocks, *identities.values(), near, far, head))

    def found(most):
        plan = first_blocks(wiring, lambda route: sum(one.kind == "block" for one in route), most)
        return plan and (plan.name, set(plan.kept.paths))

    assert found(4) == ("first-4", {*blocks, far})
    assert found(3) == ("first-3", {*blocks[:3], identities[4], far})
    assert found(2) == ("first-2", {*blocks[:2], near})
    assert found(1) == ("first-1", {blocks[0], identities[2], near})
    assert found(0) is None
    without = Wiring(5, (*blocks, far, head))
    assert first_blocks(without, len, 3) is None
