"""The student: equal to its backbone at one end, frozen where it must be, one pass a step."""

from collections import Counter
from copy import deepcopy

import pytest
import torch
from conftest import enliven, lively_chain
from torch import Tensor, nn

from nettailor.core.backbone import Chain
from nettailor.core.device import place
from student.complexity import published, reachability
from student.grow import build, grow, path_costs
from student.mimicry import node_scales
from student.network import BatchNormPolicy, Student
from student.objective import TailorObjective
from student.wiring import Path, Wiring
from teacher.target import as_target

# basic and bottleneck blocks (test_resnet has both), inverted residuals, no batch norm at all
BACKBONES = (
    "test_resnet",
    "test_efficientnet",
    "mobilenetv3_small_050",
    "regnety_002",
    "test_convnext",
)
SIDE = 32
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def pair(
    backbone: str, batch_norm: BatchNormPolicy = "follow", skips: int = 3
) -> tuple[Chain, Student]:
    """A teacher and a student of the same pretrained weights that share no tensor."""
    teacher = lively_chain(backbone)
    student = grow(deepcopy(teacher), skips=skips, batch_norm=batch_norm)
    enliven(student.proxies)
    return teacher.requires_grad_(False), student


def objective_of(teacher: Chain, student: Student, **changes: object) -> TailorObjective:
    with torch.no_grad():
        scales = node_scales("normalized", teacher(images()))
    costs, total = path_costs(student, teacher, SIDE)
    settings: dict[str, object] = {
        "gamma": 0.3,
        "complexity": reachability,
        "cost": torch.tensor([cost.flops / total.flops for cost in costs]),
        "mimic": 1.0,
        "mimic_scales": scales,
    }
    return TailorObjective(as_target(teacher), **(settings | changes))  # type: ignore[arg-type]


