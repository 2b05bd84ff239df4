"""The student: pretrained blocks, what may stand in for them, and softmax path weights."""

from typing import Literal, Self, cast

import torch.nn.functional as F
from torch import Tensor, nn

from nettailor.core.backbone import Chain, NetOutput, NodeSpec, ProxyShape
from student.exit import Head, exit_from
from student.path_weights import PathWeights
from student.proxy import Proxy, pool
from student.wiring import Path, Wiring

BatchNormPolicy = Literal["follow", "frozen"]


class Student(nn.Module):
    """x_l = act_l(α_ll G_l(x_{l-1}) + Σ_p α_pl A_pl(x_p) + α x_{l-1}), one pass end to end.

    The last term, the identity in the place of a block, is there where the wiring has it; where
    shapes differ, x_{l-1} is max-pooled and padded with channels of zeros. The logits are a
    weighted sum too: Σ α H(x_n) over the pretrained head and the exits of the wiring.

    Universal, shared by all tasks and frozen: stem, blocks G_l and neck. Task-specific: proxies,
    exits, path weights, classifier, and the running statistics of the universal batch norms when
    they follow the task. `train()` keeps everything that must not move in eval mode:

    - "follow": universal batch norms normalise by the batch in training and their running
      statistics move; their affine weights stay frozen. These statistics belong to the task.
    - "frozen": universal batch norms stay in eval mode, weights and statistics as pretrained.

    A path that the wiring lacks takes no part; `prune.remove` also drops its module.
    """

    def __init__(
        self,
        chain: Chain,
        specs: tuple[NodeSpec, ...],
        wiring: Wiring,
        *,
        shapes: tuple[ProxyShape, ...],
        batch_norm: BatchNormPolicy,
    ) -> None:
        """Takes over the chain's modules.

        Args:
            chain: the pretrained network with a classifier for this task.
            specs: channels and stride of the nodes x_0 … x_L.
            wiring: the living paths.
            shapes: the proxy shape that each block calls for, L entries.
            batch_norm: what the universal statistics do, see above.
        """
        super().__init__()
        self.wiring = wiring
        self.batch_norm: BatchNormPolicy = batch_norm
        self.finetunes_all = False
        self.specs = specs
        self.stem = chain.stem
        self.blocks = nn.ModuleDict(
            {path.key: chain.blocks[path.target - 1] for path in wiring.of_kind("block")}
        )
        self.proxies = nn.ModuleDict(
            {
                path.key: Proxy(
                    specs[path.source].channels,
                    specs[path.target].channels,
                    shapes[path.target - 1],
                )
                for path in wiring.of_kind("proxy")
            }
        )
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
                else exit_from(chain, specs[path.source].channels)
                for position in wiring.incoming[-1]
                for path in [wiring.paths[position]]
            }
        )
        self.path_weights = PathWeights(wiring)
        for module in self.universal():
            module.requires_grad_(False)

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

    def forward(self, images: Tensor) -> NetOutput:
        """(B, 3, S, S) -> logits (B, classes) and nodes x_0 … x_L, None where nothing leads."""
        alpha = self.path_weights().unbind()
        nodes: list[Tensor | None] = [self.stem(images)]
        pooled: dict[tuple[int, int], Tensor] = {}
        for node in range(1, self.wiring.depth + 1):
            incoming = self.wiring.incoming[node]
            total: Tensor | None = None
            for position in incoming:
                path = self.wiring.paths[position]
                # the weight of an only path is 1 by definition
                weight = alpha[position] if len(incoming) > 1 else None
                term = self._along(path, nodes, pooled, weight)
                total = term if total is None else total + term
            if total is not None and node < self.wiring.depth:
                total = self.activations[str(node)](total)
            nodes.append(total)
        logits = nodes.pop()
        assert logits is not None, "the plan keeps stem and logits connected"
        return NetOutput(logits, nodes)

    def _along(
        self,
        path: Path,
        nodes: list[Tensor | None],
        pooled: dict[tuple[int, int], Tensor],
        alpha: Tensor | None,
    ) -> Tensor:
        x = nodes[path.source]
        assert x is not None, "the plan excludes paths out of dead nodes"
        if path.kind in ("proxy", "identity"):
            stride = self.specs[path.target].stride // self.specs[path.source].stride
            if (path.source, stride) not in pooled:
                pooled[path.source, stride] = pool(x, stride)
            x = pooled[path.source, stride]
        if path.kind == "proxy":
            return cast(Tensor, self.proxies[path.key](x, alpha))
        if path.kind == "identity":
            missing = self.specs[path.target].channels - self.specs[path.source].channels
            out = F.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x
        else:
            modules = self.blocks if path.kind == "block" else self.heads
            out = cast(Tensor, modules[path.key](x))
        return out if alpha is None else out * alpha
