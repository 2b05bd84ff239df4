"""What a student step costs beside a plain fine-tune step of the same network.

    python benchmarks/step_cost.py

The two kinds of step run in turn in one process, so that a drifting machine is fair to both; the
figure is the ratio of their medians.

The floor, in passes over the backbone (forward = 1, gradient of the inputs = 1, gradient of the
weights = 1): a plain step takes 3. The default student takes as many at its start, which is timed
here, and 3 C + 1 once something is gone, where its route costs C of the backbone and the teacher is
asked (`whole_way.py` times a whole run); the published one, with frozen blocks, 2 + 1, so 1.0
before any proxy (`--skips`) is.

Operations are operators of torch in one step, forward and backward; views, bare allocations and
the optimizer are left out. On a GPU each is a launch or more, some 5 to 10 microseconds.
"""

import argparse
import statistics
import time
from itertools import product

import torch
from steps import CLASSES, plain_steps, stepper, student_steps

from nettailor.core.latency import sample


def measure(
    backbone: str, student_of: str, *, batch: int, side: int, skips: int, rounds: int, device: str
) -> str:
    """One line of the table for a backbone; the student is "default" or "published"."""
    where = torch.device(device)
    images = sample(batch, 3, side, where)
    labels = torch.randint(CLASSES, (batch,), device=where)
    both = {
        "plain": plain_steps(backbone, where),
        "student": student_steps(
            backbone, published=student_of == "published", side=side, device=where, skips=skips
        ),
    }
    # of the second step: what is made once is no part of it
    operations = {
        name: [steps.operations(images, labels) for _ in range(2)][-1]
        for name, steps in both.items()
    }
    # as training computes by itself
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    in_turn = {name: stepper(steps, images, labels, dtype) for name, steps in both.items()}
    in_a_row = 5 if where.type == "cuda" else 1  # launches run ahead of the GPU, as in training
    times: dict[str, list[float]] = {name: [] for name in in_turn}
    for number in range(rounds + 3):
        for name, step in in_turn.items():
            started = time.perf_counter()
            for _ in range(in_a_row):
                step()
            if where.type == "cuda":
                torch.cuda.synchronize()
            if number >= 3:
                times[name].append((time.perf_counter() - started) / in_a_row)
    median = {name: 1000 * statistics.median(values) for name, values in times.items()}
    ratios = sorted(s / p for s, p in zip(times["student"], times["plain"], strict=True))
    low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
    return (
        f"{backbone:<22} {student_of:<10} {median['plain']:>9.1f} {median['student']:>11.1f} "
        f"{median['student'] / median['plain']:>7.2f}   {low:.2f} to {high:.2f}"
        f"   {operations['student']:>6} / {operations['plain']}"
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
        "middle half      operations"
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
