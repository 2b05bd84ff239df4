"""What every command needs before it can train: the task's images, the device, the screen."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator

from nettailor.core import ranks
from nettailor.core.architecture import Architecture
from nettailor.core.backbone import create_backbone
from nettailor.core.config import RunConfig, as_settings, flat
from nettailor.core.console import Screen
from nettailor.core.cost import check_image_size
from nettailor.core.data import Task
from nettailor.core.device import numbers_of, processor_name, start_accelerator
from nettailor.core.families import data_defaults
from nettailor.core.hparams import note_figures
from nettailor.core.listing import note_images, require_same_images
from nettailor.core.preprocessing import Preprocessing
from nettailor.core.random_state import seed_stage
from nettailor.core.run_folder import RunFolder
from nettailor.core.schedule import Schedule
from nettailor.core.watch import told
from nettailor.core.weights import WeightsSource
from nettailor.loaders import Loaders
from nettailor.places import Places
from nettailor.resolve import Stage, resolved, schedule_of
from nettailor.task_images import read_whole, ready_task

# The keys that make the task, beside its images: a teacher serves every run that agrees on them.
TASK_KEYS = (
    "on_bad_image", "backbone", "weights", "image_size", "crop_pct", "seed",
    "split.val", "split.test", "split.seed", "split.group_by", "limit.train", "limit.test",
)  # fmt: skip


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
    def loaders(self) -> Loaders:
        """Its images in batches."""
        return Loaders(self.task, self.preprocessing, self.config, self.accelerator)

    def at(self, side: int) -> "Session":
        """The same with images of another side, in pixels."""
        if side == self.preprocessing.image_size:
            return self
        return replace(self, preprocessing=replace(self.preprocessing, image_size=side))

    @property
    def places(self) -> Places:
        """Where its runs live."""
        return Places(self.config, self.task.name, self.accelerator.device.type)

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
            ignored = {*ignored, "data"}  # however it is spelled, the images say which it is
            # other settings can be why the images are others
            ranks.from_main(lambda: folder.check(settings, ignored=ignored))
            self._require_same_images(folder, "give --overwrite to begin anew, or another --out")
        folder.open(settings, ignored=ignored, overwrite=overwrite)
        if fresh:
            ranks.from_main(lambda: note_images(folder.path, self.loaders.listed))

    def finish(self, folder: RunFolder, figures: Mapping[str, Any]) -> None:
        """Close a run, or a network in one, with its `summary.json` and its row in TensorBoard."""
        accuracy = {f"{split} accuracy": value for split, value in figures["accuracy"].items()}
        costs = {"parameters": figures["params"]["total"], "FLOPs": figures["flops"]}
        events, settings = folder.path / "events" / "hparams", flat(as_settings(self.config))

        def note() -> None:
            with told(events):
                note_figures(events, settings, accuracy | costs)

        ranks.from_main(note)
        folder.finish(figures)

    def require_same_task(self, folder: RunFolder) -> None:
        """Raise UserError where a run that is built on is of another task."""
        folder.require_same(as_settings(self.config), TASK_KEYS)
        self._require_same_images(folder, "train it again with --overwrite, or give another --out")

    def _require_same_images(self, folder: RunFolder, remedy: str) -> None:
        ranks.from_main(lambda: require_same_images(folder.path, self.loaders.listed, remedy))

    def check_images(self) -> None:
        """Read every image once in a process, before anything is trained or discarded.

        Raises UserError that names the first one that cannot be read whole.
        """
        if self.task.name not in self._checked and self.config.on_bad_image != "skip":
            read_whole(self.task, self.screen)
            self._checked.add(self.task.name)

    def seed_stage(self, stage: str) -> None:
        """Seed torch for a stage, the same whether the stages before ran in this session or not."""
        seed_stage(self.config.seed, stage)

    def schedule(self, stage: Stage) -> Schedule:
        """How a stage of this task trains."""
        return schedule_of(self.config, stage, self.loaders.train.steps_per_epoch)

    def architecture(self, source: WeightsSource, **structure: Any) -> Architecture:
        """What a network of this task is, made from the weights of `source`.

        structure: `eliminated`, `scaled` or `searched`, for one that is not the whole backbone.
        """
        return Architecture(
            backbone=self.config.backbone,
            classes=self.task.classes,
            preprocessing=self.preprocessing,
            weights_origin=source.origin,
            weights_digest=source.digest,
            **structure,
        )


def start_session(config: RunConfig, screen: Screen) -> Session:
    """Check the device, read the task, settle the preprocessing.

    Raises UserError for a device that is absent, a backbone that is unknown or does not fit the
    image size, data that is missing, augmentation that timm does not know.
    """
    config = resolved(config)
    accelerator = start_accelerator(config.device, config.precision)
    if accelerator.device.type == "cuda":
        screen.say(f"{processor_name(accelerator.device)}: {numbers_of(accelerator)}")
    preprocessing = replace(data_defaults(config.backbone), image_size=config.image_size)
    if config.crop_pct is not None:
        preprocessing = replace(preprocessing, crop_pct=config.crop_pct)
    task = ready_task(config, screen)
    with torch.device("meta"):
        chain = create_backbone(config.backbone, len(task.classes), config.image_size)
    check_image_size(chain, config.image_size)
    session = Session(config, screen, accelerator, task, preprocessing, chain.stages)
    _ = session.loaders.train  # whatever it cannot be made of shows before a run is opened
    return session
