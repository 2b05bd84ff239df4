"""Studies of the paper (NetTailor, CVPR 2019) by the commands themselves: teacher, skips, depth.

    python benchmarks/paper.py --study skips --images TRASHNET FLOWERS --size 64 --out runs/paper

Each network of a study is one call of `nettailor tailor`, with the settings in `STUDIES`; all of a
seed go on from one teacher of each backbone. Images are folders a class, or `digits`, and are split
by the command. What is "published" is the method as published: blocks stay frozen, their place is
taken by proxies, blocks go by the rank of their path weights once the student has trained, for six
numbers of blocks and for none, each fine-tuned, and the leanest within tolerance is kept. "Ours" is
the command's default, without a budget likewise. Further settings, such as `--backbone resnet18
--weights FOLDER`, are handed to every call. Finished seeds are read from `--out`.
"""

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from called import folder_of, of_each_task, of_sets, row, summary_in
from scipy.stats import spearmanr
from seeds import Rows, images_parser, print_table

PUBLISHED = {
    "prune.by": "rank", "prune.finetune": "task", "prune.epochs": 10,
    "student.skips": 3, "student.epochs": 12, "student.lr": 0.003, "student.distill": 0,
    "student.identities": False, "student.exits": False, "student.adapters": False,
    "student.batch_norm": "follow",
}  # fmt: skip
STUDIES: dict[str, dict[str, dict[str, Any]]] = {
    "difficulty": {"ours": {}},
    "teacher": {
        "published, activations and logits": PUBLISHED | {"student.distill": 0.5},
        "published, activations alone": PUBLISHED,
        "published, logits alone": PUBLISHED | {"student.distill": 0.5, "student.mimic": 0},
        "published, none": PUBLISHED | {"student.mimic": 0},
        "ours, logits": {},
        "ours, none": {"student.distill": 0},
    },
    "skips": {
        **{f"published, skips {k}": PUBLISHED | {"student.skips": k} for k in (1, 3, 5, "dense")},
        "ours": {},
    },
    "depth": {
        f"{how}, {name}": settings | {"backbone": name}
        for name in ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
        for how, settings in (("published", PUBLISHED), ("ours", {}))
    },
}
COLUMNS = {
    "test %": ("test", 1), "FLOPs": ("flops", 3), "M": ("mflops", 1), "parameters": ("params", 3),
    "blocks": ("blocks", 1), "seconds": ("seconds", 0),
}  # fmt: skip


def measure(given: argparse.Namespace, seed: int) -> Rows:
    """A row for each network of the study, and before it one for each teacher."""
    rows, taught = Rows(), set[str]()
    out = given.out / "runs" / f"{given.images.name}-{seed}"
    common = {"data": str(given.images), "image_size": given.size, "seed": seed, "out": str(out)}
    for name, settings in STUDIES[given.study].items():
        summary = summary_in(folder_of("tailor", common | settings, "--overwrite", *given.settings))
        teacher = summary["teacher"]
        whole = f"teacher, {teacher['backbone']}"
        if whole not in taught:
            taught.add(whole)
            rows.append(row(whole, teacher, teacher))
        rows.append(row(name, summary, teacher))
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure every seed of every set, print the tables."""
    parser = images_parser(__doc__)
    parser.add_argument("--study", choices=STUDIES, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/paper"))
    sets = of_each_task(parser, measure)
    print_table(of_sets(sets), COLUMNS)
    if len(sets) > 2:
        print_ranks(sets)


def print_ranks(sets: dict[str, list[Rows]]) -> None:
    """How sizes go with the difficulty of a task: Spearman's ρ of the means of sets.

    Difficulty is the teacher's error on the test.
    """
    means = [
        {key: [mean(one[key] for one in rows) for rows in zip(*seeds, strict=True)]
         for key in ("test", "flops", "params", "blocks")}
        for seeds in sets.values()
    ]  # fmt: skip
    hard = [100 - one["test"][0] for one in means]
    first = next(iter(sets.values()))[0]
    print("\n| rank correlation with the teacher's error | FLOPs | parameters | blocks |")
    print("|---|---|---|---|")
    for number, network in enumerate(first):
        if network["network"].startswith("teacher"):
            continue
        found = [
            f"{spearmanr(hard, [one[key][number] for one in means]).statistic:.2f}"
            for key in ("flops", "params", "blocks")
        ]
        print(f"| {network['network']} | {' | '.join(found)} |")


if __name__ == "__main__":
    main()
