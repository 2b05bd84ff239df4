"""A cut network is the masked one, only smaller: in memory and on disk."""

import json
import random

import pytest
import torch
from conftest import lively_chain
from networks import BACKBONES, architecture_of, drawn_route, images, lively_student, masked

from nettailor.core.backbone import Backbone
from nettailor.core.cost import module_flops, parameters
from nettailor.core.device import place
from nettailor.core.errors import UserError
from nettailor.network import load_network, save_network
from nettailor.prune.plan import PrunePlan, decide
from nettailor.prune.remove import remove
from nettailor.student.network import BatchNormPolicy, Student
from nettailor.student.wiring import Wiring

SIDE = 32
BATCH = images()


def trained(backbone: str, batch_norm: BatchNormPolicy = "follow", *, beside: bool = False):
    """A student whose path weights are spread as after training."""
    student = lively_student(backbone, beside=beside, batch_norm=batch_norm)
    generator = torch.Generator().manual_seed(5)
    drawn = 2 * torch.randn(len(student.wiring.paths), generator=generator)
    with torch.no_grad():
        student.path_weights.logits.copy_(drawn)
    return student.eval()


def plan_of(student: Student, count: int, threshold: float = 0.1) -> PrunePlan:
    alpha = student.path_weights().tolist()
    return decide(student.wiring, alpha, threshold=threshold, remove=count)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_removed_equals_masked(backbone, share):
    student = trained(backbone)
    compare_with_masked(student, plan_of(student, round(share * len(student.blocks))))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_removed_equals_masked_beside_identities_and_exits(backbone):
    student = trained(backbone, beside=True)
    compare_with_masked(student, plan_of(student, len(student.blocks) // 2))
    for seed in range(4):
        compare_with_masked(student, drawn_route(student, random.Random(seed)))


def compare_with_masked(student: Student, plan: PrunePlan) -> None:
    """The cut computes what the student does without weight on what the plan drops."""
    smaller = remove(student, plan)
    assert len(plan.kept.paths) < len(student.wiring.paths)
    with torch.no_grad():
        whole, expected, out = (
            network(BATCH) for network in (student, masked(student, plan), smaller)
        )
    size = float(expected.logits.abs().max())
    assert float((whole.logits - expected.logits).abs().max()) > 1e-3 * size, "nothing was masked"
    torch.testing.assert_close(out.logits, expected.logits, rtol=1e-6, atol=1e-6 * size)
    for node, (mine, theirs) in enumerate(zip(out.nodes, expected.nodes, strict=True)):
        assert (mine is None) == (node > 0 and not plan.kept.incoming[node])
        if mine is not None:
            scale = float(theirs.abs().max())
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("by", ["rank", "route"])
@pytest.mark.parametrize("backbone", ["test_resnet", "regnety_002"])
def test_what_is_removed_is_gone_and_the_rest_is_the_original(backbone, by):
    student = trained(backbone, beside=by == "route")
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    plan = (
        plan_of(student, len(student.blocks) // 2)
        if by == "rank"
        else drawn_route(student, random.Random(0))
    )
    smaller = remove(student, plan)
    dropped = {path.key for path in student.wiring.paths} - {p.key for p in plan.kept.paths}
    assert dropped
    for names in (
        smaller.state_dict(),
        [name for name, _ in smaller.named_parameters()],
        [name for name, _ in smaller.named_modules()],
    ):
        assert not [name for name in names if dropped & set(name.split("."))]
    price = sum(
        parameters(modules[key])
        for modules in (student.blocks, student.proxies, student.heads)
        for key in dropped & set(modules)
    )
    gone = len(student.wiring.paths) - len(plan.kept.paths)
    assert parameters(smaller) == parameters(student) - price - gone  # a path has one logit
    assert module_flops(smaller, (3, SIDE, SIDE)) < module_flops(student, (3, SIDE, SIDE))

    positions = [student.wiring.paths.index(path) for path in plan.kept.paths]
    for name, tensor in smaller.state_dict().items():
        expected = before[name]
        if name == "path_weights.logits":
            expected = expected[positions]
        assert torch.equal(tensor, expected), name
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert set(student.state_dict()) == set(before)
    theirs = {tensor.data_ptr() for tensor in student.state_dict().values()}
    assert not theirs & {tensor.data_ptr() for tensor in smaller.state_dict().values()}
    assert student.wiring == plan.before
    frozen = {name: p.requires_grad for name, p in student.named_parameters()}
    assert all(p.requires_grad == frozen[name] for name, p in smaller.named_parameters())


def test_a_plan_of_another_student_is_refused():
    student = trained("test_resnet")
    plan = plan_of(student, 1)
    with pytest.raises(UserError, match="of a student with other paths"):
        remove(remove(student, plan), plan)


@pytest.mark.parametrize(
    ("backbone", "cut", "mode"),
    [
        *((backbone, "rank", "task") for backbone in BACKBONES),
        *((backbone, "route", "all") for backbone in BACKBONES),
        *(("test_resnet", "none", mode) for mode in ("task", "all")),
    ],
)
def test_saved_and_reloaded_is_bit_identical(tmp_path, backbone, cut, mode):
    policy: BatchNormPolicy = "frozen" if mode == "task" else "follow"
    student = trained(backbone, policy, beside=cut != "rank")
    smaller = student
    if cut == "rank":
        smaller = remove(student, plan_of(student, len(student.blocks) // 2))
    elif cut == "route":
        smaller = remove(student, drawn_route(student, random.Random(2)))
    if mode == "all":
        smaller.finetune_all()
    place(smaller, torch.device("cpu"))
    file = save_network(tmp_path, smaller, architecture_of(backbone))
    again, architecture = load_network(tmp_path)
    assert isinstance(again, Student)
    assert not again.training
    assert again.wiring == smaller.wiring
    assert again.batch_norm == smaller.batch_norm
    assert again.finetunes_all == (mode == "all")
    assert {name: p.requires_grad for name, p in again.named_parameters()} == {
        name: p.requires_grad for name, p in smaller.named_parameters()
    }
    assert architecture.student.finetune == mode
    assert architecture.preprocessing == architecture_of(backbone).preprocessing
    with torch.no_grad():
        assert torch.equal(again(BATCH).logits, smaller(BATCH).logits)

    paths = json.loads((tmp_path / "architecture.json").read_text())["student"]["paths"]
    assert Wiring.from_json(smaller.wiring.depth, paths) == smaller.wiring

    size, numbers = file.stat().st_size, 4 * parameters(smaller)
    assert numbers <= size <= 1.05 * numbers + 50_000


def test_a_teacher_is_saved_and_reloaded_bit_identical(tmp_path):
    chain = place(lively_chain("test_efficientnet"), torch.device("cpu"))
    save_network(tmp_path, chain, architecture_of("test_efficientnet"))
    again, architecture = load_network(tmp_path)
    assert isinstance(again, Backbone)
    assert architecture.student is None
    with torch.no_grad():
        assert torch.equal(again(BATCH).logits, chain(BATCH).logits)


def test_weights_of_another_cut_are_refused(tmp_path):
    student = trained("test_resnet")
    save_network(tmp_path, remove(student, plan_of(student, 1)), architecture_of("test_resnet"))
    other = remove(student, plan_of(student, 3))
    file = save_network(tmp_path / "other", other, architecture_of("test_resnet"))
    (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"weights of another network.*missing"):
        load_network(tmp_path)


def test_a_cut_student_trains_on():
    """Its path weights and proxies get gradients, its frozen blocks none."""
    student = trained("test_resnet")
    plan = PrunePlan("none", student.wiring, Wiring(student.wiring.depth, student.wiring.paths))
    for smaller in (remove(student, plan_of(student, 1)), remove(student, plan)):
        smaller.train()(BATCH).logits.square().sum().backward()
        for name, parameter in smaller.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
        assert smaller.path_weights.logits.grad is not None
    assert all(parameter.grad is None for parameter in student.parameters())
