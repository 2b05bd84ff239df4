"""`fit`: train any network of the library on anybody's DataLoader."""

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from torch import nn
from torch.utils.data import DataLoader

from nettailor.core.console import Screen
from nettailor.core.device import chosen_precision, place
from nettailor.core.epochs import LoaderEpochs, checked, own_kept, seed_loader
from nettailor.core.errors import UserError
from nettailor.core.files import read_json, write_json
from nettailor.core.judge import Judge
from nettailor.core.objective import Objective
from nettailor.core.random_state import random_state, seed_stage, set_random_state
from nettailor.core.run_folder import RunFolder
from nettailor.core.run_lock import hold, let_go
from nettailor.core.run_settings import unlike
from nettailor.core.schedule import Schedule, known_optimizers
from nettailor.core.scores import Scores, classify
from nettailor.core.trainer import Stop
from nettailor.core.training_state import Fitted
from nettailor.stage import train_stage
from nettailor.student.loss import TailorLoss
from nettailor.student.network import Student

Loader = DataLoader[Any]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bf16", "fp16"]
STUDENT_LR = 0.003
_CALIBRATED = 5  # batches for the scales of the mimicry


class Run:
    """A folder that keeps what is trained: states to go on from, metrics.csv, TensorBoard's events.

    A script that was stopped is started again as it was: each `fit` goes on from its last state,
    and one that is finished is not trained again. The calls are told apart by their names; what
    each was called with is in calls.json.
    """

    def __init__(self, folder: str | Path) -> None:
        """UserError while another process is at work in the folder."""
        self.folder = RunFolder(Path(folder).expanduser())
        self.folder.path.mkdir(parents=True, exist_ok=True)
        hold(self.folder.path)
        self._calls = 0

    def close(self) -> None:
        """Leave the folder to others."""
        let_go(self.folder.path)

    def next_name(self) -> str:
        """`fit-1`, `fit-2` … for calls that were given no name, in their order."""
        self._calls += 1
        return f"fit-{self._calls}"

    def begin(self, name: str, **settings: Any) -> None:
        """Note what a call is made with.

        UserError where one of that name has trained with other settings: its state binds it.
        """
        settings = json.loads(json.dumps(settings, default=float))  # NumPy's numbers as Python's
        file = self.folder.path / "calls.json"
        calls = read_json(file) if file.is_file() else {}
        if not isinstance(calls, dict) or not isinstance(calls.get(name, {}), dict):
            raise UserError(f"{file}: is damaged; begin anew in another folder")
        trained = name in calls and self.folder.state_path(name).exists()
        if trained and (differs := unlike(calls[name], settings)):
            raise UserError(
                f"{name} was begun in {self.folder.path} with other settings: {differs}. Give the "
                "same to go on, another name, or another run"
            )
        write_json(file, calls | {name: settings})


@contextmanager
def run_or_temporary(run: Run | None) -> Iterator[Run]:
    """A run, or where there is none one that is gone afterwards."""
    if run is not None:
        yield run
        return
    with TemporaryDirectory() as folder, closing(Run(Path(folder) / "run")) as temporary:
        yield temporary


