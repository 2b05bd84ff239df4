"""A small vision transformer of its own weights, tailored to another task, beside fewer blocks.

    python benchmarks/transformer.py --pretrain CIFAR/train --task FLOWERS --out runs/transformer

The network is pretrained on the images of `--pretrain` (a folder a class) at 32 px, once: `--out`
keeps its state. For each seed the images of `--task` are split 60 : 20 : 20 into train, validation
and test. A teacher is fine-tuned; for each budget a student shrinks to it and is fine-tuned. Beside
it stand the first blocks of the same pretrained network under a fresh head, as many as fit the
budget, trained for all the epochs that the others had, the teacher's included. Teacher, rival and
fine-tuning have the best on validation of three learning rates. The test is read once, at the end.
"""

import argparse
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from first_blocks import best, longest, shorter
from safetensors.torch import load_file, save_file
from seeds import of_each_seed, print_table
from small_images import loaders
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import nettailor as nt
from nettailor.core.scores import classify
from nettailor.fitting import accelerator_for, seeded
from nettailor.share import UNITS
from nettailor.student.costs import shares_of

SIZE, EPOCHS, RATES, BUDGETS = 32, (20, 8, 6), (3e-4, 1e-3, 3e-3), (0.6, 0.4)


def network(classes: int) -> VisionTransformer:
    """96 wide, 9 layers, 64 patches of 4 px: 1.0 M parameters."""
    return VisionTransformer(
        img_size=SIZE, patch_size=4, embed_dim=96, depth=9, num_heads=3, num_classes=classes
    )


def pretrained(folder: Path, out: Path, epochs: int) -> dict[str, Tensor]:
    """The weights without the classifier's; trained where `out` has none."""
    file = out / "pretrained.safetensors"
    if not file.is_file():
        (train, val), classes = loaders(folder, (0.95, 0.05), size=SIZE, batch=128)
        with seeded(0, "network"):
            vit = network(classes)
        run = nt.Run(out / "pretraining")
        done = nt.fit(
            vit, nt.CrossEntropy(), train, val,
            epochs=epochs, lr=1e-3, weight_decay=0.05, warmup_epochs=1, run=run,
        )  # fmt: skip
        print(f"pretrained: {done.scores.accuracy:.2f} % of 5 % that were held out")
        state = {name: value.contiguous() for name, value in vit.state_dict().items()}
        save_file(state, file)
    return {name: value for name, value in load_file(file).items() if not name.startswith("head.")}


def compare(
    weights: dict[str, Tensor], folder: Path, limit: int | None, seed: int
) -> list[dict[str, Any]]:
    """A row for the teacher, and for each budget one of each network."""
    (train, val, test), classes = loaders(
        folder, (0.6, 0.2, 0.2), size=SIZE, batch=128, seed=seed, limit=limit
    )
    with seeded(seed, "network"):
        vit = network(classes)
    vit.load_state_dict(weights, strict=False)
    start = nt.Backbone(vit)
    fit = partial(nt.fit, train_loader=train, val_loader=val, seed=seed, verbose=False)
    usual = partial(fit, loss=nt.CrossEntropy(), optimizer="adamw", weight_decay=0.05)
    teacher = best(lambda: deepcopy(start), partial(usual, epochs=EPOCHS[0]), RATES)
    loss = nt.TailorLoss(teacher).after_cut()
    found: list[tuple[str, float, float, int, nn.Module]]
    found = [("teacher", 1.0, 1.0, len(start.blocks), teacher)]
    for most in BUDGETS:
        with seeded(seed, "student"):
            student = nt.Student(teacher)
        passed = nt.shrink(
            student, teacher, train, val,
            max_flops=most, epochs=EPOCHS[1], seed=seed, verbose=False,
        )  # fmt: skip
        small = best(
            partial(deepcopy, passed[-1].network), partial(fit, loss=loss, epochs=EPOCHS[2]), RATES
        )
        flops, params = (
            shares_of(small, teacher, SIZE, unit).of(small.wiring, small.wiring.paths)
            for unit in UNITS
        )
        blocks = len(small.wiring.of_kind("block"))
        found.append((f"tailored {most:g}", flops, params, blocks, small))
        blocks, shares_kept = longest(start, most, SIZE, seed)
        makes = partial(shorter, start, blocks, seed)
        rival = best(makes, partial(usual, epochs=sum(EPOCHS)), RATES)
        found.append((f"first blocks {most:g}", *shares_kept, blocks, rival))
    cpu = accelerator_for("auto")
    score = [
        [classify(one[-1], loader, cpu).scores().accuracy for loader in (val, test)]
        for one in found
    ]
    keys = ("network", "flops", "params", "blocks", "val", "test")
    return [
        dict(zip(keys, (*one[:-1], *two), strict=True))
        for one, two in zip(found, score, strict=True)
    ]


def main() -> None:
    """Pretrain where that is not done, compare every seed, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrain", type=Path, required=True)
    parser.add_argument("--task", type=Path)
    parser.add_argument("--limit", type=int, help="so many images of the task, all parts together")
    parser.add_argument("--epochs", type=int, default=10, help="of pretraining")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/transformer"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    weights = pretrained(given.pretrain, given.out, given.epochs)
    if given.task is None:
        return
    seeds = of_each_seed(given, given.task.name, partial(compare, weights, given.task, given.limit))
    columns = {"FLOPs": ("flops", 2), "params": ("params", 2), "blocks": ("blocks", 0)}
    print_table(seeds, columns | {"val %": ("val", 1), "test %": ("test", 1)})


if __name__ == "__main__":
    main()
