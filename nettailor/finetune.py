"""Fine-tuning a chain as one run: the teacher, and the networks that stand beside it."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from nettailor.core.architecture import (
    Architecture,
    EliminatedStructure,
    ScaledStructure,
    SearchedStructure,
)
from nettailor.core.backbone import Backbone
from nettailor.core.device import place
from nettailor.core.epochs import LaterEpochs
from nettailor.core.judge import Judge
from nettailor.core.latency import measure_latency
from nettailor.core.objective import Objective
from nettailor.core.printable import some
from nettailor.core.ranks import from_main
from nettailor.core.run_folder import Kind, RunFolder
from nettailor.core.schedule import Schedule
from nettailor.core.scores import Scores
from nettailor.core.training_state import Fitted
from nettailor.core.weights import WeightsSource
from nettailor.evidence import Evidence, gather
from nettailor.figures import summary
from nettailor.loaders import Loaders
from nettailor.network import save_network
from nettailor.prune.fold import fold
from nettailor.resolve import MANY_STEPS
from nettailor.session import Session
from nettailor.stage import train_stage
from nettailor.teacher.objective import CrossEntropy

_SHOWN = 16  # training images, in TensorBoard
_GAP = 25.0  # points, from training images to those of validation
_LEARNT = 90.0  # % of the training images; below it, and many steps, more epochs are called for


class Teacher(NamedTuple):
    """A finished teacher: its network, what that was made from, its figures, and its run."""

    network: Backbone
    architecture: Architecture
    figures: dict[str, Any]
    folder: RunFolder

    def measured(
        self, latency: Mapping[str, Mapping[str, float]], device: torch.device
    ) -> dict[str, Any]:
        """Its figures with the latency that it has today: its own run may have seen a busier
        machine."""
        return {**self.figures, "latency_ms": {device.type: latency}}


@dataclass(frozen=True)
class ChainRun:
    """A chain that is fine-tuned as one run.

    Attributes:
        kind: of the run; also the name of its one stage.
        folder: where it lives.
        settings: what its `config.yaml` holds.
        ignored: dotted keys in which a run that is there may differ.
        schedule: how it trains.
        make: gives the chain to train, and where its weights came from; called with torch seeded.
        eliminated, scaled, searched: what is cut off the top, what φ made of the family, or how it
            was found, for the summary.
        structure: of a network that was found by search.
    """

    kind: Kind
    folder: RunFolder
    settings: Mapping[str, Any]
    ignored: Collection[str]
    schedule: Schedule
    make: Callable[[], tuple[Backbone, WeightsSource]]
    eliminated: Mapping[str, Any] | None = None
    scaled: Mapping[str, Any] | None = None
    structure: SearchedStructure | None = None
    searched: Mapping[str, Any] | None = None

    def architecture(self, session: Session, source: WeightsSource) -> Architecture:
        """What the network is."""
        cut, size = self.eliminated, self.scaled
        return session.architecture(
            source,
            eliminated=cut
            and EliminatedStructure(blocks=cut["kept_blocks"], replacement=cut["replacement"]),
            scaled=size and ScaledStructure(depth=size["depth"], width=size["width"]),
            searched=self.structure,
        )


def train(
    session: Session,
    network: nn.Module,
    objective: Objective,
    name: str,
    folder: RunFolder,
    schedule: Schedule,
    *,
    after: int = 0,
    **how: Any,
) -> Fitted:
    """Train a network, which is on the device, on a session's images as a stage of a run.

    after: epochs of the images that came before, whose order and augmentation do not come again.
    how: as for `train_stage`.
    """
    return train_stage(
        name,
        network,
        objective,
        LaterEpochs(session.loaders.train, after),
        schedule,
        folder=folder,
        screen=session.screen,
        accelerator=session.accelerator,
        **{
            "validate": session.loaders.validate,
            "pictures": partial(_training_images, session.loaders),
            **how,
        },
    )


def _training_images(
    loaders: Loaders, writer: SummaryWriter, epoch: int, network: nn.Module
) -> None:
    """In TensorBoard, at the start: some images as they are trained on in the first epoch."""
    if epoch == 0:
        writer.add_images("training_images", loaders.train.first(_SHOWN), epoch)


def finetune(
    session: Session, run: ChainRun, *, beside: Teacher | None, overwrite: bool
) -> dict[str, Any]:
    """Train a chain on cross-entropy, or go on with it; returns its summary.

    The test split is read once, at the end.

    Args:
        beside: the teacher, whose latency is measured in turn; None for the teacher itself.
    """
    kind, folder = run.kind, run.folder
    if not overwrite and folder.finished:
        session.open(folder, run.settings, ignored=run.ignored, overwrite=False)
        return folder.read_summary()
    # whatever can be wrong with settings and images shows before anything is discarded
    session.seed_stage(kind)
    chain, source = run.make()
    if overwrite or not folder.begun:
        session.check_images()
    session.open(folder, run.settings, ignored=run.ignored, overwrite=overwrite)
    session.screen.say(f"{kind}: {folder.path.name}, weights from {source.origin}")
    place(chain, session.accelerator.device)
    fitted = _train_until_learnt(session, chain, run)
    _warn_of_missed_classes(session, kind, fitted.scores)
    started = time.perf_counter()
    weights = save_network(folder.path, chain, run.architecture(session, source))
    device = session.accelerator.device
    in_turn: dict[str, nn.Module] = {kind: fold(chain)}
    sides: dict[str, int] = {kind: session.preprocessing.image_size}
    if beside is not None:
        in_turn["teacher"] = place(fold(beside.network), device)
        sides["teacher"] = beside.architecture.preprocessing.image_size
    with session.screen.counting("timing") as tell:
        latency = measure_latency(in_turn, sides, device, tell=tell)
    evidence = from_main(lambda: gather(session.loaders, folder.path, chain, latency[kind]))
    if kind == "teacher":
        _warn_of_unseen_images(session, evidence)
        if not run.schedule.again:
            _warn_of_few_steps(session, evidence, len(fitted.history))
    result = summary(
        kind,
        session,
        network=chain,
        evidence=evidence,
        size=weights.stat().st_size,
        train_seconds=fitted.seconds,
        total_seconds=fitted.total_seconds + time.perf_counter() - started,
        teacher=None if beside is None else beside.measured(latency["teacher"], device),
        eliminated=run.eliminated,
        scaled=run.scaled,
        searched=run.searched,
    )
    session.finish(folder, result)
    return result


def _train_until_learnt(session: Session, chain: Backbone, run: ChainRun) -> Fitted:
    """Train as scheduled, and again for twice as many epochs where that may be and was not enough.

    That is where there were few steps, and the network does not know its own training images, by
    the run's metric, nor as many of validation's.
    """
    loaders, schedule = session.loaders, run.schedule
    objective = CrossEntropy(session.config.label_smoothing, loaders.class_weights)
    fitted = train(session, chain, objective, run.kind, run.folder, schedule)
    steps, judge = schedule.epochs * loaders.train.steps_per_epoch, Judge(session.config.metric)
    if not schedule.again or steps >= MANY_STEPS or fitted.scores.standing >= _LEARNT:
        return fitted
    learnt = judge.value(loaders.classify(chain, session.task.train).scores())
    if learnt >= _LEARNT:
        return fitted
    more = replace(schedule, epochs=2 * schedule.epochs)
    session.screen.say(
        f"{run.kind}: {learnt:.0f} % ({judge.metric}) on its own training images after {steps} "
        f"steps: {more.epochs} epochs more"
    )
    stage = f"{run.kind}-2"
    session.seed_stage(stage)
    later = train(session, chain, objective, stage, run.folder, more, after=schedule.epochs)
    return Fitted(fitted.history + later.history, later.last)


def _warn_of_unseen_images(session: Session, evidence: Evidence) -> None:
    """Say where a teacher knows its own images, and far fewer of those that it has not seen."""
    known, unseen = (evidence.scores[split] for split in ("train", "val"))
    assert known is not None, "the training images were read"
    assert unseen is not None, "so were those of validation"
    if known.accuracy - unseen.accuracy > _GAP:
        session.screen.say(
            f"warning: the teacher takes {known.accuracy:.0f} % of its own training images for "
            f"what they are, and {unseen.accuracy:.0f} % of those of validation: it is not trained "
            "for images that it has not seen. More images to train on help most, then --augment.* "
            "that suits them, or more --teacher.epochs"
        )


def _warn_of_few_steps(session: Session, evidence: Evidence, epochs: int) -> None:
    """Say where a teacher has not even learnt its own training images, and had few steps for it."""
    steps, learnt = epochs * session.loaders.train.steps_per_epoch, evidence.scores["train"]
    assert learnt is not None, "the training images were read"
    if steps < MANY_STEPS and learnt.accuracy < _LEARNT:
        session.screen.say(
            f"warning: the teacher is not trained to its end: after {steps} steps it takes "
            f"{learnt.accuracy:.0f} % of its own training images for what they are. Give it more "
            f"--teacher.epochs, such as {3 * epochs}"
        )


def _warn_of_missed_classes(session: Session, name: str, scores: Scores) -> None:
    """Say which classes a network has learnt nothing of."""
    missed = [
        session.task.classes[index]
        for index, recall in enumerate(scores.recalls)
        if recall.images and not recall.right
    ]
    if missed:
        session.screen.say(
            f"warning: {name}: no validation image of class{'es' * (len(missed) > 1)} "
            f"{some(map(repr, missed))} is taken for it. Try --metric macro-f1, --balance loss or "
            "more epochs"
        )
