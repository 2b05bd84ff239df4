"""The library in a program of one's own: no commands, no settings, no run folders."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import nettailor as nt

CLASSES, SIDE = 10, 32


class Block(nn.Module):
    """Somebody's own: a convolution, a norm, a ReLU in place."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


def own() -> nt.Backbone:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))
    blocks = [Block(8, 8), Block(8, 16, 2), Block(16, 16)]
    return nt.Backbone(Block(3, 8), blocks, head, example=torch.zeros(1, 3, SIDE, SIDE))


def of_timm() -> nt.Backbone:
    network = timm.create_model("test_resnet", num_classes=CLASSES)
    return nt.Backbone(network, example=torch.zeros(1, 3, SIDE, SIDE))


def of_torchvision() -> nt.Backbone:
    network = torchvision.models.resnet18(num_classes=CLASSES)
    return nt.Backbone(network, example=torch.zeros(1, 3, SIDE, SIDE))


NETWORKS = {"timm": of_timm, "torchvision": of_torchvision, "own": own}


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Real ones: 8×8 grey to 32×32 in three channels, 160 to train on and 80 to validate on."""
    images, labels = load_digits(return_X_y=True)
    grey = torch.tensor(images[:240], dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    large = nn.functional.interpolate(grey, size=SIDE).expand(-1, 3, -1, -1)
    targets = torch.tensor(labels[:240])
    return TensorDataset(large[:160], targets[:160]), TensorDataset(large[160:], targets[160:])


@pytest.fixture(scope="module")
def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    train, val = digits()
    return DataLoader(train, batch_size=32, shuffle=True), DataLoader(val, batch_size=80)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_the_ten_lines(make: Any, loaders: Any, images: Tensor) -> None:
    torch.manual_seed(0)
    train, val = loaders
    teacher = make()
    nt.fit(teacher, nt.CrossEntropy(), train, val, epochs=2, verbose=False)
    student = nt.Student(teacher, skips=0, exits=True)
    loss = nt.TailorLoss(teacher, gamma=0.3)
    fitted = nt.fit(student, loss, train, val, epochs=1, verbose=False)
    assert {"cross_entropy", "distillation", "complexity", "mimicry"} <= set(fitted.history[0])
    plan = nt.best_route(student, teacher, train, max_flops=0.5)
    small = nt.cut(student, plan, train)
    fitted = nt.fit(small, loss.after_cut(), train, val, epochs=1, verbose=False)
    assert set(fitted.history[0]) & {"complexity", "mimicry"} == set()
    plain = nt.fold(small)
    with torch.no_grad():
        logits = small.eval()(images).logits
        torch.testing.assert_close(plain(images), logits, rtol=1e-3, atol=1e-4)
    assert logits.shape == (2, CLASSES)
    whole, left = (sum(p.numel() for p in one.parameters()) for one in (teacher, small))
    assert left < whole


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_a_loop_of_ones_own(make: Any, loaders: Any) -> None:
    """The loss falls in plain PyTorch, and everything that is the student's moves."""
    torch.manual_seed(0)
    train, _ = loaders
    teacher = make()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student, loss = nt.Student(teacher), nt.TailorLoss(teacher, gamma=0.3)
    start = {name: value.clone() for name, value in student.named_parameters()}
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    course = []
    for _ in range(3):
        for batch, labels in train:
            terms = loss(student.train(), batch, labels)
            optimizer.zero_grad()
            total = torch.stack(list(terms.values())).sum()
            total.backward()
            optimizer.step()
            course.append(total.item())
    assert sum(course[-5:]) < 0.9 * sum(course[:5])
    for name, value in student.named_parameters():
        if student.path_weights.logits is value or value.grad is not None:
            assert not torch.equal(value, start[name]), name
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), f"the teacher's {name} moved"


def test_a_backbone_is_the_network(images: Tensor) -> None:
    """The same logits to rounding, and the network is not changed."""
    network = torchvision.models.resnet18(num_classes=CLASSES).eval()
    backbone = nt.Backbone(network, example=images)
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(backbone.eval()(images).logits, expected)
        for parameter in backbone.parameters():
            parameter.zero_()
        torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("budget", [{"max_flops": 0.5}, {"max_params": 0.5}, {"tolerance": 60.0}])
def test_in_one_line(budget: dict[str, float], loaders: Any, images: Tensor) -> None:
    train, val = loaders
    network = timm.create_model("test_resnet", num_classes=CLASSES)
    state = torch.get_rng_state()
    epochs = {"teacher_epochs": 2, "student_epochs": 1, "finetune_epochs": 2}
    small = nt.tailor(network, train, val, seed=1, verbose=False, **epochs, **budget)
    assert torch.equal(state, torch.get_rng_state()), "torch's generator was moved"
    with torch.no_grad():
        logits = small(images)
    assert logits.shape == (2, CLASSES)
    if "max_flops" in budget:
        again = nt.tailor(network, train, val, seed=1, verbose=False, **epochs, **budget)
        with torch.no_grad():
            assert torch.equal(logits, again(images)), "two runs of a seed differ"
    if "max_params" in budget:
        sizes = [sum(p.numel() for p in one.parameters()) for one in (network, small)]
        assert sizes[1] <= 0.5 * sizes[0]


