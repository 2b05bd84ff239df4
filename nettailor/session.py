"""What every command needs before it can train: the task's images, the device, the screen."""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from nettailor.core import ranks
from nettailor.core.architecture import (
    Architecture,
    EliminatedStructure,
    ScaledStructure,
    SearchedStructure,
)
from nettailor.core.backbone import create_backbone
from nettailor.core.config import RunConfig, as_settings
from nettailor.core.console import Screen
from nettailor.core.cost import check_image_size
from nettailor.core.data import Task, load_task, resolved, without_broken
from nettailor.core.device import numbers_of, processor_name, start_accelerator, worker_count
from nettailor.core.duplicates import duplicates
from nettailor.core.errors import UserError
from nettailor.core.families import data_defaults
from nettailor.core.files import write_json
from nettailor.core.images import Images
from nettailor.core.judge import Judge
from nettailor.core.listing import Listed, listing, note_images, require_same_images
from nettailor.core.loader import EvalLoader, TrainLoader
from nettailor.core.preprocessing import (
    Augmentation,
    Preprocessing,
    eval_transform,
    train_transform,
)
from nettailor.core.reading import Doubts
from nettailor.core.run_folder import LISTING_FILE, RunFolder
from nettailor.core.schedule import Schedule
from nettailor.core.scores import Predictions, Scores, classify
from nettailor.core.sections import BudgetConfig, ScheduleConfig
from nettailor.core.seeding import seed_stage
from nettailor.core.weights import WeightsSource

# The keys that make the task: a teacher serves every run that agrees on them.
TASK_KEYS = (
    "data", "on_bad_image", "backbone", "weights", "image_size", "crop_pct", "seed",
    "split.val", "split.test", "split.seed", "split.group_by", "limit.train", "limit.test",
)  # fmt: skip


SKIPPED_FILE = "skipped_images.json"
_SHOWN = 10  # broken images on the screen


