"""Paths between nodes of any layout: which there are, what proxies and exits make of them."""

import pytest
import torch
import torch.nn.functional as F
from conftest import enliven
from layouts import CLASSES, hybrid, images_for, odd, swin, vit, windowed
from networks import exit_of
from torch import Tensor, nn

import nettailor as nt
from nettailor.core.backbone import node_specs
from nettailor.core.layout import NodeSpec
from nettailor.student.wiring import Path as Way


def test_paths_between_layouts_by_hand() -> None:
    """Maps of 8×8 and 8 channels, then 4×4 tokens of 12: pooled, padded with zeros, or 1×1."""
    _, backbone = hybrid()
    student = enliven(nt.Student(backbone, skips=2)).eval()
    images = images_for(backbone)
    with torch.no_grad():
        alpha = dict(zip(student.wiring.paths, student.path_weights().tolist(), strict=True))
        nodes = [node for node in student(images).nodes if node is not None]
        tokens = F.max_pool2d(nodes[1], 3, 2, 1).flatten(2).transpose(1, 2)
        expected = alpha[Way(1, 2, "block")] * backbone.blocks[1](nodes[1])
        expected = expected + alpha[Way(1, 2, "identity")] * F.pad(tokens, (0, 4))
        for source in (0, 1):
            pooled = F.max_pool2d(nodes[source], 3, 2, 1).flatten(2).transpose(1, 2)
            proxy = student.proxies[f"proxy-{source}-2"]
            linear = pooled @ proxy.conv.weight.flatten(1).T
            norm = proxy.norm
            scaled = (linear - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
            term = scaled * norm.weight + norm.bias
            expected = expected + alpha[Way(source, 2, "proxy")] * term
        torch.testing.assert_close(nodes[2], expected, rtol=1e-4, atol=1e-5)


def test_paths_without_a_meaning_are_not_there() -> None:
    """A class token cannot be made of maps: neither by a proxy nor by the identity."""

    class WithClass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(8, 8, 1), nn.LayerNorm(8)
            self.token = nn.Parameter(torch.randn(1, 1, 8))

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.conv(x).flatten(2).transpose(1, 2)
            return self.norm(torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], dim=1))

    stem, tokens = nn.Conv2d(3, 8, 4, 4), WithClass()
    head = nn.Linear(8, CLASSES)

    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 0]

    parts = stem, [nn.Conv2d(8, 8, 3, padding=1), tokens, nn.LayerNorm(8)]
    example = torch.zeros(1, 3, 32, 32)
    backbone = nt.Backbone(*parts, nn.Sequential(First(), head), example=example)
    assert node_specs(backbone)[2:] == (NodeSpec(8, 4, "tokens", 1),) * 2
    paths = nt.Student(backbone, skips="dense", adapters=True).wiring.paths
    assert {(path.source, path.target) for path in paths if path.kind == "proxy"} == {
        (0, 1), (2, 3),
    }  # fmt: skip
    assert {path.target for path in paths if path.kind == "identity"} == {1, 3}
    assert set(nt.Student(backbone, adapters=True).adapters) == {"block-0-1", "block-2-3"}


def ways(student: nt.Student, kind: str) -> set[tuple[int, int]]:
    """Source and target of the paths of a kind."""
    paths = student.wiring.paths
    return {(path.source, path.target) for path in paths if path.kind == kind}


def test_paths_between_nodes_of_one_side_or_that_pooling_leads_to() -> None:
    """Maps of 15, 15, 7, 7 and 4 pixels; maps, three nodes of windows, and the same maps."""
    student = nt.Student(odd()[1], skips="dense", adapters=True)
    assert ways(student, "proxy") == {(0, 1), (2, 3), (2, 4), (3, 4)}
    assert ways(student, "identity") == {(0, 1), (2, 3), (3, 4)}
    assert set(student.adapters) == {"block-0-1", "block-2-3", "block-3-4"}
    student = nt.Student(windowed()[1], skips="dense", adapters=True)
    assert ways(student, "proxy") == {(1, 2), (1, 3), (2, 3), (0, 4)}
    assert ways(student, "identity") == {(1, 2), (2, 3)}


def test_exits_by_hand() -> None:
    """Norm, class token or mean, linear; the pretrained neck where the node is like the last."""
    x = torch.randn(2, 17, 64)
    _, backbone = vit()
    like = exit_of(backbone, NodeSpec(64, 16, "tokens", 1))
    norm = backbone.neck[0]
    with torch.no_grad():
        expected = like.classifier(F.layer_norm(x, (64,), norm.weight, norm.bias, norm.eps)[:, 0])
        torch.testing.assert_close(like(x), expected)
        for spec, read in (
            (NodeSpec(32, 16, "tokens", 2), lambda y: y[:, 0]),
            (NodeSpec(32, 16, "tokens"), lambda y: y.mean(1)),
        ):
            other, y = exit_of(backbone, spec), torch.randn(2, 18, 32)
            normed = F.layer_norm(y, (32,), eps=1e-6)
            torch.testing.assert_close(other(y), other.classifier(read(normed)))
        stage, z = exit_of(swin()[1], NodeSpec(16, 4, "nhwc")), torch.randn(2, 4, 4, 16)
        means = F.layer_norm(z, (16,), eps=1e-6).mean((1, 2))
        torch.testing.assert_close(stage(z), stage.classifier(means))
    pointers = {weight.data_ptr() for weight in backbone.parameters()}
    assert not pointers & {weight.data_ptr() for weight in like.parameters()}, "shared weights"


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("class_token", [True, False])
def test_fresh_exits_read_what_the_head_reads(registers: int, class_token: bool) -> None:
    """The class token is the first where there is one; registers say nothing of the class."""
    _, backbone = vit(96, registers, class_token=class_token)
    node = node_specs(backbone)[-1]._replace(channels=32)
    assert node.prefix == registers + class_token
    fresh, x = exit_of(backbone, node), torch.randn(2, node.prefix + 36, 32)
    normed = F.layer_norm(x, (32,), eps=1e-6)
    read = normed[:, 0] if class_token else normed[:, node.prefix :].mean(1)
    with torch.no_grad():
        torch.testing.assert_close(fresh(x), fresh.classifier(read))
