"""What many tests begin with: images, students, what a file says of a network, and refusals."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core.architecture import Architecture
from nettailor.core.backbone import Backbone, create_backbone, node_specs
from nettailor.core.errors import UserError
from nettailor.core.layout import NodeSpec
from nettailor.core.preprocessing import Preprocessing
from nettailor.prune.plan import PrunePlan
from nettailor.prune.shrink import Shrinking
from nettailor.student.costs import shares_of
from nettailor.student.exit import Head, exit_from
from nettailor.student.network import Student
from nettailor.student.wiring import Path, Wiring

# basic and bottleneck blocks (test_resnet has both), inverted residuals, no batch norm at all
BACKBONES = (
    "test_resnet", "test_efficientnet", "mobilenetv3_small_050", "regnety_002", "test_convnext",
)  # fmt: skip
# of each kind of attention and MLP a small one, for images of 64 px: one bias for q, k and v;
# windows; q, k and v apart, gated units in one layer; a bias of q and of v; a relative position
# bias, scaled branches; registers
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "test_vit": ("test_vit", {"depth": 2}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"window_size": 4, "embed_dim": 16, "depths": (2, 1), "num_heads": (2, 4)},
    ),
    "eva02": (
        "eva02_tiny_patch14_224",
        {"patch_size": 16, "depth": 2, "embed_dim": 48, "num_heads": 3},
    ),
    "eva_giant": (
        "eva_giant_patch14_224",
        {"patch_size": 16, "depth": 2, "embed_dim": 32, "num_heads": 2},
    ),
    "beit": ("beit_base_patch16_224", {"depth": 2, "embed_dim": 32, "num_heads": 4}),
    "dinov2": (
        "vit_giant_patch14_reg4_dinov2",
        {"patch_size": 16, "depth": 2, "embed_dim": 32, "num_heads": 2},
    ),
}
FOLLOW: dict[str, Any] = {"batch_norm": "follow", "shared": True}


def images(count: int = 4, side: int = 32, dtype: torch.dtype = torch.float32) -> Tensor:
    """Noise of unit variance, (count, 3, side, side), the same at every call."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, side, side, generator=generator).to(dtype)


def labelled(count: int, seed: int = 5, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Noise of 32 pixels with labels that are drawn as well."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(count, 3, 32, 32, generator=generator)
    return pictures, torch.randint(classes, (count,), generator=generator)


def enliven(network: nn.Module, seed: int = 1) -> nn.Module:
    """Values under which every layer shows in the output, in place.

    Fresh networks hide mistakes: their residual branches often start at zero, and their batch
    norms at a mean of 0 and a variance of 1.
    """
    generator = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, shape: torch.Size) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name == "path_weights.logits":
                continue
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.copy_(between(0.5, 1.5, tensor.shape))
            elif name.endswith(("running_mean", "bias")):
                tensor.copy_(between(-0.3, 0.3, tensor.shape))
            elif name.endswith("gamma"):
                tensor.copy_(between(0.5, 1.0, tensor.shape))
            elif tensor.ndim in (2, 4):
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
    return network


def lively_chain(backbone: str, classes: int = 5) -> Backbone:
    """A random chain in eval mode whose every block shows in its output."""
    chain = create_backbone(backbone, classes)
    enliven(chain)
    return chain.eval()


def settle(network: nn.Module, side: int = 64) -> None:
    """Statistics of batch norms that are the activations', as after training, and eval mode.

    Random ones make deep networks amplify rounding until it is all that is compared.
    """
    parts = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    momenta = [part.momentum for part in parts]
    for part in parts:
        part.momentum = 1.0
        part.train()
    with torch.no_grad():
        network(images(8, side))
    for part, momentum in zip(parts, momenta, strict=True):
        part.momentum = momentum
    network.eval()


def drawn_route(student: Student, generator: random.Random) -> PrunePlan:
    """One path into each node that is passed, drawn backwards from the logits."""
    wiring, paths = student.wiring, list[Path]()
    while not paths or paths[-1].source:
        node = paths[-1].source if paths else wiring.depth
        paths.append(wiring.paths[generator.choice(wiring.incoming[node])])
    return PrunePlan.keeping("route", wiring, paths)


