"""A part of `gpu.py`: how long steps take, launched one by one and as a CUDA graph, and loading."""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple, cast

import torch
from accelerate import Accelerator
from gpu_rows import arguments, row
from steps import CLASSES, Steps, plain_steps, stepper, student_steps
from torch import Tensor

from nettailor.core.console import Screen
from nettailor.core.device import worker_count
from nettailor.core.gradients import Gradients
from nettailor.core.latency import sample
from nettailor.core.objective import Objective
from nettailor.core.settings import validate
from nettailor.session import start_session


class Case(NamedTuple):
    """A step to be timed."""

    name: str
    backbone: str
    kind: str
    batch: int
    side: int


CASES = (
    Case("lite0 teacher", "tf_efficientnet_lite0", "plain", 64, 224),
    Case("lite0 student", "tf_efficientnet_lite0", "default", 64, 224),
    Case("ResNet-34 published", "resnet34", "published", 32, 224),
    Case("ResNet-50 teacher", "resnet50", "plain", 64, 224),
    Case("lite0 student", "tf_efficientnet_lite0", "default", 64, 64),
)


def main(words: list[str]) -> None:
    """Time every case, then the loader."""
    given = arguments(words)
    device = torch.device(given.device)
    small = [case._replace(batch=4, side=64) for case in CASES[:3]]
    for case in small if given.quick else CASES:
        time_case(case, device, 3 if given.quick else 20)
    time_loader(given)


def made(case: Case, device: torch.device) -> Steps:
    """The step of a case."""
    if case.kind == "plain":
        return plain_steps(case.backbone, device)
    published = case.kind == "published"
    return student_steps(case.backbone, published=published, side=case.side, device=device)


def time_case(case: Case, device: torch.device, rounds: int) -> None:
    """Rows of one case."""
    name = f"{case.name}, batch {case.batch}, {case.side} px"
    images = sample(case.batch, 3, case.side, device)
    labels = torch.randint(CLASSES, (case.batch,), device=device)
    steps = made(case, device)
    on_gpu = device.type == "cuda"
    step = stepper(steps, images, labels, torch.bfloat16 if on_gpu else torch.float32)
    for _ in range(3):
        step()
    times = []
    for _ in range(rounds):
        if on_gpu:  # into an empty queue, which never fills
            torch.cuda.synchronize()
        started = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - started))
    row(f"{name}: ms to launch a step" if on_gpu else f"{name}: ms a step", median(times))
    if not on_gpu:
        return
    torch.cuda.reset_peak_memory_stats()
    row(f"{name}: ms a step in a row", elapsed(step, rounds))
    row(f"{name}: memory, GB", torch.cuda.max_memory_allocated() / 1e9)
    work, whole = graphed(steps, images, labels, rounds)
    row(f"{name}: ms of work (as a CUDA graph)", work)
    row(f"{name}: ms a step in a row, as training takes it", whole)
    row(f"{name}: images a second", 1000 * case.batch / whole)
    row(f"{name}: memory with the graph, GB", torch.cuda.max_memory_allocated() / 1e9)


def graphed(steps: Steps, images: Tensor, labels: Tensor, rounds: int) -> tuple[float, float]:
    """Milliseconds of forward and backward as one CUDA graph, and of whole steps as they train."""
    accelerator = Accelerator(mixed_precision="bf16")
    objective = cast(Objective, steps.objective)
    gradients = Gradients(steps.network, objective, accelerator, len(images))
    optimizer = torch.optim.SGD(steps.trained, lr=1e-3, momentum=0.9)

    def step() -> None:
        gradients(images, labels)
        optimizer.step()

    for _ in range(6):
        step()
    return elapsed(lambda: gradients(images, labels), rounds), elapsed(step, rounds)


def elapsed(step: Callable[[], object], rounds: int) -> float:
    """Milliseconds of the GPU a step, one after the other."""
    first = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    last = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    first.record()
    for _ in range(rounds):
        step()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / rounds


def time_loader(given: argparse.Namespace) -> None:
    """Rows of reading photographs as training does, for a few seconds."""
    batch = 16 if given.quick else 64
    settings = {
        "data": str(given.work / "photographs"),
        "device": given.device,
        "image_size": 64 if given.quick else 224,
        "batch_size": batch,
        "out": str(given.work / "runs"),
    }
    with Screen() as screen:
        session = start_session(validate(settings), screen)
    batches = session.loaders.train.epoch(0)
    next(batches)
    seconds = 2 if given.quick else 12
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds and next(batches, None):
        count += 1
    spent = 1000 * (time.perf_counter() - started) / count
    what = f"{batch} photographs, {settings['image_size']} px, {worker_count(None)} workers"
    row(f"{what}: ms", spent)
    row(f"{what}: images a second", 1000 * batch / spent)


if __name__ == "__main__":
    main(sys.argv[1:])
