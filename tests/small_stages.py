"""Stages of training small enough to run by the dozen, and a watcher that remembers them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from conftest import enliven, lively_chain
from PIL import Image
from torch import Tensor, nn

from nettailor.core.backbone import NetOutput
from nettailor.core.device import place
from nettailor.core.loader import TrainLoader
from nettailor.core.objective import Objective
from nettailor.core.preprocessing import Preprocessing, train_transform
from nettailor.core.schedule import Schedule, parameter_groups
from nettailor.core.scores import Scores
from nettailor.core.sections import AugmentConfig
from nettailor.core.trainer import fit
from nettailor.core.training_state import Fitted
from nettailor.core.watch import Watcher
from nettailor.student.loss import TailorLoss
from nettailor.student.network import Student
from nettailor.teacher.objective import CrossEntropy

CLASSES = 4
SIDE = 32
PREPROCESSING = Preprocessing(SIDE, (0.5,) * 3, (0.25,) * 3, "bilinear", 1.0)
AUGMENTATION = AugmentConfig(scale=(0.5, 1.0), ratio=(0.8, 1.25))
COSINE = Schedule(
    epochs=4, optimizer="sgd", lr=0.05, weight_decay=1e-3, shape="cosine", warmup_epochs=1
)  # fmt: skip
PLAIN = replace(COSINE, shape="constant", warmup_epochs=0)
GOOD = Scores(50.0, 50.0, 1.0)


class Patches:
    """Noise around a colour a class."""

    def __init__(self, count: int) -> None:
        random = np.random.RandomState(0)
        self.labels = tuple(index % CLASSES for index in range(count))
        colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [120, 120, 120]])
        noise = random.randint(-40, 40, (count, SIDE, SIDE, 3))
        self.pixels = (colours[list(self.labels)][:, None, None] + noise).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), self.labels[index]


def batches(count: int = 24, batch_size: int = 8, seed: int = 1) -> TrainLoader:
    return TrainLoader(
        Patches(count),
        train_transform(PREPROCESSING, AUGMENTATION),
        batch_size=batch_size,
        seed=seed,
        workers=0,
    )


class Log:
    """A watcher that remembers."""

    def __init__(self, *, look: Callable[[int], None] | None = None) -> None:
        self.look = look
        self.rows: list[Mapping[str, float]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.steps: list[tuple[int, int]] = []
        self.warnings: list[str] = []

    def begin(
        self, history: Sequence[Mapping[str, float]], network: nn.Module, *, within: bool
    ) -> None:
        self.found, self.within = len(history), within

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.steps.append((epoch, step))

    def epoch(self, row: Mapping[str, float], network: nn.Module) -> None:
        self.rows.append(row)
        self.weights.append({name: t.clone() for name, t in network.state_dict().items()})
        if self.look is not None:
            self.look(int(row["epoch"]))


def student_and_objective(seed: int) -> tuple[Student, TailorLoss]:
    """Dropout before the classifier makes every step draw from torch's own generator."""
    torch.manual_seed(seed)
    teacher = place(lively_chain("test_resnet", CLASSES), torch.device("cpu"))
    chain = lively_chain("test_resnet", CLASSES)
    chain.classifier = nn.Sequential(nn.Dropout(0.3), chain.classifier)
    student = place(
        Student(chain, skips=3, identities=True, exits=False, batch_norm="follow", shared=True),
        torch.device("cpu"),
    )
    enliven(student.proxies, seed)
    images = next(batches().epoch(0))[0]
    objective = TailorLoss(teacher, mimic=1.0, mimicry="normalized", label_smoothing=0.1)
    objective.calibrate([images])
    return student, objective


class Tiny(nn.Module):
    """A linear classifier of an image's mean colour, with a dead weight."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, CLASSES)

    def forward(self, images: Tensor) -> NetOutput:
        return NetOutput(self.classifier(images.mean(dim=(2, 3))), [images])


def fit_tiny(
    path: Path,
    accelerator: Accelerator,
    *,
    scores: list[Scores] | None = None,
    schedule: Schedule = PLAIN,
    watcher: Watcher | None = None,
    objective: Objective | None = None,
    loader: TrainLoader | None = None,
    stop: Callable[[int, Scores], bool] | None = None,
) -> tuple[Tiny, Fitted]:
    torch.manual_seed(3)
    network = Tiny()
    script = iter(scores or [GOOD] * schedule.epochs)
    fitted = fit(
        network,
        objective or CrossEntropy(),
        loader or batches(),
        groups=parameter_groups(network.named_parameters(), schedule),
        schedule=schedule,
        accelerator=accelerator,
        validate=lambda _: next(script),
        state_path=path,
        watcher=watcher or Log(),
        stop=stop,
    )
    return network, fitted
