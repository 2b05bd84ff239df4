"""Many tasks on one set of blocks: accuracy, own parameters, FLOPs, and a score of all.

    python benchmarks/tasks.py --images TRASHNET FLOWERS CIFAR digits --size 64 --out runs/tasks

For each task (a folder of images a class, or `digits`) and seed, by the commands: "own network" is
the teacher, fine-tuned whole; "shared blocks" is `tailor --finetune task`, whose blocks stay as
pretrained; "head only" trains a classifier on the pretrained network. Own parameters are what a
task adds to the backbone, over all that the backbone has.

The score is that of the Visual Decathlon (Rebuffi, Bilen and Vedaldi, 2017), per task
1000 · max(0, 1 − E / E_max)², E the error on the test, and E_max twice the error of the task's own
network, which so has 250. Further settings are handed to every call. Finished seeds are read from
`--out`.
"""

import argparse
from pathlib import Path
from statistics import mean

from called import folder_of, of_each_task, of_sets, row, summary_in
from seeds import Rows, images_parser, print_table

COLUMNS = {
    "test %": ("test", 1), "own parameters": ("own", 3), "FLOPs": ("flops", 3),
    "blocks": ("blocks", 1),
}  # fmt: skip


def measure(given: argparse.Namespace, seed: int) -> Rows:
    """A row for each way."""
    out = given.out / "runs" / f"{given.images.name}-{seed}"
    common = {"data": str(given.images), "image_size": given.size, "seed": seed, "out": str(out)}
    shared = {**common, "prune.finetune": "task"}
    alone = {**common, "eliminate.top": [], "eliminate.references": "[head-only]"}
    summary = summary_in(folder_of("tailor", shared, *given.settings))
    heads = folder_of("eliminate", alone, *given.settings)
    (head,) = heads.parent.glob("head-only/*/summary.json")
    teacher = summary["teacher"]
    ways = {"own network": teacher, "shared blocks": summary, "head only": summary_in(head.parent)}
    return [row(name, one, teacher) for name, one in ways.items()]


def score(error: float, own: float) -> float:
    """Points of a task of at most 1000; error, own: in %, of the network and of the task's own."""
    most = 2 * max(own, 0.1)  # a task that is solved has no errors to halve
    return 1000 * max(0.0, 1 - error / most) ** 2


def main() -> None:
    """Measure every task and seed, print the tables."""
    parser = images_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tasks"))
    tasks = of_each_task(parser, measure)
    print_table(of_sets(tasks), COLUMNS)
    print("\n| all tasks | score | parameters in all | mean FLOPs |\n|---|---|---|---|")
    for number, way in enumerate(("own network", "shared blocks", "head only")):
        of_way = [[rows[number] for rows in seeds] for seeds in tasks.values()]
        own = [[rows[0] for rows in seeds] for seeds in tasks.values()]
        points = sum(
            mean(
                score(100 - one["test"], 100 - first["test"])
                for one, first in zip(*pair, strict=True)
            )
            for pair in zip(of_way, own, strict=True)
        )
        added = sum(mean(row["own"] for row in rows) for rows in of_way)
        flops = mean(mean(row["flops"] for row in rows) for rows in of_way)
        print(f"| {way} | {points:.0f} | {added + (number > 0):.2f} | {flops:.2f} |")


if __name__ == "__main__":
    main()
