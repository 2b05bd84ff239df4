"""The student's loss: its terms by hand, their weights, and one forward pass a step."""

from collections import Counter

import numpy as np
import pytest
import torch
from networks import images, pair, refused
from test_api import digits, of_timm
from torch import nn
from torch.utils.data import DataLoader

import nettailor as nt
from nettailor.core.backbone import Backbone
from nettailor.prune.channels import trace_channels
from nettailor.prune.narrow import narrow
from nettailor.student.complexity import published
from nettailor.student.loss import TailorLoss
from nettailor.student.network import Student

SIDE = 32
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])
BATCH = images(6)


def objective_of(teacher: Backbone, student: Student, **changes: object) -> TailorLoss:
    settings = {"mimic": 1.0, "mimicry": "normalized"} | changes
    objective = TailorLoss(teacher, **settings)
    objective.calibrate([BATCH])
    objective.expected_cost(student, SIDE)
    return objective


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_one_forward_pass_a_step(backbone):
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
    terms = objective(student.train(), BATCH, LABELS)
    assert list(terms) == ["cross_entropy", "distillation", "complexity", "mimicry"]
    modules_of = {path.key for path in student.wiring.paths if path.kind != "identity"}
    assert calls == Counter(modules_of | {"stem", "teacher"})


def test_a_term_without_weight_is_left_out_and_the_teacher_not_run():
    teacher, student = pair("test_resnet")

    def no_teacher(_):
        raise AssertionError("the teacher was run")

    objective = objective_of(teacher, student, distill=0.0, gamma=0.0, mimic=0.0)
    objective.teacher = no_teacher
    assert list(objective(student, BATCH, LABELS)) == ["cross_entropy"]


def test_terms_carry_their_weights():
    teacher, student = pair("test_resnet")
    student.eval()  # so that every call sees the same network
    weights = ({"distill": 1.0, "gamma": 1.0, "mimic": 1.0},
               {"distill": 2.0, "gamma": 0.25, "mimic": 3.0})  # fmt: skip
    one, other = (
        objective_of(teacher, student, **changes)(student, BATCH, LABELS) for changes in weights
    )
    for factor, name in zip((1, 2, 0.25, 3), one, strict=True):
        assert one[name].item() != 0
        assert other[name].item() == pytest.approx(factor * one[name].item())
    cost = torch.rand(len(student.wiring.paths))
    form = objective_of(teacher, student, complexity="published", costs=lambda _: cost.tolist())
    expected = 0.3 * published(cost, student.wiring)(student.path_weights()).item()
    assert form(student, BATCH, LABELS)["complexity"].item() == pytest.approx(expected)


@pytest.mark.parametrize("logits", [None, [1.0, 0.2, -0.4, 2.0, 0.0]])
def test_cross_entropy_and_distillation_by_hand(logits):
    """CE and T² KL(teacher ‖ student) at T = 2, of the head's own logits.

    Of several heads each is judged by itself, with the weight .7 α + .3 / heads.
    """
    teacher, student = pair("test_resnet", beside=logits is not None)
    student.eval()
    heads = list(student.wiring.incoming[-1])
    share = torch.ones(1)
    if logits is not None:
        with torch.no_grad():
            student.path_weights.logits[heads] = torch.tensor(logits)
        share = torch.tensor(logits).softmax(0) * 0.7 + 0.3 / 5
    objective = objective_of(teacher, student, distill=1.0)
    entropy, distance, *_ = (term.item() for term in objective(student, BATCH, LABELS).values())
    p = (teacher(BATCH).logits / 2).softmax(1)
    own = far = 0.0
    seen = set()
    by_head = [one.detach() for one in student(BATCH).by_head]
    for weight, mine in zip(share, by_head, strict=True):
        seen.add(round(float(-mine.softmax(1).log()[range(6), LABELS].mean()), 3))
        own += float(weight * -mine.softmax(1).log()[range(6), LABELS].mean())
        far += float(weight * 4 * (p * (p / (mine / 2).softmax(1)).log()).sum(1).mean())
    assert len(seen) == len(heads) == len(share), "the check needs heads that differ"
    assert entropy == pytest.approx(own, rel=1e-4)
    assert distance == pytest.approx(far, rel=1e-4)


def test_a_student_without_some_channels() -> None:
    """It trains on what is left of the loss; terms of equal channels are refused, and nothing ran.

    A third of the channels is gone, at random.
    """
    torch.manual_seed(0)
    train, val = (DataLoader(part, 32) for part in digits())
    teacher = of_timm()
    student = nt.Student(teacher)
    channels = trace_channels(student, SIDE)
    kept = np.random.default_rng(0).random(channels.count) < 2 / 3
    small = narrow(student, channels, kept)
    loss = nt.TailorLoss(teacher)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    for which in (loss, nt.TailorLoss(teacher, gamma=0), nt.TailorLoss(teacher, mimic=0)):
        with refused(r"nodes have \[.*channels and the teacher's \[32, .*give loss.after_cut"):
            nt.fit(small, which, train, val, epochs=1, verbose=False)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    batch, labels = next(iter(train))
    with refused(r"a node of the student is \(32, .* the teacher's \(32, .*give loss.after_cut"):
        nt.TailorLoss(teacher, gamma=0)(small, batch, labels)
    fitted = nt.fit(small, loss.after_cut(), train, val, epochs=3, verbose=False)
    terms = [row["cross_entropy"] + row["distillation"] for row in fitted.history]
    assert terms[2] < terms[0]
