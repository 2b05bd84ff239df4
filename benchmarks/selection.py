"""Networks of equal FLOPs: a student that shrank, first blocks, chance, a mixture, one front.

    python benchmarks/selection.py --images FLOWERS RUBBISH --size 64 --out runs/selection

For each folder (`digits`: scikit-learn's) and seed images are drawn to train, validate and test on,
and tf_efficientnet_lite0 is fine-tuned as the teacher of all. For each budget of FLOPs these are
trained as `nt.tailor` trains, with 10 epochs of fine-tuning in the place of 20:

- shrinks: what `nt.shrink` ends with;
- first blocks: as many as the budget allows, with the teacher's weights and an exit, fine-tuned as
  long as the others, and as long as all of a student's training takes;
- by chance: as the first, with what goes drawn by chance;
- mixture: the best route of a student whose paths mixed, once for all budgets;
- front: the dearest size within the budget that a student passed which shrank without one.

Each training ends with its last epoch; the test is read once, at the end. Finished seeds are read
from `--out`. With `--shared` they keep the pretrained blocks, frozen, and train what is a task's
own: norms, adapters and exits; it measures no draw, mixture or front.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from first_blocks import first_blocks
from seeds import Rows, each_set, of_each_seed, print_sets, print_table, sets_parser
from small_images import loaders
from torch import nn

import nettailor as nt
from nettailor.core.cost import module_flops
from nettailor.core.judge import Judge
from nettailor.core.scores import Scores, classify
from nettailor.core.weights import load_pretrained
from nettailor.fitting import accelerator_for, seeded
from nettailor.prune.choice import least_lost
from nettailor.prune.depths import half_of
from nettailor.prune.remove import remove
from nettailor.prune.shrink import Shrinking
from nettailor.shrinking import shrink
from nettailor.student.costs import shares_of
from nettailor.student.wiring import Path as Way

SHRINKS, FINE_TUNED = 4, 10  # epochs of a student to a budget, and of what is left


def by_chance(network: Shrinking, _: Any, __: Any, target: float, goal: float) -> tuple[Way, ...]:
    """What goes is drawn, of all that leaves four fifths of the budget or more."""
    route = network.route
    while network.cost_of(route) > target:
        fitting = [one.route for one in network.removals(route)]
        fitting = [one for one in fitting if network.cost_of(one) >= 0.8 * goal] or fitting
        if not fitting:
            break
        route = fitting[int(torch.randint(len(fitting), ()))]
    return route


class Measured:
    """The networks of one seed: trained, and a row for each."""

    def __init__(self, given: argparse.Namespace, seed: int) -> None:
        self.size, self.seed, self.rows, self.shared = given.size, seed, Rows(), given.shared
        (train, val, test), classes = loaders(
            given.images, given.counts, size=given.size, batch=64, seed=seed
        )
        self.how: dict[str, Any] = {
            "train_loader": train,
            "val_loader": val,
            "seed": seed,
            "verbose": False,
        }
        self.splits = {"val": val, "test": test}
        with seeded(seed, "classifier"):
            self.teacher, _ = load_pretrained("tf_efficientnet_lite0", classes, "auto", given.size)
        self.begins = deepcopy(self.teacher) if self.shared else self.teacher
        self.epochs = given.epochs

    def teach(self) -> None:
        """Fine-tune the teacher, from which all others come."""
        started = time.process_time()
        nt.fit(self.teacher, nt.CrossEntropy(), epochs=self.epochs, **self.how)
        self.how["judge"] = Judge(teacher=self.scores(self.teacher, "val"))
        self.add("teacher", self.teacher, time.process_time() - started)

    def scores(self, network: nn.Module, split: str) -> Scores:
        """On the images of a split."""
        return classify(network, self.splits[split], accelerator_for("auto")).scores()

    def flops(self, network: nn.Module) -> int:
        """Multiply-adds of an image."""
        return module_flops(deepcopy(network), (3, self.size, self.size))

    def add(self, name: str, network: nn.Module, seconds: float) -> None:
        """A row of a network as it stands."""
        blocks = network.wiring.of_kind("block") if isinstance(network, nt.Student) else ()
        scores = {split: self.scores(network, split) for split in self.splits}
        self.rows.append(
            {"network": name, "flops": self.flops(network) / self.flops(self.teacher)}
            | {split: one.accuracy for split, one in scores.items()}
            | {"seconds": seconds, "blocks": [one.target for one in blocks]}
        )
        print(self.rows[-1], flush=True)

    def grown(self) -> nt.Student:
        """A student before it is trained."""
        with seeded(self.seed, "student"):
            return nt.Student(self.begins, shared=self.shared, adapters=self.shared)

    def finish(
        self, name: str, start: nt.Student, seconds: float, epochs: int = FINE_TUNED
    ) -> None:
        """Fine-tune a copy of what a cut left; a row of it."""
        started, network = time.process_time(), deepcopy(start)
        loss = nt.TailorLoss(self.teacher).after_cut()
        fitted = nt.fit(network, loss, epochs=epochs, **self.how)
        self.add(name, network, seconds + time.process_time() - started)
        # accuracy and loss on validation after half of the epochs, by which `nt.tailor` prefers one
        half = fitted.history[half_of(epochs) - 1]
        self.rows[-1] |= {"half": [half["val_judged"], half["val_loss"]]}


def measure(given: argparse.Namespace, seed: int) -> Rows:
    """A row for the teacher, and for each budget one of each way."""
    measured = Measured(given, seed)
    measured.teach()
    teacher, longer = measured.teacher, SHRINKS + FINE_TUNED
    for budget in given.budgets:
        drawn = () if given.shared else (("by chance", by_chance),)
        for name, choose in (("shrinks", least_lost), *drawn):
            started, student = time.process_time(), measured.grown()
            passed = shrink(student, teacher, max_flops=budget, choose=choose, **measured.how)
            seconds = time.process_time() - started
            last = passed[-1]
            measured.finish(f"{name}, {budget:g}", last.network, seconds)
            if choose is by_chance:
                continue
            shares = shares_of(student, teacher, given.size, "flops")
            first = first_blocks(student.wiring, partial(shares.of, student.wiring), budget)
            assert first is not None, "the first block and an exit cost less than any budget here"
            start = remove(measured.grown(), first)
            measured.finish(f"first blocks, {budget:g}", start, 0)
            measured.finish(f"first blocks, longer, {budget:g}", start, 0, longer)
    if given.shared:
        return measured.rows
    started = time.process_time()
    passed = shrink(measured.grown(), teacher, **measured.how)
    seconds = time.process_time() - started
    for budget in given.budgets:
        size = next((one for one in passed if one.cost <= budget), passed[-1])
        measured.finish(f"front, {budget:g}", size.network, seconds)
    started, student = time.process_time(), measured.grown()
    train = measured.how["train_loader"]
    nt.fit(student, nt.TailorLoss(teacher), epochs=SHRINKS, **measured.how)
    seconds = time.process_time() - started
    for budget in given.budgets:
        plan = nt.best_route(student, teacher, train, max_flops=budget, seed=seed)
        cut = nt.cut(student, plan, train, seed=seed)
        measured.finish(f"mixture, {budget:g}", cut, seconds)
    return measured.rows


def print_kept(sets: Mapping[str, Sequence[Rows]], budgets: Sequence[float]) -> None:
    """A line a set and budget: of how many seeds' students each block of the backbone is left."""
    kept = {
        f"{name}, {budget:g}": Counter(
            block
            for rows in seeds
            for row in rows
            if row["network"] == f"shrinks, {budget:g}"
            for block in row["blocks"]
        )
        for name, seeds in sets.items()
        for budget in budgets
    }
    blocks = range(1, max(max(one) for one in kept.values()) + 1)
    print(
        f"\n| seeds that keep block | {' | '.join(map(str, blocks))} |\n|---|{'---|' * len(blocks)}"
    )
    for name, counts in kept.items():
        print(f"| {name} | {' | '.join(str(counts[block] or '') for block in blocks)} |")


