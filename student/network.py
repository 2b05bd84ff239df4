"""The student: pretrained blocks, what may stand in for them, and softmax path weights."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Literal, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core.backbone import Backbone, node_specs
from nettailor.core.layout import LAYER_NORMS, Places, bring, widen
from nettailor.core.parts import proxy_shape
from nettailor.core.resize import resized
from nettailor.student.exit import Head, exit_from
from nettailor.student.grow import grown_wiring
from nettailor.student.path_weights import PathWeights
from nettailor.student.proxy import Proxy, scaled_affines
from nettailor.student.wiring import Path, Wiring

BatchNormPolicy = Literal["train", "follow", "frozen"]

_NORMS = (_BatchNorm, *LAYER_NORMS)


class StudentOutput(NamedTuple):
    """What a student computes for B images.

    logits: (B, classes), the sum of its heads' by their path weights.
    nodes: x_0 … x_L, each in its layout; None where a cut network has no such node any more.
    by_head: the logits of each head, (B, classes) each, in the wiring's order.
    alpha: the path weights, (paths,), in the wiring's order.
    """

    logits: Tensor
    nodes: list[Tensor | None]
    by_head: list[Tensor]
    alpha: Tensor


class Student(nn.Module):
    """x_l = act_l(α_ll G_l(x_{l-1}) + Σ_p α_pl A_pl(x_p) + α x_{l-1}), one pass end to end.

    The last term, the identity in the place of a block, is there where the wiring has it; where
    shapes differ, x_{l-1} is max-pooled and padded with channels of zeros. The logits are a
    weighted sum too: Σ α H(x_n) over the pretrained head and the exits of the wiring. With
    adapters, a proxy of x_{l-1} is added to every G_l(x_{l-1}) (Rebuffi and others, 2018), at first
    zero.

    Universal, shared by all tasks and frozen: stem, blocks G_l and neck. Task-specific: proxies,
    adapters, exits, path weights, classifier, and what moves of the universal norms:

    - "train": their running statistics follow the task and their affine weights train; both belong
      to the task;
    - "follow": batch norms normalise by the batch in training and their running statistics move,
      the affine weights stay;
    - "frozen": neither moves; `train()` keeps the universal modules in eval mode.

    A path that the wiring lacks takes no part; `prune.remove` also drops its module.

    Attributes:
        wiring: the living paths. specs: of the nodes x_0 … x_L. example, channels_last: see
            `Backbone`. side: in pixels, of the images that it computes with: others are resized;
            None: as they come.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        skips: int | Literal["dense"] = 0,
        identities: bool = True,
        exits: bool = True,
        adapters: bool = False,
        batch_norm: BatchNormPolicy = "train",
        shared: bool = False,
        wiring: Wiring | None = None,
    ) -> None:
        """Copies the backbone's modules: it stays as it is.

        Args:
            backbone: pretrained, or fine-tuned, with a classifier for this task.
            skips: proxies into each node: from so many nodes back, or from all of them.
            identities: in the place of every block that does not make its input narrower.
            exits: from the end of every stage, the last one included.
            adapters: whether each block has one.
            batch_norm: what moves of the universal norms, see above.
            shared: the universal modules stay those of the backbone; otherwise all trains.
            wiring: the living paths, in the place of `skips`, `identities` and `exits`.
        """
        super().__init__()
        chain = deepcopy(backbone).requires_grad_(True)
        specs = node_specs(chain)
        if wiring is None:
            wiring = grown_wiring(chain, specs, skips, identities=identities, exits=exits)
        self.wiring = wiring
        self.batch_norm: BatchNormPolicy = batch_norm
        self.finetunes_all = False
        self.side: int | None = None
        self.specs, self.example = specs, chain.example
        self.channels_last = chain.channels_last
        self.stem = chain.stem
        self.blocks = nn.ModuleDict(
            {path.key: chain.blocks[path.target - 1] for path in wiring.of_kind("block")}
        )

        def proxy(path: Path) -> Proxy:
            source, target = specs[path.source], specs[path.target]
            shape = proxy_shape(chain.blocks[path.target - 1])
            return Proxy(source.channels, target.channels, shape, target.layout)

        self.proxies = nn.ModuleDict({path.key: proxy(path) for path in wiring.of_kind("proxy")})
        self.adapters = nn.ModuleDict(
            {
                path.key: proxy(path)
                for path in wiring.of_kind("block")
                if adapters and specs[path.source].leads_to(specs[path.target])
            }
        )
        for adapter in self.adapters.values():
            nn.init.zeros_(cast(Proxy, adapter).norm.weight)
        self.activations = nn.ModuleDict(
            {
                str(node): chain.activations[node - 1]
                for node, group in enumerate(wiring.incoming)
                if group and node < wiring.depth
            }
        )
        self.heads = nn.ModuleDict(
            {
                path.key: Head(chain.neck, chain.classifier)
                if path.kind == "head"
                else exit_from(chain, specs[path.source], specs[-1])
                for position in wiring.incoming[-1]
                for path in [wiring.paths[position]]
            }
        )
        self.path_weights = PathWeights(wiring)
        for module in self.universal():
            module.requires_grad_(False)
            for part in module.modules():
                if batch_norm == "train" and isinstance(part, _NORMS):
                    part.requires_grad_(True)
        if not shared:
            self.finetune_all()

    def extra_repr(self) -> str:
        """Its paths: two students can have the same modules and differ in these."""
        return " ".join(path.key for path in self.wiring.paths)

    def universal(self) -> tuple[nn.Module, ...]:
        """The modules that hold pretrained weights."""
        necks = [self.heads[path.key].neck for path in self.wiring.of_kind("head")]
        return (self.stem, self.blocks, *cast(list[nn.Module], necks))

    def finetune_all(self) -> None:
        """Let every kept weight train: from here on the network stands alone."""
        self.finetunes_all = True
        self.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is the task's; the rest stays in eval mode."""
        super().train(mode)
        if mode and not self.finetunes_all and self.batch_norm == "frozen":
            for module in self.universal():
                module.eval()
        return self

    def forward(self, images: Tensor) -> StudentOutput:
        """What the student says of images (B, 3, S, S)."""
        # the weight of an only path is 1 by definition
        alpha = self.path_weights() if self.mixes else torch.ones_like(self.path_weights.logits)
        weights = alpha.unbind()
        affines = self._proxy_affines(weights)
        nodes: list[Tensor | None] = [self.begin(images)]
        pooled: dict[tuple[int, Places], Tensor] = {}
        for node in range(1, self.wiring.depth):
            incoming = self.wiring.incoming[node]
            total: Tensor | None = None
            for position in incoming:
                weight = weights[position] if len(incoming) > 1 else None
                path = self.wiring.paths[position]
                term = self._along(path, nodes, pooled, weight, affines.get(path.key))
                total = term if total is None else total + term
            nodes.append(None if total is None else self.activations[str(node)](total))
        by_head = [
            cast(Tensor, self.heads[path.key](nodes[path.source]))
            for path in (self.wiring.paths[position] for position in self.wiring.incoming[-1])
        ]
        logits = by_head[0]
        if len(by_head) > 1:
            logits = (torch.stack(by_head) * self.of_heads(alpha)[:, None, None]).sum(0)
        return StudentOutput(logits, nodes, by_head, alpha)

    def begin(self, images: Tensor) -> Tensor:
        """Images (B, C, S, S) -> x_0."""
        images = resized(images, self.side)
        return cast(Tensor, self.stem(images if self.channels_last else images.contiguous()))

    def step(self, path: Path, x: Tensor) -> Tensor:
        """One path alone: its source node -> its target node, or the logits (B, classes)."""
        if path.kind in ("head", "exit"):
            return cast(Tensor, self.heads[path.key](x))
        out = self._along(path, {path.source: x}, {}, None, None)
        return cast(Tensor, self.activations[str(path.target)](out))

    @property
    def mixes(self) -> bool:
        """Whether a node has several paths."""
        return any(len(incoming) > 1 for incoming in self.wiring.incoming)

    def of_heads(self, alpha: Tensor) -> Tensor:
        """The path weights of the heads, (heads,): the last of `alpha` (paths,); their sum is 1."""
        return alpha[-len(self.wiring.incoming[-1]) :]

    def _proxy_affines(self, weights: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """By path: what the last norm of a proxy is scaled with, where its node has other paths."""
        mixed = {
            path.key: weight
            for path, weight in zip(self.wiring.paths, weights, strict=True)
            if path.kind == "proxy" and len(self.wiring.incoming[path.target]) > 1
        }
        if not mixed:
            return {}
        norms = [cast(Proxy, self.proxies[key]).norm for key in mixed]
        return dict(zip(mixed, scaled_affines(norms, list(mixed.values())), strict=True))

    def _along(
        self,
        path: Path,
        nodes: Sequence[Tensor | None] | Mapping[int, Tensor],
        pooled: dict[tuple[int, Places], Tensor],
        alpha: Tensor | None,
        affine: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        x = nodes[path.source]
        assert x is not None, "the plan excludes paths out of dead nodes"
        adapted = path.key in self.adapters
        small = x
        if adapted or path.kind != "block":
            source, target = self.specs[path.source], self.specs[path.target]
            key = path.source, target.places
            if key not in pooled:
                pooled[key] = bring(x, source, target)
            small = pooled[key]
        if path.kind == "proxy":
            return cast(Tensor, self.proxies[path.key](small, affine))
        if path.kind == "identity":
            out = widen(small, target.channels - source.channels, target.layout)
        else:
            out = cast(Tensor, self.blocks[path.key](x))
            if adapted:
                out = out + self.adapters[path.key](small)
        return out if alpha is None else out * alpha
