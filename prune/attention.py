"""Attention layers whose heads can go: which tensors hold a head, and the layer without it."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import Attention, AttentionRope, apply_rot_embed_cat
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from nettailor.prune.items import Ints

TABLE = "relative_position_bias_table"  # (distances, heads)

_ROWS = frozenset({"qkv", "q_proj", "k_proj", "v_proj", "gate"})  # linear layers that give heads
_BIASES = frozenset({"q_bias", "k_bias", "v_bias"})
_NO_NORM = (nn.Identity, type(None))


class _FewerEva(EvaAttention):  # type: ignore[misc]
    """EVA's, whose own forward pass takes for granted that the heads are as wide as its input."""

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        parts: Sequence[Tensor]
        if self.qkv is None:
            parts = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        else:
            parts = _qkv(self, x)
        q, k, v = (rearrange(one, "b n (h d) -> b h n d", h=self.num_heads) for one in parts)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = (self._turned(one, rope).type_as(v) for one in (q, k))
        gate = None if self.gate is None else self.gate(x).sigmoid()
        return _out(self, q, k, v, attn_mask, gate, is_causal=is_causal)

    def _turned(self, x: Tensor, rope: Tensor) -> Tensor:
        first = self.num_prefix_tokens
        turned = apply_rot_embed_cat(x[:, :, first:], rope, half=self.rotate_half)
        return torch.cat([x[:, :, :first], turned], dim=2)


class _FewerBeit(BeitAttention):  # type: ignore[misc]
    """BEiT's, likewise."""

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=self.num_heads) for x in _qkv(self, x))
        bias = shared_rel_pos_bias
        if self.relative_position_bias_table is not None:
            own = self._get_rel_pos_bias()
            bias = own if bias is None else own + bias
        return _out(self, q, k, v, bias, None)


def _qkv(layer: Any, x: Tensor) -> tuple[Tensor, ...]:
    bias = None
    if layer.q_bias is not None:
        bias = torch.cat((layer.q_bias, layer.k_bias, layer.v_bias))
    return F.linear(x, layer.qkv.weight, bias).chunk(3, dim=-1)


def _out(
    layer: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    *,
    is_causal: bool = False,
) -> Tensor:
    dropout = layer.attn_drop.p if layer.training else 0.0
    x = F.scaled_dot_product_attention(q, k, v, bias, dropout, is_causal)
    x = rearrange(x, "b h n d -> b n (h d)")
    out: Tensor = layer.proj_drop(layer.proj(x if gate is None else x * gate))
    return out


_FEWER: dict[type[nn.Module], type[nn.Module]] = {
    EvaAttention: _FewerEva,
    BeitAttention: _FewerBeit,
}
_KNOWN = frozenset({Attention, AttentionRope, WindowAttention, *_FEWER, *_FEWER.values()})


def heads_of(module: nn.Module) -> int | None:
    """How many heads an attention layer has; None for any module whose heads cannot go.

    That is one of a class that is not known, one that norms all heads together, and one whose heads
    share keys and values.
    """
    if type(module) not in _KNOWN or not isinstance(getattr(module, "norm", None), _NO_NORM):
        return None
    heads = int(module.num_heads)  # type: ignore[arg-type]
    return heads if getattr(module, "num_kv_heads", heads) == heads else None


def head_tensors(attention: nn.Module) -> dict[str, tuple[int, Ints]]:
    """By name within the layer, the tensors that hold its heads.

    Each with the dimension along which they lie, and the number of the head of each place there.
    """
    heads = np.arange(heads_of(attention) or 0)
    width = cast(nn.Linear, attention.get_submodule("proj")).in_features
    of_channel = np.repeat(heads, width // len(heads))
    found: dict[str, tuple[int, Ints]] = {}
    for name, tensor in (*attention.named_parameters(), *attention.named_buffers()):
        if name.partition(".")[0] in _ROWS | _BIASES:
            found[name] = 0, np.tile(of_channel, len(tensor) // width)
        elif name == TABLE:
            found[name] = 1, heads
        elif name == "proj.weight":
            found[name] = 1, of_channel
    return found


def take_heads(attention: nn.Module, kept: Tensor) -> None:
    """Keep some heads, shape (heads that stay,), in place; its linear layers are not touched."""
    layer: Any = attention
    before, after = int(layer.num_heads), len(kept)
    if before == after:
        return
    for name in _BIASES & {name for name, _ in (*layer.named_parameters(), *layer.named_buffers())}:
        biases = rearrange(getattr(layer, name).detach(), "(h d) -> h d", h=before)
        _set(layer, name, biases[kept.to(biases.device)].flatten())
    if getattr(layer, TABLE, None) is not None:
        table = getattr(layer, TABLE).detach()
        _set(layer, TABLE, table[:, kept.to(table.device)])
    for name in {"num_heads", "num_kv_heads", "attn_dim", "kv_dim"} & vars(layer).keys():
        setattr(layer, name, getattr(layer, name) // before * after)
    # the same layer under the same names, but for how it counts its channels
    layer.__class__ = _FEWER.get(type(layer), type(layer))


def _set(layer: nn.Module, name: str, value: Tensor) -> None:
    old = getattr(layer, name)
    parameter = isinstance(old, nn.Parameter)
    setattr(layer, name, nn.Parameter(value, old.requires_grad) if parameter else value)
