"""The parts of `gpu.py` that check numbers: a function each, which prints its rows."""

import argparse
import csv
import math
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from accelerate import Accelerator
from gpu_rows import SMALL, arguments, nettailor, row
from steps import CLASSES, Steps, stepper, student_steps
from torch import Tensor, nn
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from nettailor.core.backbone import create_backbone
from nettailor.core.device import place
from nettailor.core.gradients import Gradients
from nettailor.core.latency import measure_latency, sample, serving_dtype
from nettailor.core.objective import Objective
from nettailor.prune.channels import trace_channels
from nettailor.prune.taylor import taylor_values

CPU = torch.device("cpu")
STUDENTS = {
    "tf_efficientnet_lite0, default": ("tf_efficientnet_lite0", False),
    "resnet18, published": ("resnet18", True),
}


def seeded_steps(student: tuple[str, bool], device: torch.device) -> Steps:
    """The same student on any device."""
    torch.manual_seed(0)
    backbone, published = student
    return student_steps(backbone, published=published, side=64, device=device)


def taken(
    steps: Steps, images: Tensor, labels: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Loss terms of a batch, with their gradients left in the network."""
    steps.network.zero_grad()
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        terms = torch.stack(list(steps.objective(steps.network, images, labels).values()))
    terms.sum().backward()  # type: ignore[no-untyped-call]
    return terms.detach()


def in_a_row(tensors: Iterable[Tensor]) -> Tensor:
    """All their numbers, on the CPU."""
    return torch.cat([one.flatten().cpu().double() for one in tensors])


def farthest(found: Tensor, expected: Tensor) -> float:
    """The largest difference of loss terms, over the terms."""
    return float(((found - expected).abs() / expected.abs().clamp_min(1e-2)).max())


def agreement(given: argparse.Namespace) -> None:
    """Loss terms and gradients on the device beside the CPU's in float32."""
    torch.backends.cudnn.allow_tf32 = False
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, 3, 64, 64, generator=generator)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(16) % CLASSES
    for name, student in STUDENTS.items():
        steps = seeded_steps(student, CPU)
        exact = taken(steps, images, labels)
        exact_gradients = in_a_row(one.grad for one in steps.trained if one.grad is not None)
        for dtype, most in ((torch.float32, 1e-3), (torch.bfloat16, 3e-2)):
            steps = seeded_steps(student, torch.device(given.device))
            terms = taken(steps, images.to(given.device), labels.to(given.device), dtype)
            gradients = in_a_row(one.grad for one in steps.trained if one.grad is not None)
            apart = farthest(terms.cpu(), exact)
            turned = 1 - float(torch.cosine_similarity(gradients, exact_gradients, dim=0))
            row(f"{name}, {dtype}: loss terms apart", apart, predicted=most, ok=apart <= most)
            # rounding turns the gradient of a network that has learnt nothing: 0.5 on a CPU
            checked = turned <= most if dtype == torch.float32 else None
            row(f"{name}, {dtype}: gradients, 1 - cosine", turned, ok=checked)


def no_wait(given: argparse.Namespace) -> None:
    """A warm step asks nothing of the GPU that it would have to wait for."""
    device = torch.device(given.device)
    images, labels = sample(8, 3, 64, device), torch.arange(8, device=device)
    for name, student in STUDENTS.items():
        step = stepper(seeded_steps(student, device), images, labels, torch.bfloat16)
        step()
        step()
        fault = ""
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        except RuntimeError as error:
            fault = f": {' '.join(str(error).split())[:120]}"
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        row(f"{name}: a warm step waits for nothing{fault}", ok=not fault)


def graph(given: argparse.Namespace) -> None:
    """Steps as a CUDA graph beside the same steps operator by operator, in float32."""
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device(given.device)
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(16, 3, 64, 64, generator=generator) for _ in range(10)]
    labels = (torch.arange(16) % CLASSES).to(device)
    for name, student in STUDENTS.items():
        courses, norms = [], []
        for kind in ("operators", "graph", "refused"):
            steps = seeded_steps(student, device)
            optimizer = torch.optim.SGD(steps.trained, lr=1e-4)
            compute = made_step(steps, kind, device)
            course = []
            for batch in batches:
                images = batch.to(device, memory_format=torch.channels_last)
                course.append(compute(images, labels))
                optimizer.step()
            courses.append(torch.stack(course).cpu())
            norms.append(in_a_row(steps.network.buffers()))
            if kind == "operators":
                continue
            apart = farthest(courses[-1], courses[0])
            moved = float((norms[-1] - norms[0]).norm() / norms[0].norm())
            for what, found in (("loss terms", apart), ("running statistics", moved)):
                row(f"{name}, ten steps, {kind}: {what} apart", found, predicted=5e-3,
                    ok=found < 5e-3)  # fmt: skip