def test_a_run_goes_on(tmp_path: Path, loaders: Any) -> None:
    """Two epochs, and two after a stop at the first, are the same to the bit."""
    train, val = loaders

    def fitted(run: nt.Run, stop: Any = None) -> tuple[nt.Backbone, Any]:
        torch.manual_seed(0)
        network = of_timm()
        course = nt.fit(
            network, nt.CrossEntropy(), train, val, epochs=2, run=run, name="teacher", stop=stop,
            verbose=False,
        )  # fmt: skip
        return network, course

    whole, _ = fitted(nt.Run(tmp_path / "whole"))
    parts = nt.Run(tmp_path / "parts")
    _, first = fitted(parts, lambda epoch, _: epoch == 1)
    assert len(first.history) == 1
    resumed, course = fitted(parts)
    assert len(course.history) == 2
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert list((tmp_path / "parts" / "events" / "teacher").iterdir())


def refusal(*arguments: Any, **settings: Any) -> str:
    with pytest.raises(nt.UserError) as error:
        nt.Backbone(*arguments, **settings)
    return str(error.value)


def test_networks_that_are_no_chain() -> None:
    linear = nn.Linear(3, 3)
    assert "Linear: for images (3, 256, 256) it fails" in refusal(linear)
    example = torch.zeros(1, 3, SIDE, SIDE)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))
    assert "all of stem, blocks and head" in refusal(Block(3, 8), [Block(8, 16)])
    said = refusal(Block(3, 8), [Block(4, 16)], head, example=example)
    assert "block 1 does not take what comes before it" in said
    said = refusal(Block(3, 8), [nn.Flatten()], head, example=example)
    assert "block 1 gives (1, 8192), expected a tensor (B, C, H, W)" in said
    said = refusal(Block(3, 8), [Block(8, 16)], nn.Identity(), example=example)
    assert "the head gives (1, 16, 32, 32), expected logits (B, classes)" in said


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (TensorDataset(torch.zeros(4, 3, 8, 8)), "a list of 1, expected (images, labels)"),
        (TensorDataset(torch.zeros(4, 8), torch.zeros(4)), "expected images (B, C, H, W)"),
        (TensorDataset(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4)), "of uint8"),
        (TensorDataset(torch.zeros(0, 3, 8, 8), torch.zeros(0)), "the training loader is empty"),
    ],
)
def test_loaders_that_give_something_else(data: TensorDataset, words: str, loaders: Any) -> None:
    with pytest.raises(nt.UserError, match="loader") as error:
        nt.fit(own(), nt.CrossEntropy(), DataLoader(data), loaders[1], epochs=1)
    assert words in str(error.value)


def test_the_loss_of_a_student_for_another_network(loaders: Any) -> None:
    teacher = own()
    with pytest.raises(nt.UserError, match=r"of an nt\.Student, and this is a Back"):
        nt.fit(own(), nt.TailorLoss(teacher), *loaders, epochs=1)


def test_budgets_that_cannot_be_met(loaders: Any) -> None:
    train, val = loaders
    teacher = own()
    student = nt.Student(teacher)
    with pytest.raises(nt.UserError, match=r"give a budget from 0\.\d+ to 1"):
        nt.best_route(student, teacher, train, max_flops=1e-4)
    with pytest.raises(nt.UserError, match="expected one of them"):
        nt.tailor(teacher, train, val, max_flops=0.3, max_params=0.3)
    with pytest.raises(nt.UserError, match="expected a share above 0"):
        nt.tailor(teacher, train, val, max_flops=math.nan)


def test_a_route_is_within_its_budget_and_the_best(loaders: Any) -> None:
    train, _ = loaders
    torch.manual_seed(0)
    teacher = own()
    student = nt.Student(teacher)
    plans = [nt.best_route(student, teacher, train, max_flops=most) for most in (0.6, 1.0, 5.0)]
    blocks = [len(plan.kept.of_kind("block")) for plan in plans]
    assert blocks == sorted(blocks)
    assert blocks[0] < 3
    assert plans[1] == plans[2]


def test_grey_images_and_a_head_of_one_size(loaders: Any) -> None:
    """Whatever the example is: one channel, and a linear layer that reads every pixel."""
    torch.manual_seed(0)
    grey = [TensorDataset(one.tensors[0][:, :1], one.tensors[1]) for one in digits()]
    train, val = (DataLoader(one, batch_size=32) for one in grey)
    head = nn.Sequential(nn.Flatten(), nn.Linear(8 * SIDE**2, CLASSES))
    example = torch.zeros(1, 1, SIDE, SIDE)
    teacher = nt.Backbone(Block(1, 8), [Block(8, 8), Block(8, 8)], head, example=example)
    student = nt.Student(teacher)
    nt.fit(student, nt.TailorLoss(teacher), train, val, epochs=1, verbose=False)
    small = nt.cut(student, nt.best_route(student, teacher, train), train)
    with torch.no_grad():
        images = grey[1].tensors[0][:4]
        expected = small.eval()(images).logits
        torch.testing.assert_close(nt.fold(small)(images), expected, rtol=1e-3, atol=1e-4)


def test_a_device_that_is_not_there(loaders: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(nt.UserError, match="no CUDA device was found"):
        nt.fit(own(), nt.CrossEntropy(), *loaders, device="cuda")


def test_every_public_name_is_there() -> None:
    for name in nt.__all__:
        assert getattr(nt, name).__doc__, name
    with pytest.raises(AttributeError, match="nettailor"):
        _ = nt.nothing
