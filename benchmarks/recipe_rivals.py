"""How others fine-tune the same network on the same images: fastai, and timm's usual settings."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader

import nettailor as nt
from nettailor.core.program import Logits

Loader = DataLoader[Any]
Score = Callable[[nn.Module], float]


def fastai(chain: nt.Backbone, train: Loader, val: Loader, epochs: int, lr: float) -> None:
    """`Learner.fine_tune`: an epoch of the new head, then all, earlier layers at a hundredth."""
    from fastai.callback.schedule import Learner
    from fastai.data.core import DataLoaders
    from fastai.losses import CrossEntropyLossFlat

    def groups(network: Logits) -> list[list[nn.Parameter]]:
        head = list(chain.classifier.parameters())
        ids = set(map(id, head))
        return [[one for one in network.parameters() if id(one) not in ids], head]

    with TemporaryDirectory() as folder:
        learner = Learner(
            DataLoaders(train, val), Logits(chain), loss_func=CrossEntropyLossFlat(),
            splitter=groups, path=Path(folder),
        )  # fmt: skip
        with learner.no_bar(), learner.no_logging():
            learner.fine_tune(epochs - 1, base_lr=lr)


def timm(chain: nt.Backbone, train: Loader, epochs: int, lr: float, score: Score) -> None:
    """AdamW with 0.05 of weight decay and rates that fall by 0.75 a layer, label smoothing, EMA."""
    layers = [chain.stem, *chain.blocks, nn.ModuleList([chain.neck, chain.classifier])]
    groups = [
        {
            "params": [one for one in layer.parameters() if (one.ndim > 1) == decayed],
            "lr_scale": 0.75 ** (len(layers) - 1 - number),
            "weight_decay": 0.05 * decayed,
        }
        for number, layer in enumerate(layers)
        for decayed in (True, False)
    ]
    optimizer = create_optimizer_v2(groups, "adamw", lr=lr, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=epochs, warmup_epochs=1, warmup_lr=lr / 100, min_lr=0.0,
        step_on_epochs=False, updates_per_epoch=len(train),
    )  # fmt: skip
    loss, average = LabelSmoothingCrossEntropy(0.1), ModelEmaV3(chain, decay=0.99, use_warmup=True)
    step = 0
    for _ in range(epochs):
        chain.train()
        for images, labels in train:
            scheduler.step_update(step)
            optimizer.zero_grad()
            loss(chain(images).logits, labels).backward()
            optimizer.step()
            average.update(chain, step=step)
            step += 1
    if score(average.module) > score(chain):
        chain.load_state_dict(average.module.state_dict())