def made_step(steps: Steps, kind: str, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Loss terms of a batch, with their gradients left in the network."""
    if kind == "operators":
        return partial(taken, steps)
    objective = steps.objective
    if kind == "refused":

        def objective(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            terms = steps.objective(network, images, labels)
            torch.rand(1, device=images.device)  # random numbers go on after the refusal, too
            assert all(map(math.isfinite, map(float, terms)))  # a look, which no graph can hold
            return terms

    accelerator = Accelerator(cpu=device.type == "cpu")
    return Gradients(steps.network, cast(Objective, objective), accelerator, 16)


def kernels(given: argparse.Namespace) -> None:
    """Kernels that a step starts, beside torch's operators in it."""
    device = torch.device(given.device)
    images, labels = sample(8, 3, 64, device), torch.arange(8, device=device)
    for name, student in STUDENTS.items():
        steps = seeded_steps(student, device)
        steps.operations(images, labels)
        operations = steps.operations(images, labels)
        if device.type == "cpu":
            row(f"{name}: operators", operations)
            continue
        step = stepper(steps, images, labels, torch.bfloat16)
        step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
            step()
            torch.cuda.synchronize()
        started = sum(event.device_type == DeviceType.CUDA for event in seen.events())
        row(f"{name}: kernels and copies (predicted: operators)", started, predicted=operations)


def half(given: argparse.Namespace) -> None:
    """30 steps in fp16 (bf16 on a CPU), and channel values, which are weighed in float32."""
    precision = "fp16" if given.device == "cuda" else "bf16"
    words = ["--epochs", "2", "--batch-size", "32", "--limit.train", "600", "--device",
             given.device, "--precision", precision, "--out", str(given.work / "half")]  # fmt: skip
    done = nettailor("teach", *(SMALL if given.quick else ()), *words)
    files = list((given.work / "half").rglob("metrics.csv"))
    rows = list(csv.DictReader(files[0].open(encoding="utf-8"))) if files else []
    losses = [float(one["loss"]) for one in rows]
    good = done.returncode == 0 and len(losses) == 2 and losses[1] < losses[0]
    row(f"{precision}: loss of the second epoch over the first's",
        losses[1] / losses[0] if len(losses) == 2 else None,
        ok=good and all(map(math.isfinite, losses)))  # fmt: skip
    torch.manual_seed(0)
    chain = create_backbone("resnet18", CLASSES)
    channels = trace_channels(chain, 64)
    batch = [(torch.randn(8, 3, 64, 64), torch.arange(8))]
    exact, found = (
        taylor_values(place(chain, where), channels, batch, cast(Accelerator, On(where)))
        for where in (CPU, torch.device(given.device))
    )
    apart = float(np.abs(found - exact).max() / exact.max())
    row("channel values beside the CPU's: apart", apart, predicted=1e-2, ok=apart < 1e-2)


class On(NamedTuple):
    """All that weighing channels asks of an accelerator, which a process has only one of."""

    device: torch.device


def stack(width: int) -> nn.Sequential:
    """16 convolutions of one width at a quarter of the image's side."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 4)]
    for _ in range(16):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


def latency(given: argparse.Namespace) -> None:
    """At batch 1 half of the channels are quicker: no launch time is measured."""
    device = torch.device(given.device)
    wide = 64 if given.quick else 512
    networks = {"full": place(stack(wide), device), "half": place(stack(wide // 2), device)}
    times = measure_latency(networks, 64 if given.quick else 224, device, batches=(1,), seconds=3)
    full, halved = (times[name]["1"]["median"] for name in ("full", "half"))
    row(f"{serving_dtype(device)}: half the channels' time over the whole's, batch 1",
        halved / full, predicted=0.9, ok=halved < 0.9 * full)  # fmt: skip
    row("spread of the middle half over the median", times["full"]["1"]["iqr"] / full)


if __name__ == "__main__":
    part, *rest = sys.argv[1:]
    globals()[part](arguments(rest))