@dataclass(frozen=True)
class Session:
    """One command at work on one task; `stages` holds the stage of each block of the backbone.

    preprocessing: of what is trained, whose images may be of another size than the settings say.
    """

    config: RunConfig
    screen: Screen
    accelerator: Accelerator
    task: Task
    preprocessing: Preprocessing
    stages: tuple[int, ...]
    # shared by all sessions that are made of one by `replace`: whether the images were read
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)

    @cached_property
    def train_loader(self) -> TrainLoader:
        """Augmented training batches."""
        augment = self.config.augment
        return TrainLoader(
            self.task.train,
            train_transform(
                self.preprocessing,
                Augmentation(
                    scale=augment.scale,
                    ratio=augment.ratio,
                    hflip=augment.hflip,
                    color_jitter=augment.color_jitter,
                    auto_augment=augment.auto_augment,
                    random_erasing=augment.random_erasing,
                ),
            ),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            balanced=self.config.sampling == "balanced",
            workers=worker_count(self.config.workers),
            pin_memory=self.accelerator.device.type == "cuda",
        )

    @cached_property
    def val_loader(self) -> EvalLoader:
        """The validation split, on which every choice is made."""
        return self.eval_loader(self.task.val)

    def eval_loader(self, images: Images) -> EvalLoader:
        """Each image once, without augmentation."""
        return EvalLoader(
            images,
            eval_transform(self.preprocessing),
            batch_size=self.config.batch_size,
            workers=worker_count(self.config.workers),
            pin_memory=self.accelerator.device.type == "cuda",
        )

    @property
    def precision(self) -> str:
        """What steps compute in: float32, bf16 or fp16."""
        mixed = self.accelerator.mixed_precision
        return "float32" if mixed == "no" else str(mixed)

    def validate(self, network: nn.Module) -> Scores:
        """Scores on the validation split, judged by the run's metric."""
        scores = classify(network, self.val_loader, self.accelerator).scores()
        return Judge(self.config.metric).of(scores)

    @cached_property
    def class_weights(self) -> Tensor | None:
        """What an image of each class weighs in the loss, (classes,), on the device; None: all 1.

        Balanced, every class weighs the same in an epoch, and a training image 1 in the mean.
        """
        if self.config.class_weights == "none":
            return None
        labels = torch.tensor(list(self.task.train.labels))
        images = labels.bincount(minlength=len(self.task.classes))
        weights = len(labels) / (len(images) * images.float())
        return weights.to(self.accelerator.device)

    def classify(self, network: nn.Module, images: Images) -> Predictions:
        """What a network says of a split."""
        return classify(network, self.eval_loader(images), self.accelerator)

    @cached_property
    def images(self) -> list[Listed]:
        """The images of every part."""
        return listing(self.task)

    def open(
        self,
        folder: RunFolder,
        settings: Mapping[str, Any],
        *,
        ignored: Collection[str],
        overwrite: bool,
    ) -> None:
        """Open a run's folder, and note the images that it is made with or hold it to them.

        UserError as `RunFolder.open`, and where the images are others.
        """
        fresh = overwrite or not folder.begun or folder.untrained
        if not fresh:
            if (folder.path / LISTING_FILE).exists():
                ignored = {*ignored, "data"}  # however it is spelled
            # other settings can be why the images are others
            ranks.from_main(lambda: folder.check(settings, ignored=ignored))
            self.require_same_images(folder, "give --overwrite to begin anew, or another --out")
        folder.open(settings, ignored=ignored, overwrite=overwrite)
        if fresh:  # of a run of an earlier version nobody knows its images
            ranks.from_main(lambda: note_images(folder.path, self.images))

    def require_same_images(self, folder: RunFolder, remedy: str) -> None:
        """Raise UserError where a run was made with other images than the session has."""
        ranks.from_main(lambda: require_same_images(folder.path, self.images, remedy))

    def check_images(self) -> None:
        """Read every image once in a process, before anything is trained or discarded.

        Raises UserError that names the first one that cannot be read whole.
        """
        if self.task.name in self._checked or self.config.on_bad_image == "skip":
            return
        parts = (self.task.train, self.task.val, self.task.test)
        bar = self.screen.start_stage("reading images", sum(len(part) for part in parts), 0)
        doubts = Doubts()
        read = 0
        for part in parts:
            for index in range(len(part)):
                image, _ = part[index]
                doubts.look(image)
                read += 1
                self.screen.advance(bar, read, "")
        self.screen.end_stage(bar)
        _say(doubts, self.screen)
        for line in duplicates(self.task):
            self.screen.say(line)
        self._checked.add(self.task.name)

    def seed_stage(self, stage: str) -> None:
        """Seed torch for a stage, the same whether the stages before ran in this session or not."""
        seed_stage(self.config.seed, stage)

    @property
    def task_folder(self) -> Path:
        """Where all runs of the task live."""
        return Path(self.config.out) / self.task.name

    @property
    def times_folder(self) -> Path:
        """Where times of parts of networks are kept, which serve runs of any budget."""
        return self.task_folder / "times"

    def architecture(
        self,
        source: WeightsSource,
        *,
        eliminated: EliminatedStructure | None = None,
        scaled: ScaledStructure | None = None,
        searched: SearchedStructure | None = None,
    ) -> Architecture:
        """What a network of this task is, made from the weights of `source`."""
        return Architecture(
            backbone=self.config.backbone,
            classes=self.task.classes,
            preprocessing=self.preprocessing,
            weights_origin=source.origin,
            weights_digest=source.digest,
            eliminated=eliminated,
            scaled=scaled,
            searched=searched,
        )

    def limit(self, settings: BudgetConfig) -> str:
        """A budget as a part of a run's name; milliseconds are those of one kind of device."""
        device = self.accelerator.device.type
        timed = settings.max_latency_ms is not None and device != "cpu"
        return f"{settings.limit}-{device}" if timed else settings.limit

    def folder(self, kind: str, *details: str) -> Path:
        """Where a run of this kind lives: `<out>/<task>/<kind>/<backbone>-<px>px-…-seed<n>`."""
        config = self.config
        name = "-".join([config.backbone, f"{config.image_size}px", *details, f"seed{config.seed}"])
        return self.task_folder / kind / name