def all_routes(wiring: Wiring, node: int | None = None) -> list[tuple[int, ...]]:
    """The positions of the paths of every route from the stem to a node, by default the logits."""
    if node == 0:
        return [()]
    return [
        (*before, position)
        for position in wiring.incoming[wiring.depth if node is None else node]
        for before in all_routes(wiring, wiring.paths[position].source)
    ]


def masked(student: Student, plan: PrunePlan) -> Student:
    """All modules still there, but not a trace of weight on what the plan drops."""
    result = deepcopy(student)
    kept = set(plan.kept.paths)
    with torch.no_grad():
        for position, path in enumerate(student.wiring.paths):
            if path not in kept:
                result.path_weights.logits[position] = -1e9
    return result


def transformer(name: str) -> Backbone:
    """A lively one of `TRANSFORMERS` in eval mode, of five classes."""
    backbone, settings = TRANSFORMERS[name]
    network = timm.create_model(backbone, img_size=64, num_classes=5, **settings)
    chain = Backbone(network)
    enliven(chain)
    return chain.eval()


def student_of(
    backbone: str | Backbone, skips: Any = 2, *, beside: bool = True, **settings: Any
) -> Student:
    """A student of a lively chain; beside: with identities and exits as well."""
    chain = lively_chain(backbone) if isinstance(backbone, str) else backbone
    kinds = {"identities": beside, "exits": beside}
    return Student(chain, skips=skips, **(kinds | FOLLOW | settings))


def student_along(
    backbone: str | Backbone, depth: int, *paths: Path, classes: int = 5, **settings: Any
) -> Student:
    """A student of these paths alone."""
    chain = lively_chain(backbone, classes) if isinstance(backbone, str) else backbone
    return Student(chain, wiring=Wiring(depth, paths), **(FOLLOW | settings))


def exit_of(chain: Backbone, node: NodeSpec) -> Head:
    """An exit of a chain that reads a node."""
    return exit_from(chain, node, node_specs(chain)[-1])


def architecture_of(
    backbone: str = "test_resnet", classes: Any = 5, side: int = 32, **changes: Any
) -> Architecture:
    """What `architecture.json` says of a network, with classes by name or by number."""
    names = classes if isinstance(classes, tuple) else tuple(f"class {i}" for i in range(classes))
    values: dict[str, Any] = {
        "backbone": backbone,
        "classes": names,
        "preprocessing": Preprocessing(side, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0),
        "weights_origin": "random initialisation",
        "weights_digest": "none",
    }
    return Architecture(**(values | changes))


@contextmanager
def refused(words: str) -> Iterator[None]:
    """The block ends in a refusal of one line, in which a regular expression finds the words."""
    with pytest.raises(UserError, match=words) as caught:
        yield
    assert "\n" not in str(caught.value)


def lively_student(
    backbone: str, skips: Any = 3, *, beside: bool = False, **settings: Any
) -> Student:
    """A student of a lively chain whose every path shows in the output."""
    student = student_of(backbone, skips, beside=beside, **settings)
    enliven(student.proxies)
    for path in student.wiring.of_kind("exit"):
        enliven(student.heads[path.key], path.source)
    return student


def pair(backbone: str, *, beside: bool = False, **settings: Any) -> tuple[Backbone, Student]:
    """A teacher and a student of the same pretrained weights that share no tensor."""
    teacher = lively_chain(backbone).requires_grad_(False)
    return teacher, lively_student(backbone, beside=beside, **settings)


def grown(least: float = 0.05, chain: Backbone | None = None, **settings: Any) -> Shrinking:
    """A student whose exits show, about to shrink; least: its budget in FLOPs over the chain's."""
    chain = chain or lively_chain("test_resnet")
    student = Student(chain, **settings)
    enliven(student.heads)
    return Shrinking(student, shares_of(student, chain, 32, "flops"), least).eval()
