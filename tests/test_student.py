"""The student: equal to its backbone at one end, and frozen where it must be."""

import re

import pytest
import torch
from networks import BACKBONES, images, pair, student_along, student_of
from test_tailor_loss import LABELS, objective_of
from torch import Tensor, nn

from nettailor.core.backbone import Backbone, node_specs
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.student.network import Student
from nettailor.student.wiring import Path, Wiring, full_wiring

BATCH = images(6)
# beside: identities and exits are there as well
KINDS = [*((backbone, True) for backbone in BACKBONES), ("test_resnet", False)]


def train(student: Student, teacher: Backbone, steps: int = 3) -> None:
    """Real steps over every parameter, with weight decay, which would move a thawed one."""
    objective = objective_of(teacher, student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
    student.train()
    for _ in range(steps):
        optimizer.zero_grad()
        sum(objective(student, BATCH, LABELS).values()).backward()
        optimizer.step()


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def largest_gap(mine: list[Tensor | None], theirs: list[Tensor | None]) -> float:
    """Over all nodes, the largest difference, in parts of the node's own size."""
    gaps = []
    for one, other in zip(mine, theirs, strict=True):
        assert one.shape == other.shape
        gaps.append(float((one - other).abs().max() / other.abs().max()))
    return max(gaps)


@pytest.mark.parametrize(("backbone", "beside"), KINDS)
@torch.no_grad()
def test_with_all_weight_on_the_blocks_it_is_its_backbone(backbone, beside):
    teacher, student = pair(backbone, beside=beside)
    student.eval()
    expected = teacher(BATCH)
    spread = (expected.logits - expected.logits.mean(dim=0)).abs().max()
    assert spread > 1e-3, "the check needs images that differ"
    out = student(BATCH)
    # at its start with 5 % on lively proxies it is another network at every node but the stem
    for mine, theirs in zip(out.nodes[1:], expected.nodes[1:], strict=True):
        assert largest_gap([mine], [theirs]) > 1e-3
    assert largest_gap([out.logits], [expected.logits]) > 1e-3
    for position, path in enumerate(student.wiring.paths):
        pretrained = path.kind in ("block", "head")
        student.path_weights.logits[position] = 50.0 if pretrained else -50.0
    out = student(BATCH)
    assert largest_gap([*out.nodes, out.logits], [*expected.nodes, expected.logits]) < 1e-5
    # cut to them it is so to the bit
    plan = PrunePlan("route", student.wiring, full_wiring(len(teacher.blocks), 0))
    out = remove(student, plan).eval()(BATCH)
    for mine, theirs in zip(out.nodes, expected.nodes, strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(out.logits, expected.logits)


def by_the_formula(student: Student, x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """x_l = act_l(α_ll G_l(x_{l-1}) + Σ α_pl A_pl(x_p) + α x_{l-1}); each H(x_n), and its α.

    Each proxy and each head from its own layers; an identity max-pools with a kernel of s + 1, a
    stride of s and a padding of s // 2, and has channels of zeros where the node is wider.
    """
    wiring = student.wiring
    nodes = [student.stem(x)]
    for node in range(1, wiring.depth + 1):
        own = [path for path in wiring.paths if path.target == node]
        logits = [student.path_weights.logits[wiring.paths.index(path)] for path in own]
        weights = torch.stack(logits).softmax(0)
        if node == wiring.depth:
            heads = [student.heads[path.key] for path in own]
            features = [h.neck(nodes[path.source]) for h, path in zip(heads, own, strict=True)]
            return nodes, [h.classifier(f) for h, f in zip(heads, features, strict=True)], weights
        total = torch.zeros(())
        for path, weight in zip(own, weights, strict=True):
            source = nodes[path.source]
            if path.kind == "block":
                total = total + weight * student.blocks[path.key](source)
                continue
            stride = student.specs[node].stride // student.specs[path.source].stride
            if stride > 1:
                source = nn.MaxPool2d(stride + 1, stride, stride // 2)(source)
            if path.kind == "identity":
                zeros = torch.zeros(len(x), student.specs[node].channels, *source.shape[2:])
                zeros[:, : source.shape[1]] = source
                total = total + weight * zeros
                continue
            proxy = student.proxies[path.key]
            if proxy.squeeze is not None:
                source = proxy.squeeze(source)
            norm = nn.BatchNorm2d(proxy.norm.num_features).eval()
            norm.load_state_dict(proxy.norm.state_dict())
            total = total + weight * norm(proxy.conv(source))
        nodes.append(student.activations[str(node)](total))
    raise AssertionError("the logits are the last node")


@pytest.mark.parametrize(("backbone", "beside"), KINDS)
@torch.no_grad()
def test_it_computes_the_formula(backbone, beside):
    _, student = pair(backbone, beside=beside)
    student.eval()
    student.path_weights.logits.copy_(torch.randn(len(student.wiring.paths)))
    nodes, heads, weights = by_the_formula(student, BATCH)
    out = student(BATCH)
    assert largest_gap([*out.nodes, *out.by_head], [*nodes, *heads]) < 1e-5
    torch.testing.assert_close(student.of_heads(out.alpha), weights)
    logits = sum(weight * head for weight, head in zip(weights, heads, strict=True))
    assert largest_gap([out.logits], [logits]) < 1e-5
    assert not beside or largest_gap([out.by_head[0]], [out.logits]) > 1e-2


@pytest.mark.parametrize("batch_norm", ["follow", "frozen"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_frozen_means_frozen(backbone, batch_norm):
    teacher, student = pair(backbone, batch_norm=batch_norm, beside=True)
    before, teacher_before = snapshot(student), snapshot(teacher)
    train(student, teacher)
    after = student.state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}

    buffers = {name for name, _ in student.named_buffers()}
    blocks = len(teacher.blocks)
    head = f"heads.head-{blocks}-{blocks + 1}."
    universal = {name for name in after if name.startswith(("stem.", "blocks.", f"{head}neck."))}
    assert universal
    statistics = {name for name in universal if name.endswith("running_mean")}
    assert len(statistics) >= 9 or backbone == "test_convnext", "or the policies are alike"
    assert {name.split(".")[0] for name in after} == {
        "stem", "blocks", "proxies", "heads", "path_weights",
    }  # fmt: skip
    assert not moved & (universal - buffers), "a universal weight moved"
    if batch_norm == "frozen":
        assert not moved & universal
    else:
        assert universal & buffers <= moved, "a statistic did not follow"
    # a scaled norm does not count its batches, which matters without a momentum only
    counted = re.compile(r"proxies\.[\w-]+\.norm\.num_batches_tracked")
    task = {name for name in set(after) - universal if not counted.fullmatch(name)}
    # a proxy's first convolution moves as well as its last norm: nothing of the task stands still
    assert task <= moved
    assert {name for name in task if name.startswith(head)} == {
        f"{head}classifier.weight", f"{head}classifier.bias",
    }  # fmt: skip
    exits = {name.split(".")[1] for name in task if not name.startswith(head) and "heads" in name}
    assert exits == {path.key for path in student.wiring.of_kind("exit")}

    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, teacher_before[name]), name
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not {id(one) for one in teacher.modules()} & {id(one) for one in student.modules()}
    storage = {tensor.data_ptr() for tensor in teacher.state_dict().values()}
    assert not storage & {tensor.data_ptr() for tensor in after.values()}


@pytest.mark.parametrize("batch_norm", ["follow", "frozen"])
def test_finetune_all_thaws_everything(batch_norm):
    teacher, student = pair("test_efficientnet", batch_norm=batch_norm, beside=True)
    student.eval().finetune_all()
    assert not any(module.training for module in student.modules())
    _, student = pair("test_efficientnet", batch_norm=batch_norm, beside=True)
    student.train()
    assert not all(parameter.requires_grad for parameter in student.parameters())
    student.finetune_all()
    assert student.finetunes_all
    assert all(module.training for module in student.modules())
    before = snapshot(student)
    train(student, teacher)
    for name, tensor in student.state_dict().items():
        if not re.fullmatch(r"proxies\.[\w-]+\.norm\.num_batches_tracked", name):
            assert not torch.equal(tensor, before[name]), name


def test_nodes_that_nothing_leads_to_are_none():
    paths = Path(0, 2, "proxy"), Path(2, 3, "block"), Path(3, 4, "block"), Path(4, 5, "head")
    student = student_along("test_resnet", 5, *paths).eval()
    with torch.no_grad():
        out = student(BATCH)
    assert [node is None for node in out.nodes] == [False, True, False, False, False]
    assert set(student.blocks) == {"block-2-3", "block-3-4"}
    assert set(student.proxies) == {"proxy-0-2"}
    assert set(student.heads) == {"head-4-5"}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_identities_and_exits_grow_where_they_can(backbone):
    """An identity where a node is no narrower than the last, an exit at the end of each stage."""
    student = student_of(backbone, 1)
    chain = pair(backbone)[0]
    widths = [spec.channels for spec in node_specs(chain)]
    ends = {stage: block for block, stage in enumerate(chain.stages, start=1)}
    wiring = student.wiring
    assert {path.target for path in wiring.of_kind("identity")} == {
        node for node in range(1, len(widths)) if widths[node - 1] <= widths[node]
    }
    assert [path.source for path in wiring.of_kind("exit")] == sorted(ends.values())
    assert set(student.heads) == {path.key for path in wiring.paths[-len(ends) - 1 :]}
    assert all(path.kind in ("head", "exit") for path in wiring.paths[-len(ends) - 1 :])


@pytest.mark.parametrize("batch_norm", ["follow", "frozen"])
def test_a_student_cut_at_an_exit(batch_norm):
    """What lies beyond the exit is gone, the neck too; the rest computes what it did."""
    teacher, student = pair("test_resnet", batch_norm=batch_norm, beside=True)
    paths = (Path(0, 1, "block"), Path(1, 2, "block"), Path(2, 5, "exit"))
    smaller = remove(student, PrunePlan("route", student.wiring, Wiring(5, paths))).eval()
    assert list(smaller.heads) == ["exit-2-5"]
    assert list(smaller.blocks) == ["block-0-1", "block-1-2"]
    assert not list(smaller.proxies)
    assert list(smaller.activations) == ["1", "2"]
    assert smaller.universal() == (smaller.stem, smaller.blocks)
    with torch.no_grad():
        out, expected = smaller(BATCH), teacher(BATCH)
        assert [node is None for node in out.nodes] == [False, False, False, True, True]
        assert largest_gap(out.nodes[:3], expected.nodes[:3]) == 0
        assert torch.equal(out.logits, student.eval().heads["exit-2-5"](expected.nodes[2]))
    assert smaller.of_heads(out.alpha).tolist() == [1.0]
    smaller.train()
    assert smaller.heads.training
    assert smaller.heads["exit-2-5"].classifier.training
    assert smaller.stem.training == (batch_norm == "follow")
    smaller(BATCH).logits.square().sum().backward()
    for name, parameter in smaller.named_parameters():
        if name != "path_weights.logits":  # each weight is that of an only path
            assert (parameter.grad is not None) == name.startswith("heads."), name
