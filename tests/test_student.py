"""The student: equal to its backbone at one end, frozen where it must be, one pass a step."""

import re
from collections import Counter
from copy import deepcopy

import pytest
import torch
from conftest import enliven, lively_chain
from torch import Tensor, nn

from nettailor.core.backbone import Backbone, node_specs
from nettailor.core.device import place
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.student.complexity import published
from nettailor.student.loss import TailorLoss
from nettailor.student.network import BatchNormPolicy, Student
from nettailor.student.wiring import Path, Wiring, full_wiring

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
    backbone: str, batch_norm: BatchNormPolicy = "follow", skips: int = 3, *, beside: bool = False
) -> tuple[Backbone, Student]:
    """A teacher and a student of the same pretrained weights that share no tensor.

    beside: identities and exits are there as well.
    """
    teacher = lively_chain(backbone)
    student = Student(
        deepcopy(teacher),
        skips=skips,
        identities=beside,
        exits=beside,
        batch_norm=batch_norm,
        shared=True,
    )
    enliven(student.proxies)
    for path in student.wiring.of_kind("exit"):
        enliven(student.heads[path.key], path.source)
    return teacher.requires_grad_(False), student


def objective_of(teacher: Backbone, student: Student, **changes: object) -> TailorLoss:
    settings = {"mimic": 1.0, "mimicry": "normalized"} | changes
    objective = TailorLoss(teacher, **settings)  # type: ignore[arg-type]
    objective.calibrate([images()])
    objective.expected_cost(student, SIDE)
    return objective


