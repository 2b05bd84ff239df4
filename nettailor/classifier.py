"""Who answers: a run's network, a task of a library, or an untouched backbone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nettailor.core.families import data_defaults, pretrained_labels
from nettailor.core.preprocessing import Preprocessing
from nettailor.core.weights import load_with_classifier
from nettailor.library import Library
from nettailor.network import find_run, load_network


@dataclass(frozen=True)
class Classifier:
    """A network in eval mode, its classes' names by index, how its images are prepared.

    about: what and whence it is, for the output.
    """

    network: nn.Module
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    about: dict[str, Any]


def classifier_of_run(folder: Path) -> Classifier:
    """The network of a run folder; UserError as in `find_run`, or when it is damaged."""
    folder = find_run(folder)
    network, architecture = load_network(folder)
    about = {
        "run": str(folder),
        "backbone": architecture.backbone,
        "weights": architecture.weights_origin,
    }
    return Classifier(network, architecture.classes, architecture.preprocessing, about)


def untouched_classifier(backbone: str, weights: str) -> Classifier:
    """A backbone as it was pretrained on ImageNet; UserError as in `load_with_classifier`."""
    labels = pretrained_labels(backbone)
    chain, source = load_with_classifier(backbone, len(labels), weights)
    about = {"run": None, "backbone": backbone, "weights": source.origin}
    return Classifier(chain.eval(), labels, data_defaults(backbone), about)


def classifier_of_library(folder: Path, task: str) -> Classifier:
    """The network of a library's task; UserError as in `Library`."""
    packed = Library(folder)[task]
    about = {
        "library": str(folder),
        "task": task,
        "backbone": packed.architecture.backbone,
        "weights": packed.architecture.weights_origin,
    }
    architecture = packed.architecture
    return Classifier(packed.network, architecture.classes, architecture.preprocessing, about)