def require_same_task(session: Session, folder: RunFolder) -> None:
    """Raise UserError where a run that a session builds on is of another task."""
    same = (folder.path / LISTING_FILE).exists()
    keys = [key for key in TASK_KEYS if not (same and key == "data")]
    folder.require_same(as_settings(session.config), keys)
    session.require_same_images(folder, "train it again with --overwrite, or give another --out")


def start_session(config: RunConfig, screen: Screen) -> Session:
    """Check the device, read the task, settle the preprocessing.

    Raises UserError for a device that is absent, a backbone that is unknown or does not fit the
    image size, data that is missing, augmentation that timm does not know.
    """
    config = config.model_copy(update={"data": resolved(config.data)})
    accelerator = start_accelerator(config.device, config.precision)
    if accelerator.device.type == "cuda":
        screen.say(f"{processor_name(accelerator.device)}: {numbers_of(accelerator)}")
    defaults = data_defaults(config.backbone)
    preprocessing = Preprocessing(
        image_size=config.image_size,
        mean=defaults.mean,
        std=defaults.std,
        interpolation=defaults.interpolation,
        crop_pct=defaults.crop_pct if config.crop_pct is None else config.crop_pct,
    )
    task = _load_task(config)
    if config.data == task.name and Path(task.name).is_dir():
        screen.say(f"{task.name}: the set of that name, not the folder: give ./{task.name} for it")
    if task.left_out:
        screen.say(f"left out: {', '.join(task.left_out)}")
    for line in task.notes:
        screen.say(line)
    if min(config.batch_size, len(task.train)) < ranks.count():
        raise UserError(
            f"{min(config.batch_size, len(task.train))} images a step for {ranks.count()} "
            "processes: give torchrun a lower --nproc-per-node, or a larger --batch-size"
        )
    if config.on_bad_image == "skip":
        task = _readable(task, Path(config.out), screen)
    with torch.device("meta"):
        chain = create_backbone(config.backbone, len(task.classes), config.image_size)
    check_image_size(chain, config.image_size)
    session = Session(config, screen, accelerator, task, preprocessing, chain.stages)
    _ = session.train_loader  # whatever it cannot be made of shows before a run is opened
    return session


def _load_task(config: RunConfig) -> Task:
    load = partial(
        load_task,
        config.data,
        data_dir=Path(config.data_dir),
        out=Path(config.out),
        download=config.download,
        val_fraction=config.split.val,
        test_fraction=config.split.test,
        split_seed=config.split.seed,
        limit_train=config.limit.train,
        limit_test=config.limit.test,
        group_by=config.split.group_by,
    )

    def fetch() -> None:
        load()

    if config.download and ranks.count() > 1:  # they must not all fetch it at once
        ranks.from_main(fetch)
    return load()


def _readable(task: Task, out: Path, screen: Screen) -> Task:
    """The task without its broken images, which are counted, shown and listed in a file."""
    count = sum(len(part) for part in (task.train, task.val, task.test))
    bar = screen.start_stage("reading images", count, 0)
    read = itertools.count(1)
    doubts = Doubts()

    def advance(image: Image.Image | None) -> None:
        if image is not None:
            doubts.look(image)
        screen.advance(bar, next(read), "")

    task, broken = without_broken(task, advance)
    screen.end_stage(bar)
    _say(doubts, screen)
    if broken:
        listed = out / task.name / SKIPPED_FILE
        write_json(listed, [one._asdict() for one in broken])
        screen.say(f"left out {len(broken)} of {count} images, listed in {listed}:")
        for one in broken[:_SHOWN]:
            screen.say(f"  {one.part}: {one.reason}")
    return task


def _say(doubts: Doubts, screen: Screen) -> None:
    for line in doubts.lines():
        screen.say(line)


def schedule_of(stage: ScheduleConfig) -> Schedule:
    """A stage's settings as plain values."""
    return Schedule(
        epochs=stage.epochs,
        optimizer=stage.optimizer,
        lr=stage.lr,
        momentum=stage.momentum,
        weight_decay=stage.weight_decay,
        shape=stage.schedule,
        step_epochs=stage.step_epochs,
        step_factor=stage.step_factor,
        warmup_epochs=stage.warmup_epochs,
        clip_norm=stage.clip_norm,
        ema=stage.ema,
    )
