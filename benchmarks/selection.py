"""Networks of equal FLOPs: a student that shrank, its front, chance, a mixture, the first blocks.

    python benchmarks/selection.py --images FLOWERS --size 64 --out runs/selection

For each seed the images (scikit-learn's digits where none are given) are split 60 : 20 : 20, and
tf_efficientnet_lite0 is fine-tuned as the teacher of all. For each budget of FLOPs networks are
trained as long: `nt.shrink`; the same with what goes drawn by chance; the best route of a student
that mixes its paths; the dearest size within the budget that the student passed which shrank to the
least of the budgets; and as many first blocks as the budget allows, under a fresh head: once from
the teacher, with the losses and the rate of the others, and once from the pretrained weights, for
the teacher's epochs as well, at the better of two learning rates. Each keeps its best epoch on
validation; the test is read once, at the end. Finished seeds are read from `--out`.
"""

import argparse
import time
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from first_blocks import best, longest, shorter
from seeds import of_each_seed, print_table
from small_images import loaders
from torch import nn

import nettailor as nt
from nettailor.core.cost import module_flops
from nettailor.core.scores import classify
from nettailor.core.weights import load_pretrained
from nettailor.fitting import accelerator_for, seeded
from nettailor.prune.choice import cheapest
from nettailor.prune.distillation import Distillation
from nettailor.prune.shrink import DUST, WITHIN, Removal, Shrinking
from nettailor.shrinking import shrink
from nettailor.teacher.target import as_target

TEACHER, STUDENT, FINETUNE = 10, 8, 6  # epochs
STUDENT_RATE, RATES = 0.003, (0.002, 0.004)  # of a student's fine-tuning, of first blocks


def by_chance(network: Shrinking, *_: Any) -> Removal | None:
    """What goes is drawn, of all after which the budget can still be used up."""
    aim = min(network.dearest_within(network.route), (1 - WITHIN) * float(network.least)) - DUST
    fitting = [one for one in network.removals() if network.dearest_within(one.route) >= aim]
    return fitting[int(torch.randint(len(fitting), ()))] if fitting else None


def measure(given: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """A row for the teacher and for each budget one of each way."""
    (train, val, test), classes = loaders(
        given.images, (0.6, 0.2, 0.2), size=given.size, batch=64, seed=seed, limit=given.limit
    )
    cpu = accelerator_for("auto", "auto")
    with seeded(seed, "classifier"):
        teacher, _ = load_pretrained("tf_efficientnet_lite0", classes, "auto", given.size)
    start, rows = deepcopy(teacher), list[dict[str, Any]]()
    whole = module_flops(deepcopy(teacher), (3, given.size, given.size))

    def add(name: str, network: nn.Module, seconds: float) -> None:
        flops = module_flops(deepcopy(network), (3, given.size, given.size)) / whole
        scores = [classify(network, one, cpu).scores().accuracy for one in (val, test)]
        blocks = network.wiring.of_kind("block") if isinstance(network, nt.Student) else ()
        rows.append({"network": name, "flops": flops, "val": scores[0], "test": scores[1],
                     "seconds": seconds, "blocks": [one.target for one in blocks]})  # fmt: skip
        print(rows[-1], flush=True)

    started = time.process_time()
    how = {"train_loader": train, "val_loader": val, "seed": seed, "verbose": False}
    nt.fit(teacher, nt.CrossEntropy(), epochs=given.epochs[0], **how)
    add("teacher", teacher, time.process_time() - started)

    def finish(name: str, network: nn.Module, seconds: float) -> None:
        started, network = time.process_time(), deepcopy(network)
        nt.fit(network, nt.TailorLoss(teacher).after_cut(), epochs=given.epochs[2], **how)
        add(name, network, seconds + time.process_time() - started)

    for name, choose in (("shrinks", cheapest), ("by chance", by_chance)):
        for budget in given.budgets:
            started = time.process_time()
            with seeded(seed, "student"):
                student = nt.Student(teacher)
            passed = shrink(
                student, teacher, max_flops=budget, epochs=given.epochs[1], choose=choose, **how
            )
            seconds = time.process_time() - started
            finish(f"{name}, {budget:g}", passed[-1].network, seconds)
            if choose is cheapest and budget == min(given.budgets):
                for most in (one for one in given.budgets if one > budget):
                    size = next(one for one in passed if one.cost <= most)
                    finish(f"front, {most:g}", size.network, seconds)
    started = time.process_time()
    with seeded(seed, "student"):
        student = nt.Student(teacher)
    nt.fit(student, nt.TailorLoss(teacher), epochs=given.epochs[1], **how)
    seconds = time.process_time() - started
    for budget in given.budgets:
        plan = nt.best_route(student, teacher, train, max_flops=budget, seed=seed)
        finish(f"mixture, {budget:g}", nt.cut(student, plan, train, seed=seed), seconds)
    for budget in given.budgets:
        blocks, _ = longest(start, budget, given.size, seed)
        started, first = time.process_time(), shorter(teacher, blocks, seed)
        nt.fit(
            first,
            Distillation(as_target(teacher)),
            epochs=sum(given.epochs[1:]),
            lr=STUDENT_RATE,
            **how,
        )
        add(f"first blocks of the teacher, {budget:g}", first, time.process_time() - started)
        started, makes = time.process_time(), partial(shorter, start, blocks, seed)
        long = partial(nt.fit, loss=nt.CrossEntropy(), epochs=sum(given.epochs), **how)
        add(f"first blocks, {budget:g}", best(makes, long, RATES), time.process_time() - started)
    return rows


def main() -> None:
    """Measure every seed, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--limit", type=int, help="so many images, all parts together")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.4, 0.25, 0.15])
    parser.add_argument("--epochs", type=int, nargs=3, default=[TEACHER, STUDENT, FINETUNE])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/selection"))
    given = parser.parse_args()
    name = "digits" if given.images is None else given.images.name
    seeds = of_each_seed(given, name, partial(measure, given))
    columns = {"FLOPs": ("flops", 3), "val %": ("val", 1), "test %": ("test", 1)}
    print_table(seeds, columns | {"seconds": ("seconds", 0)})


if __name__ == "__main__":
    main()
