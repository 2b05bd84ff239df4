"""How the whole network fine-tunes on a set of images, by optimizer and learning rate.

    python benchmarks/recipe.py --images FLOWERS RUBBISH --size 64 --out runs/recipe
    python benchmarks/recipe.py --rates "adamw 0.002" "fastai 0.002" "timm 0.001"

For each folder (`digits`: scikit-learn's) and seed images are drawn to train, validate and test on,
and tf_efficientnet_lite0 is fine-tuned from its ImageNet weights, an epoch of warm-up included.
Rivals, for as many epochs: "fastai" (`pip install fastai`) is its `fine_tune`, "timm" its usual
settings (`recipe_rivals.py`), each with a learning rate. Each training ends with its last epoch;
the test is read once, at the end. Finished seeds are read from `--out`.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

from recipe_rivals import fastai, timm
from seeds import each_set, of_each_seed, print_sets, sets_parser
from small_images import loaders
from torch import nn
from torch.utils.data import DataLoader

import nettailor as nt
from nettailor.core.scores import classify
from nettailor.core.weights import load_pretrained
from nettailor.fitting import accelerator_for, seeded

RATES = ("sgd 0.05", "adamw 0.0005", "adamw 0.001", "adamw 0.002", "adamw 0.003")


def measure(given: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """A row for each optimizer and learning rate."""
    (train, val, test), classes = loaders(
        given.images, given.counts, size=given.size, batch=64, seed=seed
    )
    accelerator = accelerator_for("auto")

    def accuracy(loader: DataLoader[Any], network: nn.Module) -> float:
        return classify(network, loader, accelerator).scores().accuracy

    rows = []
    for rate in given.rates:
        optimizer, lr = rate.split()
        with seeded(seed, "classifier"):
            network, _ = load_pretrained("tf_efficientnet_lite0", classes, "auto", given.size)
        started = time.process_time()
        with seeded(seed, "training"):
            if optimizer == "fastai":
                fastai(network, train, val, given.epochs, float(lr))
            elif optimizer == "timm":
                timm(network, train, given.epochs, float(lr), partial(accuracy, val))
            else:
                nt.fit(
                    network, nt.CrossEntropy(), train, val, epochs=given.epochs,
                    optimizer=optimizer, lr=float(lr), warmup_epochs=1, seed=seed, verbose=False,
                )  # fmt: skip
        seconds = time.process_time() - started
        scores = [accuracy(one, network) for one in (val, test)]
        rows.append({"network": rate, "val": scores[0], "test": scores[1], "seconds": seconds})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure every seed, print the table."""
    parser = sets_parser(__doc__)
    parser.add_argument("--rates", nargs="+", default=list(RATES), help='such as "adamw 0.001"')
    parser.add_argument("--out", type=Path, default=Path("runs/recipe"))
    sets = {
        name: of_each_seed(here, name, partial(measure, here))
        for name, here in each_set(parser.parse_args())
    }
    print_sets(sets)


if __name__ == "__main__":
    main()
