"""A task's images as networks see them: batches for training and for scores."""

from functools import cached_property

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nettailor.core.config import RunConfig
from nettailor.core.data import Task
from nettailor.core.device import worker_count
from nettailor.core.images import Images
from nettailor.core.judge import Judge
from nettailor.core.listing import Listed, listing
from nettailor.core.loader import EvalLoader, TrainLoader
from nettailor.core.preprocessing import Preprocessing, eval_transform, train_transform
from nettailor.core.scores import Predictions, Scores, classify


class Loaders:
    """The images of a task under one preprocessing; the processes that read them live as long."""

    def __init__(
        self, task: Task, preprocessing: Preprocessing, config: RunConfig, accelerator: Accelerator
    ) -> None:
        self.task, self.preprocessing, self.accelerator = task, preprocessing, accelerator
        self._config = config
        self._workers = worker_count(config.workers)

    @cached_property
    def train(self) -> TrainLoader:
        """Augmented training batches."""
        config = self._config
        return TrainLoader(
            self.task.train,
            train_transform(self.preprocessing, config.augment),
            batch_size=config.batch_size,
            seed=config.seed,
            balanced=config.balance == "sampling",
            workers=self._workers,
            device=self.accelerator.device,
        )

    @cached_property
    def val(self) -> EvalLoader:
        """The validation split, on which every choice is made."""
        return self.of(self.task.val)

    def of(self, images: Images) -> EvalLoader:
        """Each image once, without augmentation."""
        return EvalLoader(
            images,
            eval_transform(self.preprocessing),
            batch_size=self._config.batch_size,
            workers=self._workers,
            device=self.accelerator.device,
        )

    @cached_property
    def class_weights(self) -> Tensor | None:
        """What an image of each class weighs in the loss, (classes,), on the device; None: all 1.

        Balanced, every class weighs the same in an epoch, and a training image 1 in the mean.
        """
        if self._config.balance != "loss":
            return None
        labels = torch.tensor(list(self.task.train.labels))
        images = labels.bincount(minlength=len(self.task.classes))
        weights = len(labels) / (len(images) * images.float())
        return weights.to(self.accelerator.device)

    @cached_property
    def listed(self) -> list[Listed]:
        """The images of every part by name."""
        return listing(self.task)

    def classify(self, network: nn.Module, images: Images) -> Predictions:
        """What a network says of a split."""
        return classify(network, self.of(images), self.accelerator)

    def validate(self, network: nn.Module) -> Scores:
        """Scores on the validation split, judged by the run's metric."""
        scores = classify(network, self.val, self.accelerator).scores()
        return Judge(self._config.metric).of(scores)