def parser_of(text: str) -> argparse.ArgumentParser:
    """As `sets_parser`, and whether blocks are shared."""
    parser = sets_parser(text)
    parser.add_argument("--shared", action="store_true", help="frozen blocks, as `task` packs have")
    return parser


def add_budgets(parser: argparse.ArgumentParser, out: str) -> None:
    """The budgets of FLOPs, and where rows are kept if nothing else is said."""
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.4, 0.25, 0.15])
    parser.add_argument("--out", type=Path, default=Path(out))


def print_all(text: str, out: str, measure: Callable[[argparse.Namespace, int], Rows]) -> None:
    """Measure every set and seed, print the table; text: of the script. out: its usual folder."""
    parser, sets = parser_of(text), {}
    add_budgets(parser, out)
    for name, here in each_set(parser.parse_args()):
        sets[name] = of_each_seed(here, name, partial(measure, here))
    print_sets(sets)


def main() -> None:
    """Measure every seed, print the table."""
    parser, sets = parser_of(__doc__), {}
    add_budgets(parser, "runs/selection")
    columns = {"FLOPs": ("flops", 3), "val %": ("val", 1), "test %": ("test", 1)}
    given = parser.parse_args()
    for name, here in each_set(given):
        sets[name] = of_each_seed(here, name, partial(measure, here))
        print_table(sets[name], columns | {"seconds": ("seconds", 0)})
    print_sets(sets)
    print_kept(sets, given.budgets)


if __name__ == "__main__":
    main()
