"""Transformers lose heads and hidden units: what is left is the whole with these masked."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import enliven
from networks import TRANSFORMERS, architecture_of, images, student_along, transformer
from torch import nn

import nettailor as nt
from nettailor.core.architecture import NarrowedStructure
from nettailor.core.backbone import create_backbone
from nettailor.core.cost import module_flops, parameters
from nettailor.network import load_network, save_network
from nettailor.prune.attention import heads_of
from nettailor.prune.channels import trace_channels
from nettailor.prune.fold import fold
from nettailor.prune.items import ATTENTION, FIXED, Channels
from nettailor.prune.narrow import narrow, widths
from nettailor.prune.widths import allowed, count_flops, count_parameters
from nettailor.student.wiring import Path as Path_

SIDE = 64
HEADS = {"test_vit": 4, "swin": 8, "eva02": 6, "eva_giant": 4, "beit": 8, "dinov2": 4}


def without(channels: Channels, *, heads: bool, units: bool) -> np.ndarray:
    """Which items stay: of each family all but its first one, and about a third of the others."""
    kept = np.random.default_rng(0).random(channels.count) < 0.66
    of_heads = np.unique(np.concatenate([*channels.heads.values(), [FIXED]]))[1:]
    is_head = np.isin(np.arange(channels.count), of_heads)
    for family in channels.families:
        kept[family.items[0]], kept[family.items[-1]] = False, True
    kept |= is_head & (not heads)
    kept |= ~is_head & (not units)
    return kept


def mask_values(attention: nn.Module, gone: np.ndarray) -> None:
    """The values of some heads are 0, so that nothing of them reaches the projection."""
    out = np.repeat(gone, attention.proj.in_features // len(gone))
    with torch.no_grad():
        if getattr(attention, "v_proj", None) is None:
            attention.qkv.weight[2 * len(out) :][out] = 0
            biases = [attention.qkv.bias, getattr(attention, "v_bias", None)]
        else:
            attention.v_proj.weight[out] = 0
            biases = [attention.v_proj.bias]
        for bias in biases:
            if bias is not None:
                bias[-len(out) :][out] = 0


@pytest.mark.parametrize("name", HEADS)
def test_heads_that_go_are_as_if_masked(name: str) -> None:
    network = transformer(name).double()
    channels = trace_channels(network, SIDE)
    kept = without(channels, heads=True, units=False)
    assert sum(len(items) for items in channels.heads.values()) == HEADS[name]
    masked = copy.deepcopy(network)
    for layer, items in channels.heads.items():
        mask_values(masked.get_submodule(layer), ~kept[items])
    small = narrow(network, channels, kept)
    x = images(2, SIDE, torch.float64)
    with torch.no_grad():
        whole, dead, mine = network(x).logits, masked(x).logits, small(x).logits
        plain = fold(small)(x)
    for found in (mine, plain):
        torch.testing.assert_close(found, dead, rtol=0, atol=1e-9)
    assert (whole - dead).abs().max() > 1e-3
    for layer, items in channels.heads.items():
        assert heads_of(small.get_submodule(layer)) == kept[items].sum() < len(items)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_hidden_units_that_go_are_as_if_masked(name: str) -> None:
    network = transformer(name).double()
    channels = trace_channels(network, SIDE)
    kept = without(channels, heads=False, units=True)
    masked = copy.deepcopy(network)
    layers = [n for n, _ in network.named_modules() if n.endswith("fc2")]
    for layer in layers:
        gone = torch.as_tensor(~kept[channels.places[f"{layer}.weight", 1]])
        masked.get_submodule(layer).register_forward_pre_hook(
            lambda _, args, gone=gone: (args[0].masked_fill(gone, 0),)
        )
    small = narrow(network, channels, kept)
    x = images(2, SIDE, torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(small(x).logits, masked(x).logits, rtol=0, atol=1e-9)
    assert len(layers) >= 2
    for layer in layers:
        before, after = network.get_submodule(layer), small.get_submodule(layer)
        assert after.in_features < before.in_features


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_costs_are_those_of_the_narrow_network(name: str) -> None:
    network = transformer(name)
    channels = trace_channels(network, SIDE)
    kept = without(channels, heads=True, units=True)
    small = narrow(network, channels, kept)
    counts = np.array([[kept[family.items].sum() for family in channels.families]])
    assert count_flops(channels).of(counts)[0] == module_flops(small, (3, SIDE, SIDE))
    assert count_parameters(channels, network).of(counts)[0] == parameters(small)
    assert module_flops(small, (3, SIDE, SIDE)) < channels.flops


def test_a_head_saves_its_rows_its_columns_and_its_two_products() -> None:
    """64 channels in 2 heads of 32, on 17 tokens."""
    channels = trace_channels(transformer("test_vit"), SIDE)
    ranges, costs = allowed(channels.families, 8), count_flops(channels)
    family = next(
        number
        for number, one in enumerate(channels.families)
        if set(one.items) == set(channels.heads["blocks.0.blocks.0.attn"])
    )
    assert ranges.counts[family].tolist() == [1, 2]  # 32 channels are a multiple of 8
    fewer = ranges.most.copy()
    fewer[family] = 1
    whole, left = costs.of(np.stack([ranges.most, fewer]))
    assert whole - left == 17 * (3 * 32 * 64 + 32 * 64) + 2 * 17 * 17 * 32


def test_saved_and_loaded_exactly(tmp_path: Path) -> None:
    network = create_backbone("test_vit", 5, SIDE)
    enliven(network).eval()
    channels = trace_channels(network, SIDE)
    small = narrow(network, channels, without(channels, heads=True, units=True))
    structure = NarrowedStructure(layers=widths(small), nodes=None)
    save_network(tmp_path, small, architecture_of("test_vit", 5, SIDE, narrowed=structure))
    twin, _ = load_network(tmp_path)
    assert twin.get_submodule("blocks.0.blocks.0.attn").num_heads == 1
    torch.testing.assert_close(twin.state_dict(), small.state_dict(), rtol=0, atol=0)
    with torch.no_grad():
        # not to the bit: where weights lie in another order, some processors sum in another
        said, expected = twin(images(2, SIDE)).logits, small(images(2, SIDE)).logits
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-5)


def test_a_student_keeps_its_paths() -> None:
    """What a tailored network is: a block fewer, an exit on tokens."""
    paths = (
        Path_(0, 1, "block"), Path_(1, 2, "block"), Path_(2, 3, "identity"), Path_(3, 5, "exit"),
    )  # fmt: skip
    student = student_along(transformer("test_vit"), 5, *paths, batch_norm="train")
    student.finetune_all()
    enliven(student).eval()
    channels = trace_channels(student, SIDE)
    small = narrow(student, channels, without(channels, heads=True, units=False))
    masked = copy.deepcopy(student)
    ((layer, items),) = channels.heads.items()
    mask_values(masked.get_submodule(layer), np.arange(len(items)) == 0)
    with torch.no_grad():
        dead, mine = masked(images(2, SIDE)).logits, small(images(2, SIDE)).logits
        torch.testing.assert_close(mine, dead, rtol=0, atol=1e-5)
        torch.testing.assert_close(fold(small)(images(2, SIDE)), dead, rtol=0, atol=1e-5)


def made(name: str, **settings: Any) -> Channels:
    sizes = {"depth": 1, "embed_dim": 32, "num_heads": 2, "num_classes": 3}
    network = timm.create_model(name, img_size=SIDE, **(sizes | settings))
    return trace_channels(nt.Backbone(network), SIDE)


@pytest.mark.parametrize(
    ("name", "settings", "does"),
    [
        # positions that turn each head in its own way
        ("vit_small_patch16_rope_mixed_224", {}, "addition of a tensor for each head"),
        # a norm of all heads together
        ("eva02_base_patch16_clip_224", {"scale_mlp": False}, ATTENTION),
        ("vit_relpos_small_patch16_224", {}, ATTENTION),
    ],
)
def test_heads_of_other_attention_stay_and_the_layer_is_named(
    name: str, settings: dict[str, Any], does: str
) -> None:
    channels = made(name, **settings)
    assert {does for layer, does in channels.stays.items() if layer.endswith("attn")} == {does}
    assert all((items == FIXED).all() for items in channels.heads.values())
