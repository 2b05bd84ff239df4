"""timm's pruned EfficientNets, whose channels follow no rule, as backbones of every road."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import lively_chain, quick_latency
from networks import student_of
from timm.models import get_pretrained_cfg

from nettailor.cli import eliminate, export, tailor, teach
from nettailor.core.backbone import Backbone, create_backbone, node_specs
from nettailor.core.cost import chain_costs, module_flops, parameters
from nettailor.core.latency import sample
from nettailor.network import load_network
from nettailor.prune.eliminate import eliminate as eliminate_top
from nettailor.prune.fold import fold
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.student.network import Student
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
SMALL = [
    "--backbone", "efficientnet_b1_pruned", "--weights", "none", "--image-size", "32",
    "--limit.train", "64", "--limit.test", "16", "--epochs", "1", "--batch-size", "8",
    "--device", "cpu", "--workers", "0",
]  # fmt: skip
NAME = "efficientnet_b1_pruned-32px"


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


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A teacher, a tailored network and one cut by two stages."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        quick_latency(patch)
        teach.main([*SMALL, "--out", str(folder)])
        eliminate.main([*SMALL, "--out", str(folder), "--top", "[2]", "--references", "[]"])
        tailor.main([*SMALL, "--out", str(folder), "--prune.tolerance", "100"])
    return folder / "digits"


def summary_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    return content


@pytest.mark.slow  # quick: export, narrowing and cuts of other backbones
@pytest.mark.parametrize(
    ("run", "form", "files"),
    [
        (f"teacher/{NAME}-seed0", Backbone, ["safetensors"]),  # the whole one takes ONNX a while
        (f"eliminated/{NAME}-stages2-seed0", Backbone, ["onnx", "safetensors"]),
        (f"tailored/{NAME}-all-gamma0.3-seed0", Student, ["onnx", "safetensors"]),
    ],
)
def test_every_road_ends_in_a_network_that_can_be_handed_over(out, tmp_path, run, form, files):
    network, architecture = load_network(out / run)
    assert isinstance(network, form)
    assert architecture.backbone == "efficientnet_b1_pruned"
    row = summary_of(out / run)
    assert row["params"]["total"] == parameters(network)
    export.main(["--run", str(out / run), "--to", str(tmp_path), "--format", *files])
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"model.{file}" for file in files), "architecture.json", "config.json", "README.md",
    }  # fmt: skip


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


@pytest.mark.slow  # quick: the one above, and the same of other backbones
def test_the_cut_networks_are_smaller(out):
    whole = summary_of(out / f"teacher/{NAME}-seed0")
    assert whole["blocks"]["universal"] == BLOCKS["efficientnet_b1_pruned"]
    for run in (f"eliminated/{NAME}-stages2-seed0", f"tailored/{NAME}-all-gamma0.3-seed0"):
        row = summary_of(out / run)
        assert row["flops"] < whole["flops"]
        assert row["params"]["total"] < whole["params"]["total"]
