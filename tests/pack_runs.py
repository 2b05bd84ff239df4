"""Runs as far as packs are concerned, and what they answer."""

from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from conftest import enliven
from safetensors.torch import save_file
from torch import Tensor

from nettailor.core.architecture import Architecture
from nettailor.core.families import make_network
from nettailor.core.preprocessing import Preprocessing
from nettailor.core.weights import load_pretrained
from nettailor.network import load_network, save_network
from nettailor.packs import shared_names
from nettailor.prune.plan import PrunePlan
from nettailor.prune.remove import remove
from nettailor.student.network import BatchNormPolicy, Student
from nettailor.student.wiring import Wiring


def weights_in(folder: Path) -> Callable[[str], Path]:
    """The file of a backbone's pretrained weights, written when it is first asked for."""

    def of(backbone: str) -> Path:
        path = folder / f"{backbone}.safetensors"
        if not path.exists():
            save_file(enliven(make_network(backbone, 7)).state_dict(), path)
        return path

    return of


def run_of(
    folder: Path,
    weights: Path,
    *,
    seed: int = 1,
    classes: int = 4,
    image_size: int = 32,
    skips: int = 0,
    beside: bool = True,
    batch_norm: BatchNormPolicy = "train",
    adapters: bool = False,
    cut: Wiring | None = None,
) -> Path:
    """A run as far as packs are concerned: what the task owns has values of its own."""
    backbone = weights.stem
    chain, source = load_pretrained(backbone, classes, str(weights))
    student = Student(
        chain, skips=skips, identities=beside, exits=beside, batch_norm=batch_norm,
        adapters=adapters, shared=True)  # fmt: skip
    if cut is not None:
        student = remove(student, PrunePlan("cut", student.wiring, cut))
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    enliven(student, seed)
    shared = before.keys() & shared_names(student).keys()
    student.load_state_dict({name: before[name] for name in shared}, strict=False)
    architecture = Architecture(
        backbone=backbone,
        classes=tuple(f"class {index}" for index in range(classes)),
        preprocessing=Preprocessing(image_size, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0),
        weights_origin=source.origin,
        weights_digest=source.digest,
    )
    save_network(folder, student, architecture)
    settings = {"data": f"photos/{folder.name}", "weights": str(weights), "seed": 0}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


def images(side: int = 32, count: int = 3) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def own_logits(run: Path, batch: Tensor) -> Tensor:
    with torch.no_grad():
        return load_network(run)[0](batch).logits