def train(student: Student, teacher: Chain, steps: int = 3) -> None:
    """Real steps over every parameter, with weight decay, which would move a thawed one."""
    objective = objective_of(teacher, student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
    student.train()
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack(objective(student, images(), LABELS)).sum().backward()
        optimizer.step()


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def largest_gap(mine: list[Tensor | None], theirs: list[Tensor | None]) -> float:
    """Over all nodes, the largest difference, in parts of the node's own size."""
    gaps = []
    for one, other in zip(mine, theirs, strict=True):
        assert one is not None
        assert other is not None
        assert one.shape == other.shape
        gaps.append(float((one - other).abs().max() / other.abs().max()))
    return max(gaps)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_with_all_weight_on_the_blocks_it_is_its_backbone(backbone: str) -> None:
    teacher, student = pair(backbone)
    student.eval()
    with torch.no_grad():
        expected = teacher(images())
        spread = (expected.logits - expected.logits.mean(dim=0)).abs().max()
        assert spread > 1e-3, "the check needs images that differ"
        out = student(images())
        # at its start with 5 % on lively proxies it is another network at every node but the stem
        for mine, theirs in zip(out.nodes[1:], expected.nodes[1:], strict=True):
            assert largest_gap([mine], [theirs]) > 1e-3
        assert largest_gap([out.logits], [expected.logits]) > 1e-3
        for position, path in enumerate(student.wiring.paths):
            student.path_weights.logits[position] = 50.0 if path.kind == "block" else -50.0
        out = student(images())
    assert largest_gap(out.nodes, expected.nodes) < 1e-5
    assert largest_gap([out.logits], [expected.logits]) < 1e-5


def by_the_formula(student: Student, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """x_l = act_l(α_ll G_l(x_{l-1}) + Σ α_pl A_pl(x_p)), each proxy from its own layers."""
    wiring = student.wiring
    nodes = [student.stem(x)]
    for node in range(1, wiring.depth + 1):
        own = [path for path in wiring.paths if path.target == node]
        logits = torch.stack(
            [student.path_weights.logits[wiring.paths.index(path)] for path in own]
        )
        total = torch.zeros(())
        for path, weight in zip(own, logits.softmax(0), strict=True):
            source = nodes[path.source]
            if path.kind == "block":
                total = total + weight * student.blocks[path.key](source)
                continue
            stride = student.strides[node] // student.strides[path.source]
            if stride > 1:
                source = nn.MaxPool2d(stride + 1, stride, stride // 2)(source)
            proxy = student.proxies[path.key]
            if proxy.squeeze is not None:
                source = proxy.squeeze(source)
            norm = nn.BatchNorm2d(proxy.norm.num_features).eval()
            norm.load_state_dict(proxy.norm.state_dict())
            total = total + weight * norm(proxy.conv(source))
        nodes.append(student.activations[str(node)](total))
    return nodes, student.classifier(student.neck(nodes[-1]))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_computes_the_formula(backbone: str) -> None:
    _, student = pair(backbone)
    student.eval()
    with torch.no_grad():
        student.path_weights.logits.copy_(torch.randn(len(student.wiring.paths)))
        nodes, logits = by_the_formula(student, images())
        out = student(images())
    assert largest_gap(out.nodes, [*nodes]) < 1e-5
    assert largest_gap([out.logits], [logits]) < 1e-5


@pytest.mark.parametrize("batch_norm", ["follow", "frozen"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_frozen_means_frozen(backbone: str, batch_norm: BatchNormPolicy) -> None:
    teacher, student = pair(backbone, batch_norm)
    before, teacher_before = snapshot(student), snapshot(teacher)
    train(student, teacher)
    after = student.state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}

    buffers = {name for name, _ in student.named_buffers()}
    universal = {name for name in after if name.startswith(("stem.", "blocks.", "neck."))}
    assert universal
    assert not moved & (universal - buffers), "a universal weight moved"
    if batch_norm == "frozen":
        assert not moved & universal
    else:
        assert universal & buffers <= moved, "a statistic did not follow"
    task = set(after) - universal
    # a proxy's first convolution moves as well as its last norm: nothing of the task stands still
    assert task <= moved
    assert {name.split(".")[0] for name in task} == {"proxies", "path_weights", "classifier"}

    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, teacher_before[name]), name


def test_frozen_and_followed_statistics_exist_to_be_told_apart() -> None:
    """The test above would say little of a backbone without batch norms."""
    counts = {
        name: sum(
            isinstance(module, nn.BatchNorm2d)
            for part in pair(name)[1].universal()
            for module in part.modules()
        )
        for name in BACKBONES
    }
    assert counts.pop("test_convnext") == 0
    assert min(counts.values()) >= 9


@pytest.mark.parametrize("batch_norm", ["follow", "frozen"])
def test_the_teacher_is_no_part_of_the_student(batch_norm: BatchNormPolicy) -> None:
    teacher, student = pair("test_resnet", batch_norm)
    train(student, teacher, steps=1)
    theirs = {id(module) for module in teacher.modules()}
    assert not theirs & {id(module) for module in student.modules()}
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in student.parameters()}
    storage = {tensor.data_ptr() for tensor in teacher.state_dict().values()}
    assert not storage & {tensor.data_ptr() for tensor in student.state_dict().values()}
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_modes() -> None:
    _, student = pair("test_efficientnet", "follow")
    student.train()
    assert all(module.training for module in student.modules())
    student.eval()
    assert not any(module.training for module in student.modules())

    _, student = pair("test_efficientnet", "frozen")
    student.train()
    assert student.training
    universal = {id(module) for part in student.universal() for module in part.modules()}
    for name, module in student.named_modules():
        assert module.training == (id(module) not in universal), name
    student.eval()
    assert not any(module.training for module in student.modules())


@pytest.mark.parametrize("batch_norm", ["follow", "frozen"])
def test_finetune_all_thaws_everything(batch_norm: BatchNormPolicy) -> None:
    teacher, student = pair("test_efficientnet", batch_norm)
    student.train()
    assert not all(parameter.requires_grad for parameter in student.parameters())
    student.finetune_all()
    assert student.finetunes_all
    assert all(module.training for module in student.modules())
    assert all(parameter.requires_grad for parameter in student.parameters())
    before = snapshot(student)
    train(student, teacher)
    for name, tensor in student.state_dict().items():
        assert not torch.equal(tensor, before[name]), name


def test_finetune_all_keeps_evaluation_mode() -> None:
    _, student = pair("test_efficientnet", "frozen")
    student.eval().finetune_all()
    assert not any(module.training for module in student.modules())


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_one_forward_pass_a_step(backbone: str) -> None:
    """All three terms come out of one pass of the student and one of the teacher."""
    teacher, student = pair(backbone)
    calls: Counter[str] = Counter()

    def count(module: nn.Module, name: str) -> None:
        module.register_forward_hook(lambda *_: calls.update([name]))

    for name, module in (*student.blocks.items(), *student.proxies.items()):
        count(module, name)
    count(student.stem, "stem")
    count(student.neck, "neck")
    count(teacher.blocks[0], "teacher")
    objective = objective_of(teacher, student)
    calls.clear()
    terms = objective(student.train(), images(), LABELS)
    assert objective.terms == ("cross_entropy", "complexity", "mimicry")
    assert len(terms) == 3
    expected = {path.key for path in student.wiring.paths} | {"stem", "neck", "teacher"}
    assert calls == Counter(expected)


def test_a_term_without_weight_is_left_out_and_the_teacher_not_run() -> None:
    _, student = pair("test_resnet")

    def no_teacher(_: Tensor) -> None:
        raise AssertionError("the teacher was run")

    objective = objective_of(pair("test_resnet")[0], student, gamma=0.0, mimic=0.0)
    objective.teacher = no_teacher  # type: ignore[assignment]
    terms = objective(student, images(), LABELS)
    assert objective.terms == ("cross_entropy",)
    assert len(terms) == 1


def test_terms_carry_their_weights() -> None:
    teacher, student = pair("test_resnet")
    student.eval()  # so that every call sees the same network
    one = objective_of(teacher, student, gamma=1.0, mimic=1.0)(student, images(), LABELS)
    other = objective_of(teacher, student, gamma=0.25, mimic=3.0)(student, images(), LABELS)
    assert other[0].item() == one[0].item()
    assert other[1].item() == pytest.approx(0.25 * one[1].item())
    assert other[2].item() == pytest.approx(3 * one[2].item())
    form = objective_of(teacher, student, complexity=published)
    cost, alpha = form.cost, student.path_weights()
    expected = 0.3 * published(alpha, cost, student.wiring).item()
    assert form(student, images(), LABELS)[1].item() == pytest.approx(expected)


def test_nodes_that_nothing_leads_to_are_none() -> None:
    wiring = Wiring(4, (Path(0, 2, "proxy"), Path(2, 3, "block"), Path(3, 4, "block")))
    student = build(lively_chain("test_resnet"), wiring, batch_norm="follow").eval()
    with torch.no_grad():
        out = student(images())
    assert [node is None for node in out.nodes] == [False, True, False, False, False]
    assert set(student.blocks) == {"block-2-3", "block-3-4"}
    assert set(student.proxies) == {"proxy-0-2"}


def test_channels_last_changes_nothing() -> None:
    _, student = pair("test_resnet")
    student.eval()
    with torch.no_grad():
        expected = student(images()).logits
        moved = place(student, torch.device("cpu"))
        out = moved(images().contiguous(memory_format=torch.channels_last)).logits
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
