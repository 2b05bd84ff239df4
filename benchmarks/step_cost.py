"""What a student step costs beside a plain fine-tune step of the same network.

    python benchmarks/step_cost.py

The two kinds of step run in turn in one process, so that a drifting machine is fair to both; the
figure is the ratio of their medians.

The floor, in passes over the backbone (forward = 1, gradient of the inputs = 1, gradient of the
weights = 1): a plain step takes 3. A live teacher adds 1 forward pass. The default student, whose
blocks train along, takes 3 + 1, so 1.33 beside a plain step before any exit is computed; the
published one, with frozen blocks, 2 + 1, so 1.0 before any proxy (`--skips`) is.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor.core.backbone import create_chain, make_network
from nettailor.core.device import place
from student.complexity import FORMS
from student.grow import grow, path_costs
from student.mimicry import node_scales
from student.objective import TailorObjective
from teacher.target import as_target

CLASSES = 10


def stepper(
    network: nn.Module,
    objective: Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, ...]],
    images: Tensor,
    labels: Tensor,
) -> Callable[[], None]:
    """A function that takes one SGD step."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9)
    network.train()

    def step() -> None:
        loss = torch.stack(objective(network, images, labels)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def cross_entropy(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """The objective of a plain fine-tune step on timm's own network."""
    return (F.cross_entropy(network(images), labels),)


def measure(
    backbone: str, student_of: str, *, batch: int, side: int, skips: int, rounds: int, device: str
) -> str:
    """One line of the table for a backbone; the student is "default" or "published"."""
    published = student_of == "published"
    where = torch.device(device)
    images = torch.randn(batch, 3, side, side, device=where)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (batch,), device=where)
    teacher = place(create_chain(backbone, CLASSES), where)
    target = as_target(teacher)
    student = grow(
        create_chain(backbone, CLASSES),
        skips=skips if published else 0,
        identities=not published,
        exits=not published,
        batch_norm="follow",
    )
    if not published:
        student.finetune_all()
    place(student, where)
    costs, total = path_costs(student, teacher, side)
    form = "mean-square" if teacher.family == "resnet" else "normalized"
    scales = node_scales(form, target(images))
    objective = TailorObjective(
        target,
        distill=0.0 if published else 0.5,
        gamma=0.3,
        complexity=FORMS["published" if published else "route"],
        cost=torch.tensor([cost.flops / total.flops for cost in costs], device=where),
        mimic=1.0,
        mimic_scales=scales,
    )
    plain = place(make_network(backbone, CLASSES), where)
    steps = {
        "plain": stepper(plain, cross_entropy, images, labels),
        "student": stepper(student, objective, images, labels),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 3):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if where.type == "cuda":
                torch.cuda.synchronize()
            if number >= 3:
                times[name].append(time.perf_counter() - started)
    median = {name: 1000 * statistics.median(values) for name, values in times.items()}
    ratios = sorted(s / p for s, p in zip(times["student"], times["plain"], strict=True))
    low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
    return (
        f"{backbone:<22} {student_of:<10} {median['plain']:>9.1f} {median['student']:>11.1f} "
        f"{median['student'] / median['plain']:>7.2f}   {low:.2f} to {high:.2f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=["tf_efficientnet_lite0", "resnet18"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--students", nargs="+", default=["default", "published"])
    parser.add_argument("--skips", type=int, default=3, help="of the published student")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    print(
        f"batch {given.batch}, {given.side} px, k = {given.skips}, {given.device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(
        f"{'backbone':<22} {'student':<10} {'plain ms':>9} {'student ms':>11} {'ratio':>7}   "
        "middle half of pairs"
    )
    for backbone, student_of in product(given.backbones, given.students):
        print(
            measure(
                backbone,
                student_of,
                batch=given.batch,
                side=given.side,
                skips=given.skips,
                rounds=given.rounds,
                device=given.device,
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
