"""Networks made of blocks: their parameters counted by hand, their shapes, their plain form."""

from typing import Any, get_args

import pytest
import torch
from conftest import enliven
from pydantic import ValidationError
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor.core.architecture import BlockKind, SearchedBlock, SearchedStructure
from nettailor.core.backbone import node_specs
from nettailor.core.cost import check_image_size, module_flops, parameters
from nettailor.core.vocabulary import searched_chain
from nettailor.prune.fold import fold

KINDS = get_args(BlockKind)


def block(kind: str = "Conv", **changes: Any) -> SearchedBlock:
    plain = {"channels": 16, "stride": 1, "kernel": 3, "activation": "relu", "repeats": 1}
    expansion = 1 if kind in ("Conv", "DWConv") else 4
    return SearchedBlock.model_validate({"kind": kind, "expansion": expansion, **plain, **changes})


def structure(*blocks: SearchedBlock, stem: int = 8, head: int = 32) -> SearchedStructure:
    return SearchedStructure(stem=stem, blocks=blocks, head=head)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        # 8 channels in, 16 out, kernel 5; a norm has two numbers a channel
        ("Conv", 8 * 16 * 25 + 2 * 16),
        ("DWConv", 8 * 25 + 2 * 8 + 8 * 16 + 2 * 16),
        # 32 channels inside
        ("InvertedResidualV2", 8 * 32 + 64 + 32 * 25 + 64 + 32 * 16 + 32),
        # squeezed to a quarter of the 32, with biases
        (
            "InvertedResidualV3",
            8 * 32 + 64 + 32 * 25 + 64 + 32 * 16 + 32 + (32 * 8 + 8) + (8 * 32 + 32),
        ),
        # squeezed to a quarter of the 8
        (
            "MBConv",
            8 * 32 + 64 + 32 * 25 + 64 + 32 * 16 + 32 + (32 * 2 + 2) + (2 * 32 + 32),
        ),
    ],
)
def test_parameters_of_a_block_counted_by_hand(kind, count):
    chain = searched_chain(structure(block(kind, kernel=5)), 5)
    assert parameters(chain.blocks[0]) == count
    # stem 3×3 of 3 to 8; head 1×1 of 16 to 32; five classes
    assert parameters(chain.stem) == 3 * 8 * 9 + 2 * 8
    assert parameters(chain.neck) == 16 * 32 + 2 * 32
    assert parameters(chain.classifier) == 32 * 5 + 5


def test_multiply_adds_counted_by_hand():
    chain = searched_chain(structure(block(stride=2)), 5)
    # 16 px: stem at 8 × 8, block and head at 4 × 4
    expected = 3 * 8 * 9 * 64 + 8 * 16 * 9 * 16 + 16 * 32 * 16 + 32 * 5
    assert module_flops(chain, (3, 16, 16)) == expected


def test_stages_strides_and_sums():
    rows = [
        block(kind, channels=8 * (number + 1), stride=1 + number % 2, repeats=2)
        for number, kind in enumerate(KINDS)
    ]
    chain = searched_chain(structure(*rows), 3)
    assert chain.stages == (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)
    assert [spec.stride for spec in node_specs(chain)] == [2, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8]
    channels = [8, 8, 8, 16, 16, 24, 24, 32, 32, 40, 40]
    assert [spec.channels for spec in node_specs(chain)] == channels
    # each repeat reads and writes the same shape, and the first of a stage only here and there
    sums = [bool(part.has_skip) for part in chain.blocks]
    assert sums == [True, True, False, True, False, True, False, True, False, True]
    for size in (16, 31, 32, 57):
        check_image_size(chain, size)


@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_swish", "silu"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_network_computes_the_same(kind, activation):
    rows = [
        block(kind, kernel=5, stride=2, repeats=2, activation=activation),
        block(kind, channels=24, activation=activation),
    ]
    chain = searched_chain(structure(*rows), 5)
    enliven(chain)
    chain.eval().double()
    images = torch.randn(3, 3, 31, 31, dtype=torch.float64)
    plain = fold(chain)
    assert isinstance(plain, nn.Sequential)
    assert not any(isinstance(part, _BatchNorm) for part in plain.modules())
    with torch.no_grad():
        expected = chain(images).logits
        assert torch.allclose(
            plain(images), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max())
        )
    assert len(expected.unique()) == expected.numel()  # every image tells


def test_the_kind_of_block_and_activation_matter():
    """The same weights under another gate or activation answer otherwise."""

    def logits(**changes):
        # 2 × 8 channels in a quarter of which both kinds squeeze to the same shape
        row = block("InvertedResidualV3", **changes)
        chain = enliven(searched_chain(structure(row), 5)).eval()
        with torch.no_grad():
            return chain(torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)).logits

    assert not torch.allclose(logits(), logits(activation="silu"), atol=1e-3)


def test_a_key_tells_networks_apart():
    one = structure(block())
    assert one.key == structure(block()).key == structure(*one.blocks).key
    others = [
        structure(block(kernel=5)), structure(block(activation="silu")),
        structure(block(), stem=16), structure(block(), head=64), structure(block(), block()),
    ]  # fmt: skip
    assert len({one.key, *(other.key for other in others)}) == 6
    assert SearchedStructure.model_validate_json(one.model_dump_json()).key == one.key


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "Attention"}, {"channels": 0}, {"channels": 4096}, {"stride": 3}, {"kernel": 4},
        {"activation": "exec"}, {"expansion": 0}, {"expansion": 9}, {"repeats": 10**9},
        {"dilation": 2},
    ],
    ids=str,
)  # fmt: skip
def test_blocks_that_nobody_searches_are_refused(changes):
    with pytest.raises(ValidationError):
        SearchedBlock.model_validate({**block("MBConv").model_dump(), **changes})


@pytest.mark.parametrize("count", [0, 17])
def test_too_few_and_too_many_stages_are_refused(count):
    with pytest.raises(ValidationError):
        structure(*[block()] * count)