def fit(
    network: nn.Module,
    loss: Objective,
    train_loader: Loader,
    val_loader: Loader,
    *,
    epochs: int = 10,
    optimizer: str = "adamw",
    lr: float | None = None,
    path_lr: float = 0.1,
    weight_decay: float = 5e-4,
    schedule: str = "cosine",
    warmup_epochs: int | None = None,
    judge: Judge | None = None,
    stop: Stop | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    seed: int = 0,
    run: Run | None = None,
    name: str | None = None,
    verbose: bool = True,
) -> Fitted:
    """Train a network in place; it ends on the device, channels last.

    Args:
        network: gives logits (B, classes), or a `NetOutput`, for images (B, C, H, W).
        loss: (network, images, labels) -> named terms whose sum is minimised: `CrossEntropy`,
            `TailorLoss` or your own.
        train_loader: (images, labels) in batches; images are float, normalised as the network
            wants them, labels (B,) are int64.
        val_loader: the same, each image once, in any order; all choices are made on it.
        epochs: passes over the training images.
        optimizer: a name of timm's.
        lr: highest learning rate; None: 0.003 for a `Student`, else 0.002.
        path_lr: of a student's path weights.
        weight_decay: biases and norms do not decay.
        schedule: shape of the learning rate over the steps: cosine, constant, or such as step-20
            for a tenth of it after each 20 epochs.
        warmup_epochs: of linear warm-up; None: one, but none for a `Student` or a single epoch.
        judge: says what each epoch's scores are worth; None: their accuracy.
        stop: asked after each epoch with (epoch, its scores); True ends this call.
        device: "auto" takes a GPU where there is one.
        precision: of the steps; "auto": bf16 on GPUs that are made for it, else float32. A process
            computes in one precision: "auto" is the one that it has begun with.
        seed: of everything random here; torch's generators are left as they were found, those of
            the training loader's own are seeded anew before each epoch.
        run: where to keep states, metrics and events; None: nowhere.
        name: of this call in the run.
        verbose: print a line an epoch.

    Returns:
        A row of metrics an epoch, and the validation scores after the last one.

    Raises:
        UserError: the loaders give something else, no GPU is there that was asked for, the process
            has begun in another precision, the run has begun with other settings, or a state of it
            is of another network.
        NotFiniteError: a term of the loss became NaN or infinite.
    """
    if epochs < 1:
        raise UserError(f"epochs is {epochs}: expected at least 1")
    if not re.fullmatch(r"cosine|constant|step-[1-9]\d*", schedule):
        raise UserError(f"schedule is {schedule!r}: expected cosine, constant or such as step-20")
    optimizer = optimizer.lower()  # as timm takes it
    if optimizer not in known_optimizers():
        raise UserError(
            f"optimizer is {optimizer!r}: no optimizer of timm's that can train here, such as "
            "adamw or sgd"
        )
    if warmup_epochs is None:
        warmup_epochs = int(epochs > 1 and not isinstance(network, Student))
    plan = Schedule(  # NumPy's numbers as Python's: states hold no others
        epochs=int(epochs),
        optimizer=optimizer,
        lr=float(lr or (STUDENT_LR if isinstance(network, Student) else 0.002)),
        weight_decay=float(weight_decay),
        shape=schedule,
        warmup_epochs=warmup_epochs,
    )
    accelerator = accelerator_for(device, precision)
    place(network, accelerator.device)
    batches = LoaderEpochs(train_loader, seed)
    stage = name or ("training" if run is None else run.next_name())
    if run is not None:
        run.begin(
            stage, epochs=epochs, optimizer=optimizer, lr=plan.lr, path_lr=path_lr, seed=seed,
            weight_decay=weight_decay, schedule=schedule, warmup_epochs=warmup_epochs,
        )  # fmt: skip
    screen = Screen()
    screen.console.quiet = not verbose

    def validate(network: nn.Module) -> Scores:
        return (judge or Judge()).of(scores_on(val_loader, network, accelerator))

    with seeded(seed, stage):
        if isinstance(loss, TailorLoss) and isinstance(network, Student):
            _prepare(loss, network, batches, accelerator)
        return train_stage(
            stage,
            network,
            loss,
            batches,
            plan,
            accelerator=accelerator,
            validate=validate,
            folder=None if run is None else run.folder,
            screen=screen,
            path_lr=float(path_lr),
            stop=stop,
        )


def accelerator_for(device: str, precision: str = "auto") -> Accelerator:
    """accelerate's handle; "auto" precision is that of the process, where it has one already.

    UserError for a device that is not there, and for what the process has not begun with:
    accelerate holds it to one precision, and to the CPU where it began there.
    """
    for name, given, known in (("device", device, Device), ("precision", precision, Precision)):
        if given not in get_args(known):
            raise UserError(f"{name} is {given!r}: expected one of {', '.join(get_args(known))}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, and no CUDA device was found: give cpu or auto")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if precision == "fp16" and on_cpu:
        raise UserError("precision is fp16, which needs a CUDA device: give bf16 or float32")
    if precision == "auto" and is_initialized():
        chosen = AcceleratorState().mixed_precision
    else:
        chosen = chosen_precision(precision, on_cpu=on_cpu).replace("float32", "no")
    try:
        accelerator = Accelerator(cpu=on_cpu, mixed_precision=chosen)
    except ValueError:
        accelerator = None
    if accelerator is None or (device == "cuda" and accelerator.device.type == "cpu"):
        begun = AcceleratorState()
        numbers = begun.mixed_precision.replace("no", "float32")
        raise UserError(
            f"device is {device!r} and precision {precision!r}, and this process has begun on "
            f"{begun.device.type} in {numbers}: give the same, or begin another process"
        )
    return accelerator


def scores_on(loader: Loader, network: nn.Module, accelerator: Accelerator) -> Scores:
    """Of each image once, at every call in the same order, also where the loader shuffles.

    Which images two networks take right is compared image by image.
    """
    with seeded(0, "validation"), own_kept(loader):
        seed_loader(loader, 0)
        return classify(network, checked(loader), accelerator).scores()


def _prepare(
    loss: TailorLoss, student: Student, batches: LoaderEpochs, accelerator: Accelerator
) -> None:
    """What a loss looks at before the first step: the teacher's activations, costs of paths."""
    place(loss.backbone, accelerator.device)
    if not (loss.gamma or loss.mimic):
        return
    images = [images for _, (images, _) in zip(range(_CALIBRATED), batches.epoch(0), strict=False)]
    if loss.scales is None:
        with accelerator.autocast():
            loss.calibrate(one.to(accelerator.device) for one in images)
    loss.expected_cost(student, images[0].shape[-1])


def side_of(loader: Loader, seed: int) -> int:
    """The side of a loader's images in pixels; all generators are put back afterwards.

    seed: of the first look, from which workers that stay draw later on.
    """
    with seeded(seed, "shapes"), own_kept(loader):
        return next(checked(loader))[0].shape[-1]


@contextmanager
def seeded(seed: int, stage: str) -> Iterator[None]:
    """Inside, torch draws as (seed, stage) say; all generators are put back afterwards."""
    before = random_state()
    seed_stage(seed, stage)
    try:
        yield
    finally:
        set_random_state(before)