def train(student: Student, teacher: Backbone, steps: int = 3) -> None:
    """Real steps over every parameter, with weight decay, which would move a thawed one."""
    objective = objective_of(teacher, student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
    student.train()
    for _ in range(steps):
        optimizer.zero_grad()
        sum(objective(student, images(), LABELS).values()).backward()
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


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_with_all_weight_on_the_blocks_it_is_its_backbone(backbone: str, beside: bool) -> None:
    teacher, student = pair(backbone, beside=beside)
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
            pretrained = path.kind in ("block", "head")
            student.path_weights.logits[position] = 50.0 if pretrained else -50.0
        out = student(images())
    assert largest_gap(out.nodes, expected.nodes) < 1e-5
    assert largest_gap([out.logits], [expected.logits]) < 1e-5


def by_the_formula(student: Student, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """x_l = act_l(α_ll G_l(x_{l-1}) + Σ α_pl A_pl(x_p) + α x_{l-1}), and Σ α H(x_n).

    Each proxy and each head from its own layers.
    """
    wiring = student.wiring
    nodes = [student.stem(x)]
    for node in range(1, wiring.depth + 1):
        own = [path for path in wiring.paths if path.target == node]
        logits = torch.stack(
            [student.path_weights.logits[wiring.paths.index(path)] for path in own]
        )
        total = torch.zeros(())
        if node == wiring.depth:
            for path, weight in zip(own, logits.softmax(0), strict=True):
                head = student.heads[path.key]
                total = total + weight * head.classifier(head.neck(nodes[path.source]))
            return nodes, total
        for path, weight in zip(own, logits.softmax(0), strict=True):
            source = nodes[path.source]
            if path.kind == "block":
                total = total + weight * student.blocks[path.key](source)
                continue
            stride = student.specs[node].stride // student.specs[path.source].stride
            if stride > 1:
                source = nn.MaxPool2d(stride + 1, stride, stride // 2)(source)
            if path.kind == "identity":
                zeros = torch.zeros(
                    source.shape[0], student.specs[node].channels, *source.shape[2:]
                )
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


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_computes_the_formula(backbone: str, beside: bool) -> None:
    _, student = pair(backbone, beside=beside)
    student.eval()
    with torch.no_grad():
        student.path_weights.logits.copy_(torch.randn(len(student.wiring.paths)))
        nodes, logits = by_the_formula(student, images())
        out = student(images())
    assert largest_gap(out.nodes, [*nodes]) < 1e-5
    assert largest_gap([out.logits], [logits]) < 1e-5


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("batch_norm", ["follow", "frozen"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_frozen_means_frozen(backbone: str, batch_norm: BatchNormPolicy, beside: bool) -> None:
    teacher, student = pair(backbone, batch_norm, beside=beside)
    before, teacher_before = snapshot(student), snapshot(teacher)
    train(student, teacher)
    after = student.state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}

    buffers = {name for name, _ in student.named_buffers()}
    blocks = len(teacher.blocks)
    head = f"heads.head-{blocks}-{blocks + 1}."
    universal = {name for name in after if name.startswith(("stem.", "blocks.", f"{head}neck."))}
    assert universal
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
def test_exits_train_and_the_neck_does_not(batch_norm: BatchNormPolicy) -> None:
    _, student = pair("test_efficientnet", batch_norm, beside=True)
    student.train()
    (head,) = student.wiring.of_kind("head")
    exits = student.wiring.of_kind("exit")
    assert len(exits) == 5
    for path in (head, *exits):
        neck, classifier = student.heads[path.key].neck, student.heads[path.key].classifier
        ours = path.kind == "exit"
        assert any(isinstance(module, nn.BatchNorm2d) for module in neck.modules())
        assert all(parameter.requires_grad == ours for parameter in neck.parameters())
        assert all(parameter.requires_grad for parameter in classifier.parameters())
        assert all(m.training == (ours or batch_norm == "follow") for m in neck.modules())
        assert classifier.training
    student.finetune_all()
    assert all(parameter.requires_grad for parameter in student.heads.parameters())
    assert all(module.training for module in student.heads.modules())


@pytest.mark.parametrize("batch_norm", ["follow", "frozen"])
def test_finetune_all_thaws_everything(batch_norm: BatchNormPolicy) -> None:
    teacher, student = pair("test_efficientnet", batch_norm, beside=True)
    student.train()
    assert not all(parameter.requires_grad for parameter in student.parameters())
    student.finetune_all()
    assert student.finetunes_all
    assert all(module.training for module in student.modules())
    assert all(parameter.requires_grad for parameter in student.parameters())
    before = snapshot(student)
    train(student, teacher)
    for name, tensor in student.state_dict().items():
        if not re.fullmatch(r"proxies\.[\w-]+\.norm\.num_batches_tracked", name):
            assert not torch.equal(tensor, before[name]), name


def test_finetune_all_keeps_evaluation_mode() -> None:
    _, student = pair("test_efficientnet", "frozen")
    student.eval().finetune_all()
    assert not any(module.training for module in student.modules())


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_one_forward_pass_a_step(backbone: str) -> None:
    """All four terms come out of one pass of the student and one of the teacher."""
    teacher, student = pair(backbone, beside=True)
    calls: Counter[str] = Counter()

    def count(module: nn.Module, name: str) -> None:
        module.register_forward_hook(lambda *_: calls.update([name]))

    for modules in (student.blocks, student.proxies, student.heads):
        for name, module in modules.items():
            count(module, name)
    count(student.stem, "stem")
    count(teacher.blocks[0], "teacher")
    objective = objective_of(teacher, student)
    calls.clear()
    terms = objective(student.train(), images(), LABELS)
    assert list(terms) == ["cross_entropy", "distillation", "complexity", "mimicry"]
    modules_of = {path.key for path in student.wiring.paths if path.kind != "identity"}
    expected = modules_of | {"stem", "teacher"}
    assert calls == Counter(expected)


def test_a_term_without_weight_is_left_out_and_the_teacher_not_run() -> None:
    _, student = pair("test_resnet")

    def no_teacher(_: Tensor) -> None:
        raise AssertionError("the teacher was run")

    objective = objective_of(pair("test_resnet")[0], student, distill=0.0, gamma=0.0, mimic=0.0)
    objective.teacher = no_teacher  # type: ignore[assignment]
    terms = objective(student, images(), LABELS)
    assert list(terms) == ["cross_entropy"]


def test_terms_carry_their_weights() -> None:
    teacher, student = pair("test_resnet")
    student.eval()  # so that every call sees the same network
    weights = ({"distill": 1.0, "gamma": 1.0, "mimic": 1.0},
               {"distill": 2.0, "gamma": 0.25, "mimic": 3.0})  # fmt: skip
    one, other = (
        objective_of(teacher, student, **changes)(student, images(), LABELS) for changes in weights
    )
    for factor, name in zip((1, 2, 0.25, 3), one, strict=True):
        assert one[name].item() != 0
        assert other[name].item() == pytest.approx(factor * one[name].item())
    cost = torch.rand(len(student.wiring.paths))
    form = objective_of(teacher, student, complexity="published", costs=lambda _: cost.tolist())
    expected = 0.3 * published(cost, student.wiring)(student.path_weights()).item()
    term = form(student, images(), LABELS)["complexity"]
    assert term.item() == pytest.approx(expected)


def test_loss_of_a_student_with_one_head_by_hand() -> None:
    """CE and T² KL(teacher ‖ student) at T = 2, of the head's own logits."""
    teacher, student = pair("test_resnet")
    student.eval()
    mine, theirs = student(images()).logits.detach(), teacher(images()).logits
    objective = objective_of(teacher, student, distill=1.0)
    entropy, distance, *_ = (term.item() for term in objective(student, images(), LABELS).values())
    p, q = (theirs / 2).softmax(1), (mine / 2).softmax(1)
    assert entropy == pytest.approx(float(-mine.softmax(1).log()[range(6), LABELS].mean()))
    assert distance == pytest.approx(4 * float((p * (p / q).log()).sum(1).mean()), rel=1e-4)


def test_loss_over_several_heads_by_hand() -> None:
    """Each head is judged by itself, with the weight .7 α + .3 / heads."""
    teacher, student = pair("test_resnet", beside=True)
    student.eval()
    heads = student.wiring.incoming[-1]
    assert len(heads) == 5
    with torch.no_grad():
        student.path_weights.logits[list(heads)] = torch.tensor([1.0, 0.2, -0.4, 2.0, 0.0])
    share = torch.tensor([1.0, 0.2, -0.4, 2.0, 0.0]).softmax(0) * 0.7 + 0.3 / 5
    objective = objective_of(teacher, student, distill=1.0)
    entropy, distance, *_ = (term.item() for term in objective(student, images(), LABELS).values())
    by_head = [logits.detach() for logits in student(images()).by_head]
    p = (teacher(images()).logits / 2).softmax(1)
    parts = [
        (
            float(-mine.softmax(1).log()[range(6), LABELS].mean()),
            4 * float((p * (p / (mine / 2).softmax(1)).log()).sum(1).mean()),
        )
        for mine in by_head
    ]
    own, far = (
        sum(float(w) * part[i] for w, part in zip(share, parts, strict=True)) for i in (0, 1)
    )
    assert len({round(part[0], 3) for part in parts}) == 5, "the check needs heads that differ"
    assert entropy == pytest.approx(own, rel=1e-4)
    assert distance == pytest.approx(far, rel=1e-4)


def test_nodes_that_nothing_leads_to_are_none() -> None:
    wiring = Wiring(
        5, (Path(0, 2, "proxy"), Path(2, 3, "block"), Path(3, 4, "block"), Path(4, 5, "head"))
    )
    student = Student(
        lively_chain("test_resnet"), wiring=wiring, batch_norm="follow", shared=True
    ).eval()
    with torch.no_grad():
        out = student(images())
    assert [node is None for node in out.nodes] == [False, True, False, False, False]
    assert set(student.blocks) == {"block-2-3", "block-3-4"}
    assert set(student.proxies) == {"proxy-0-2"}
    assert set(student.heads) == {"head-4-5"}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_identities_and_exits_grow_where_they_can(backbone: str) -> None:
    """An identity where a node is no narrower than the last, an exit at the end of each stage."""
    chain = lively_chain(backbone)
    widths = [spec.channels for spec in node_specs(chain)]
    ends = {stage: block for block, stage in enumerate(chain.stages, start=1)}
    student = Student(chain, skips=1, identities=True, exits=True, batch_norm="follow", shared=True)
    wiring = student.wiring
    assert {path.target for path in wiring.of_kind("identity")} == {
        node for node in range(1, len(widths)) if widths[node - 1] <= widths[node]
    }
    assert [path.source for path in wiring.of_kind("exit")] == sorted(ends.values())
    assert set(student.heads) == {path.key for path in wiring.paths[-len(ends) - 1 :]}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_route_of_all_blocks_and_the_head_is_its_chain(backbone: str) -> None:
    teacher, student = pair(backbone, beside=True)
    blocks = len(teacher.blocks)
    plan = PrunePlan("route", student.wiring, full_wiring(blocks, 0))
    whole = remove(student, plan).eval()
    with torch.no_grad():
        expected, out = teacher(images()), whole(images())
    assert torch.equal(out.logits, expected.logits)
    for mine, theirs in zip(out.nodes, expected.nodes, strict=True):
        assert mine is not None
        assert theirs is not None
        assert torch.equal(mine, theirs)


def with_identity(backbone: str, node: int) -> Student:
    """All blocks but the one into a node, where the identity is the only path."""
    chain = lively_chain(backbone)
    wiring = full_wiring(len(chain.blocks), 0, identities=[node])
    wiring = wiring.without([Path(node - 1, node, "block")])
    return Student(chain, wiring=wiring, batch_norm="follow", shared=True).eval()


@pytest.mark.parametrize(
    ("backbone", "node"), [("test_resnet", 1), ("test_convnext", 3), ("regnety_002", 5)]
)
def test_an_identity_between_nodes_of_one_shape_is_x(backbone: str, node: int) -> None:
    student = with_identity(backbone, node)
    assert student.specs[node - 1] == student.specs[node]
    with torch.no_grad():
        nodes = student(images()).nodes
    before, after = nodes[node - 1], nodes[node]
    assert before is not None
    assert after is not None
    assert before.abs().max() > 0.1
    assert torch.equal(after, before)


@pytest.mark.parametrize(
    ("backbone", "node", "stride", "missing"),
    [
        ("test_resnet", 2, 2, 16),
        ("test_efficientnet", 2, 2, 8),
        ("mobilenetv3_small_050", 4, 2, 8),
        ("mobilenetv3_small_050", 12, 1, 240),
        ("test_convnext", 8, 2, 16),
    ],
)
def test_an_identity_between_nodes_of_two_shapes(
    backbone: str, node: int, stride: int, missing: int
) -> None:
    """Max-pooling of kernel s + 1, stride s, padding s // 2; then channels of zeros."""
    student = with_identity(backbone, node)
    with torch.no_grad():
        nodes = student(images()).nodes
        before, after = nodes[node - 1], nodes[node]
        assert before is not None
        assert after is not None
        if stride > 1:
            before = nn.MaxPool2d(stride + 1, stride, stride // 2)(before)
        zeros = torch.zeros(before.shape[0], missing, *before.shape[2:])
        expected = student.activations[str(node)](torch.cat([before, zeros], dim=1))
    assert expected.abs().max() > 0.1
    assert torch.equal(after, expected)


def test_max_pooling_of_an_identity_by_hand() -> None:
    """A ramp along a row of 4: windows of 3 at a stride of 2 begin one pixel outside."""
    student = with_identity("test_efficientnet", 2)
    x = torch.arange(4.0).expand(1, 16, 4, 4) - 9
    with torch.no_grad():
        out = student._along(Path(1, 2, "identity"), [None, x], {}, torch.tensor(0.5), None)
    assert out.shape == (1, 24, 2, 2)
    assert out[0, 0].tolist() == [[-4.0, -3.0], [-4.0, -3.0]]
    assert (out[:, 16:] == 0).all()
    assert (out[:, :16] == out[:, :1]).all()


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_logits_are_those_of_the_heads_by_their_weights(backbone: str) -> None:
    _, student = pair(backbone, beside=True)
    student.eval()
    with torch.no_grad():
        student.path_weights.logits.copy_(torch.randn(len(student.wiring.paths)))
        out = student(images())
        total = torch.zeros_like(out.logits)
        heads = student.wiring.incoming[-1]
        assert len(out.by_head) == len(heads)
        head_weights = student.of_heads(out.alpha)
        assert float(head_weights.sum()) == pytest.approx(1)
        for place_, (position, logits) in enumerate(zip(heads, out.by_head, strict=True)):
            path = student.wiring.paths[position]
            alone = student.heads[path.key](out.nodes[path.source])
            assert torch.equal(logits, alone)
            weight = student.path_weights()[position]
            assert weight == head_weights[place_]
            total += weight * alone
    assert all(path.kind in ("head", "exit") for path in student.wiring.paths[-len(heads) :])
    torch.testing.assert_close(out.logits, total, rtol=1e-5, atol=1e-6)
    assert largest_gap([out.by_head[0]], [out.logits]) > 1e-2


@pytest.mark.parametrize("batch_norm", ["follow", "frozen"])
def test_a_student_cut_at_an_exit(batch_norm: BatchNormPolicy) -> None:
    """What lies beyond the exit is gone, the neck too; the rest computes what it did."""
    teacher, student = pair("test_resnet", batch_norm, beside=True)
    paths = (Path(0, 1, "block"), Path(1, 2, "block"), Path(2, 5, "exit"))
    smaller = remove(student, PrunePlan("route", student.wiring, Wiring(5, paths))).eval()
    assert list(smaller.heads) == ["exit-2-5"]
    assert list(smaller.blocks) == ["block-0-1", "block-1-2"]
    assert not list(smaller.proxies)
    assert list(smaller.activations) == ["1", "2"]
    assert smaller.universal() == (smaller.stem, smaller.blocks)
    with torch.no_grad():
        out, expected = smaller(images()), teacher(images())
        assert [node is None for node in out.nodes] == [False, False, False, True, True]
        assert largest_gap(out.nodes[:3], expected.nodes[:3]) == 0
        assert torch.equal(out.logits, student.eval().heads["exit-2-5"](expected.nodes[2]))
    assert smaller.of_heads(out.alpha).tolist() == [1.0]
    smaller.train()
    assert smaller.heads.training
    assert smaller.heads["exit-2-5"].classifier.training
    assert smaller.stem.training == (batch_norm == "follow")
    smaller(images()).logits.square().sum().backward()
    for name, parameter in smaller.named_parameters():
        if name != "path_weights.logits":  # each weight is that of an only path
            assert (parameter.grad is not None) == name.startswith("heads."), name


def test_a_student_built_at_an_exit_is_the_one_cut_there() -> None:
    _, student = pair("test_resnet", beside=True)
    kept = Wiring(5, (Path(0, 1, "block"), Path(1, 2, "identity"), Path(2, 5, "exit")))
    smaller = remove(student, PrunePlan("route", student.wiring, kept)).eval()
    again = Student(
        lively_chain("test_resnet"), wiring=kept, batch_norm="follow", shared=True
    ).eval()
    assert set(again.state_dict()) == set(smaller.state_dict())
    again.load_state_dict(smaller.state_dict())
    with torch.no_grad():
        assert torch.equal(again(images()).logits, smaller(images()).logits)


def test_channels_last_changes_nothing() -> None:
    _, student = pair("test_resnet")
    student.eval()
    with torch.no_grad():
        expected = student(images()).logits
        moved = place(student, torch.device("cpu"))
        out = moved(images().contiguous(memory_format=torch.channels_last)).logits
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
